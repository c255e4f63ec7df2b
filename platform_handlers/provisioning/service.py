"""The provisioning handler as a running thing: issuer, outbox and claims over one registry."""

import asyncio
from collections.abc import Callable

import aiosqlite
import structlog

from bus_schemas.flows import Role
from bus_schemas.transport.connection import Bus
from bus_schemas.transport.credentials import parse_credentials
from bus_schemas.transport.database import fetch_one, open_database
from bus_schemas.transport.outbox import OUTBOX_SCHEMA, OutboxPump
from bus_schemas.transport.target import BusTarget, BusUnavailable
from platform_handlers.authority.installation import Installation, read_evaluator_keys
from platform_handlers.authority.role_bus import role_bus
from platform_handlers.provisioning.issuer import Issuer
from platform_handlers.provisioning.registry import FILE_NAME, Registry
from platform_handlers.provisioning.revocation import Revoker
from platform_handlers.provisioning.tokens import TokenMint

_log = structlog.get_logger(__name__)

_LOOK_SECONDS = 0.5
"""How soon a change made by a command (another process) is noticed."""


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
    keys = read_evaluator_keys(installation)
    try:
        await Issuer(registry, TokenMint.of(installation), keys, pump).listen(bus)
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(pump.run(), name="provisioning outbox")
            watch = _watch(watched, pump, Revoker(system, registry, installation))
            tasks.create_task(watch, name="registry watch")
            await bus.client()  # whoever has a client is subscribed, too
            ready()
    finally:
        await bus.close()
        await system.close()
        await watched.close()


async def _watch(database: aiosqlite.Connection, pump: OutboxPump, revoker: Revoker) -> None:
    """Act on every commit to the registry, by whatever process (SQLite's `data_version`)."""
    done: object = None
    while True:
        seen = await _version(database)
        if seen != done:
            pump.wake()
            try:
                await revoker.push()
                done = seen
            except BusUnavailable as error:
                _log.warning("claims_wait", error=str(error))
        await asyncio.sleep(_LOOK_SECONDS)


async def _version(database: aiosqlite.Connection) -> object:
    row = await fetch_one(database, "PRAGMA data_version")
    return row[0] if row else None
