"""Builds the server's agent and runs it until it is told to stop."""

import asyncio
import signal
from dataclasses import dataclass

import structlog

from bus_schemas.errors import ContractError
from bus_schemas.events.health import REPORT_INTERVAL_SECONDS
from bus_schemas.transport.back_off import BackOff
from bus_schemas.transport.target import BusDenied, BusUnavailable
from vps_runtime.announcer import Announcer
from vps_runtime.config.reconciler import Reconciler
from vps_runtime.connection.link import Link
from vps_runtime.connection.tokens import TokenStore
from vps_runtime.fingerprint.tags import Tags
from vps_runtime.health.reporter import Reporter
from vps_runtime.state import StateFolder
from vps_runtime.unlock.boot import unlock
from vps_runtime.unlock.evaluator import Evaluator
from vps_runtime.unlocked import UnlockedServer

_log = structlog.get_logger(__name__)

_FIRST_PAUSE = 1.0
_LONGEST_PAUSE = 60.0


@dataclass(frozen=True)
class AgentOptions:
    """What an operator may set for one run."""

    health_seconds: float = REPORT_INTERVAL_SECONDS
    """Between two health reports."""


async def run_until_stopped(state: StateFolder, options: AgentOptions) -> None:
    """Run the agent until SIGTERM or SIGINT; both end it cleanly.

    Raises NotEnrolled, AlreadyRunning, Refused (the unlock was turned down), DiskFull,
    StorageFull, OSError.
    """
    loop = asyncio.get_running_loop()
    state.read_settings()  # first: without them there is no folder to lock
    with state.lock():
        agent = loop.create_task(_run(state, options), name="agent")
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, agent.cancel)
        try:
            await agent
        except asyncio.CancelledError:
            caller = asyncio.current_task()
            if caller and caller.cancelling():  # not a signal: somebody cancelled us
                raise
            _log.info("stopped")


async def _run(state: StateFolder, options: AgentOptions) -> None:
    settings, identity = state.read_settings(), state.read_identity()
    link = Link(state.target(), settings.server_id, TokenStore(state))
    await _open(link)
    try:
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(link.keep(), name="link")
            evaluator = Evaluator(link.bus, identity, state.read_evaluator())
            unlocked = await unlock(state, settings.server_id, evaluator)
            server = await UnlockedServer.open(state, unlocked)
            try:
                await _serve(link, server, evaluator, options)
            finally:
                await server.facts.close()
    finally:
        await link.close()


async def _serve(
    link: Link, server: UnlockedServer, evaluator: Evaluator, options: AgentOptions
) -> None:
    tags = Tags(evaluator, server.credentials, server.facts)
    announcer = Announcer(server, tags)
    reconciler = Reconciler(link.bus, server, announcer)
    announcer.on_pins_changed(reconciler.nudge)
    reporter = Reporter(link.bus, server, options.health_seconds)
    async with asyncio.TaskGroup() as tasks:
        tasks.create_task(server.facts.pump(link.bus), name="outbox")
        tasks.create_task(announcer.run(), name="announcer")
        tasks.create_task(reconciler.run(), name="reconciler")
        tasks.create_task(reporter.run(), name="health")
        _log.info(
            "ready",
            server=server.settings.server_id,
            incarnation=server.facts.incarnation,
            slots=len(server.credentials.current),
        )


async def _open(link: Link) -> None:
    """Get a working token if need be, however long the issuer is away."""
    back_off = BackOff(first=_FIRST_PAUSE, longest=_LONGEST_PAUSE)
    while True:
        try:
            await link.open()
        except (BusUnavailable, BusDenied, ContractError) as error:
            pause = back_off.pause()
            _log.warning("door_waits", error=str(error), seconds=round(pause, 1))
            await asyncio.sleep(pause)
        else:
            return
