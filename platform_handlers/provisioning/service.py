"""The provisioning handler as a running thing: issuer, outbox and claims over one registry."""

import asyncio
from collections.abc import Callable

import aiosqlite
import structlog

from bus_schemas.flows import Role
from bus_schemas.transport import pulse
from bus_schemas.transport.back_off import BackOff
from bus_schemas.transport.connection import Bus
from bus_schemas.transport.credentials import parse_credentials
from bus_schemas.transport.database import StorageFull, fetch_one, open_database
from bus_schemas.transport.outbox import OUTBOX_SCHEMA, OutboxPump
from bus_schemas.transport.target import BusTarget, BusUnavailable
from platform_handlers.authority.installation import Installation
from platform_handlers.authority.role_bus import role_bus
from platform_handlers.provisioning.authorities import AuthorityBook
from platform_handlers.provisioning.issuer import Issuer
from platform_handlers.provisioning.registry import FILE_NAME, Registry
from platform_handlers.provisioning.revocation import Revoker
from platform_handlers.provisioning.tokens import TokenMint

_log = structlog.get_logger(__name__)

_LOOK_SECONDS = 0.5
"""How soon a change made by a command (another process) is noticed."""

_LONGEST_PAUSE = 5.0
"""Between two pushes while a nats-server has not confirmed."""

_STUCK_SECONDS = 120.0
"""A task that took no step for so long is stuck (`pulse`)."""


def system_bus(installation: Installation, target: BusTarget) -> Bus:
    """Return a connection of the system account's user, not yet open."""
    credentials = parse_credentials(installation.system_credentials.read_text())
    return Bus(target, "system", lambda: credentials)


async def run_provisioning(
    installation: Installation,
    target: BusTarget,
    registry: Registry,
    ready: Callable[[], None] = lambda: None,
) -> None:
    """Issue, renew, tell and revoke until cancelled; a bus that is away is waited for.

    *ready* is called once enrolments are answered.
    """
    # A connection of its own sees every commit to the file, also those of this process.
    watched = await open_database(installation.platform / FILE_NAME, OUTBOX_SCHEMA)
    bus = role_bus(installation, target, Role.ISSUER).open_in_background()
    system = system_bus(installation, target).open_in_background()
    pump = OutboxPump(registry.database, bus)
    try:
        book = AuthorityBook(registry, installation)
        orders_key = installation.orders_public_key()
        mint = TokenMint.of(installation)
        await Issuer(registry, mint, pump, book, orders_key).listen(bus)
        async with asyncio.TaskGroup() as tasks:
            watch = _watch(watched, pump, Revoker(system, registry, installation))
            for name, work, needs in (
                ("provisioning outbox", pump.run(), bus),
                ("registry watch", watch, system),
            ):
                task = pulse.watched(name, work, within=_STUCK_SECONDS, needs=needs)
                tasks.create_task(task, name=name)
            await bus.client()  # whoever has a client is subscribed, too
            ready()
    finally:
        await bus.close()
        await system.close()
        await watched.close()


async def _watch(database: aiosqlite.Connection, pump: OutboxPump, revoker: Revoker) -> None:
    """Act on every commit to the registry, by whatever process (SQLite's `data_version`)."""
    done: object = None
    back_off = BackOff(first=_LOOK_SECONDS, longest=_LONGEST_PAUSE)
    while True:
        pause, seen = _LOOK_SECONDS, await _version(database)
        if seen != done:
            pump.wake()
            if await _pushed(revoker):
                done = seen
                back_off.over()
            else:
                pause = back_off.pause()
        await asyncio.sleep(pause)


async def _pushed(revoker: Revoker) -> bool:
    """Push what the bus does not have yet; say whether every nats-server has it now."""
    try:
        pushed = await revoker.push()
    except (BusUnavailable, StorageFull) as error:
        _log.warning("claims_wait", error=str(error))
        return False
    if pushed is not None:
        _log.info("claims_pushed", servers=pushed.servers, updated=pushed.updated)
    return pushed is None or pushed.complete


async def _version(database: aiosqlite.Connection) -> object:
    row = await fetch_one(database, "PRAGMA data_version")
    return row[0] if row else None
