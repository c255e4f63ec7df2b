"""Builds the runtime and runs it until it is told to stop."""

import asyncio
import contextlib
import signal
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from enum import StrEnum

import structlog

from bus_schemas.events.health import REPORT_INTERVAL_SECONDS
from bus_schemas.exit_codes import root_cause
from bus_schemas.transport.pulse import Pulse, Work, begin, tell_ready, tell_status, watched
from bus_schemas.transport.service_manager import from_environment
from vps_runtime.announcer import Announcer
from vps_runtime.config.reconciler import Reconciler
from vps_runtime.config.watch import OrderWatch
from vps_runtime.connection.link import Link
from vps_runtime.connection.standing import Standing
from vps_runtime.connection.tokens import TokenStore
from vps_runtime.facts.store import Facts
from vps_runtime.fingerprint.tags import Tags
from vps_runtime.gateway.server import Gateway, GatewayOptions
from vps_runtime.health.reporter import Reporter, Sources
from vps_runtime.in_use import InUse, in_use
from vps_runtime.openclaw.service import OpenClawOptions, taking_back
from vps_runtime.orders.obey import LockOrdered, Orders
from vps_runtime.outgoing import open_session
from vps_runtime.state import StateFolder
from vps_runtime.unlock.boot import keep_pins, unlock
from vps_runtime.unlock.evaluator import Evaluator
from vps_runtime.unlocked import UnlockedServer

_log = structlog.get_logger(__name__)

_LAST_WORD_SECONDS = 5.0
_THREADS = 32
"""For files and names. Python takes a few for each core: as many providers whose names do not
resolve would keep the vault waiting."""
_STUCK_SECONDS = 300.0
"""A task that took no step for so long is stuck (`pulse`); the longest back-off is 90 s."""
_STUCK_READER_SECONDS = 600.0
"""The same for who looks at the desired document, which without a nudge takes up to 270 s."""


@dataclass(frozen=True)
class AgentOptions:
    """What an operator may set for one run."""

    health_seconds: float = REPORT_INTERVAL_SECONDS
    """Between two health reports."""
    gateway: GatewayOptions = field(default_factory=GatewayOptions)
    """Where the agent's calls are taken."""
    openclaw: OpenClawOptions = field(default_factory=OpenClawOptions)
    """The agent that asks for keys, if there is one."""

    @property
    def reports_late(self) -> float:
        """Seconds without a step after which who reports is stuck."""
        return 3 * self.health_seconds + _STUCK_SECONDS


class Ending(StrEnum):
    """Why the runtime ended."""

    STOPPED = "stopped"
    """A signal, or whoever started it."""
    LOCKED = "locked"
    """An order: start a process in place of this one, whose memory then has no key."""


async def run_until_stopped(state: StateFolder, options: AgentOptions) -> Ending:
    """Run until SIGTERM or SIGINT, which end it cleanly, or until it is locked.

    Raises NotEnrolled, AlreadyRunning, Refused (the unlock was turned down), DiskFull,
    StorageFull, OSError.
    """
    loop, manager = asyncio.get_running_loop(), from_environment()
    loop.set_default_executor(ThreadPoolExecutor(_THREADS, thread_name_prefix="byok"))
    state.read_settings()  # first: without them there is no folder to lock
    with state.lock(), Pulse(manager).watching():
        agent = loop.create_task(_until_locked(state, options), name="agent")

        def stop() -> None:
            manager.stopping()
            agent.cancel()

        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, stop)
        try:
            return await agent
        except asyncio.CancelledError:
            caller = asyncio.current_task()
            if caller and caller.cancelling():  # not a signal: somebody cancelled us
                raise
            _log.info("stopped")
    return Ending.STOPPED


async def _until_locked(state: StateFolder, options: AgentOptions) -> Ending:
    """Run until an order locks this server; nothing else ends it without an error."""
    try:
        await _run(state, options)
    except* LockOrdered as ordered:
        _log.warning("ends_to_lock", order=str(root_cause(ordered)))
    return Ending.LOCKED


async def _run(state: StateFolder, options: AgentOptions) -> None:
    settings, identity = state.read_settings(), state.read_identity()
    standing = Standing(state.turned_away)
    link = Link(state.target(), settings.server_id, TokenStore(state), standing=standing)
    gateway = Gateway(state, options.gateway)
    tell_status("waiting for the platform")
    link.begin()
    try:
        async with asyncio.TaskGroup() as tasks:
            await gateway.listen()  # from here on it answers, if only that there is no key yet
            works = (
                Work("gateway", gateway.run(), _STUCK_SECONDS),
                Work("link", link.keep(), _STUCK_SECONDS),  # the beat, every second
            )
            begin(tasks, works)
            await _while_locked(link, state, options)
            await link.bus.client()  # however long it takes; the link says what is wrong
            tell_status("waiting for the evaluator to unlock")
            evaluator = Evaluator(link.bus, identity, state.read_evaluator())
            unlocking = unlock(state, settings.server_id, evaluator)
            unlocked = await watched(
                "unlock", unlocking, within=_STUCK_SECONDS, needs=link.bus, ends=True
            )
            _log.info("root_key_held", how=unlocked.root_key.protection)
            with unlocked.root_key:  # wiped, however this ends
                server = await UnlockedServer.open(state, unlocked)
                try:
                    await _serve(link, server, evaluator, options, gateway)
                finally:
                    await server.facts.close()
    finally:
        await link.close()


async def _while_locked(link: Link, state: StateFolder, options: AgentOptions) -> None:
    """Return at once, or after the owner's order has lifted the lock. Nothing is unlocked here."""
    settings = state.read_settings()
    facts = await Facts.open(state.outbox, settings.server_id)
    orders = Orders(state, facts)
    try:
        if not orders.locked:
            return
        _log.warning("locked", server=settings.server_id)
        tell_ready(f"{settings.server_id} is locked by an order")
        async with open_session() as session, asyncio.TaskGroup() as tasks:
            reporter = Reporter(link.bus, facts, options.health_seconds)
            door = options.openclaw.door(state, options.gateway.user)
            nothing = taking_back(options.openclaw, door, facts, session)
            works = (
                Work("outbox", facts.pump(link.bus), _STUCK_SECONDS),
                Work("health", reporter.run(), options.reports_late),
            )
            beside = begin(tasks, nothing.works()) + begin(tasks, works, needs=link.bus)
            obeying = OrderWatch(link.bus, settings, orders).until_unlocked()
            await watched(
                "orders", obeying, within=_STUCK_READER_SECONDS, needs=link.bus, ends=True
            )
            with contextlib.suppress(TimeoutError):  # what is left is sent after the unlock
                async with asyncio.timeout(_LAST_WORD_SECONDS):
                    await facts.sent()
            for task in beside:
                task.cancel()
        _log.info("lock_lifted", server=settings.server_id)
    finally:
        await facts.close()


async def _serve(
    link: Link,
    server: UnlockedServer,
    evaluator: Evaluator,
    options: AgentOptions,
    gateway: Gateway,
) -> None:
    async with in_use(server, gateway, lambda: link.bus.connected, options.openclaw) as use:
        await _work(link, server, evaluator, options, use)


async def _work(
    link: Link, server: UnlockedServer, evaluator: Evaluator, options: AgentOptions, use: InUse
) -> None:
    tags = Tags(evaluator, server.credentials, server.facts)
    announcer = Announcer(server, tags, use.rotator.changed)
    use.rotator.on_moved(announcer.wake)
    use.refresher.on_refreshed(announcer.wake)
    reconciler = Reconciler(link.bus, server, announcer)
    use.rotator.on_moved(reconciler.nudge)  # a slot may be without a key now
    pins_changed = asyncio.Event()

    def pins_are_new() -> None:
        reconciler.nudge()
        pins_changed.set()

    announcer.on_pins_changed(pins_are_new)
    link.bus.on_ready(use.signs.link_lost)  # it is ready now: each time more is after a loss
    sources = Sources(server.credentials, use.calls.last, use.signs)
    reporter = Reporter(link.bus, server.facts, options.health_seconds, sources)
    orders = Orders(server.state, server.facts, pins_are_new, use.rotator)
    watch = OrderWatch(link.bus, server.settings, orders)
    async with asyncio.TaskGroup() as tasks:
        keeping = keep_pins(server.state, server.settings.server_id, evaluator, pins_changed)
        begin(tasks, use.works())  # they go on without the bus
        works = (
            Work("outbox", server.facts.pump(link.bus), _STUCK_SECONDS),
            Work("announcer", announcer.run(), _STUCK_SECONDS),
            Work("reconciler", reconciler.run(), _STUCK_READER_SECONDS),
            Work("orders", watch.run(), _STUCK_READER_SECONDS),
            Work("health", reporter.run(), options.reports_late),
            Work("pins", keeping, _STUCK_SECONDS),
        )
        begin(tasks, works, needs=link.bus)
        _log.info(
            "ready",
            server=server.settings.server_id,
            incarnation=server.facts.incarnation,
            slots=len(server.credentials.current),
        )
        tell_ready(
            f"{server.settings.server_id} is unlocked (start {server.facts.incarnation}),"
            f" {len(server.credentials.current)} slots held"
        )
