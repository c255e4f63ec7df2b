"""After a revocation: tell the bus and the ledger now, and say plainly what was verified."""

import asyncio

from bus_schemas.errors import ByokError
from bus_schemas.flows import Role
from bus_schemas.transport.connection import Bus
from bus_schemas.transport.database import open_database
from bus_schemas.transport.outbox import OUTBOX_SCHEMA, OutboxPump
from bus_schemas.transport.target import BusDenied, BusTarget, BusUnavailable
from platform_handlers.authority.installation import Installation
from platform_handlers.authority.role_bus import role_bus
from platform_handlers.provisioning.registry import FILE_NAME, Registry
from platform_handlers.provisioning.revocation import Revoker, ShutOut
from platform_handlers.provisioning.service import system_bus

_TELL_SECONDS = 10.0


class NotYetVerified(ByokError):
    """The registry is changed, but not every nats-server is known to obey (exit code 1)."""


async def turn_away(
    installation: Installation, target: BusTarget, registry: Registry, server_id: str
) -> ShutOut:
    """Push the claims, see the server's connections end, send the fact; return what was seen.

    What the registry calls void is shut out: all of a revoked server, the former machine of one
    that is to be re-enrolled. Raises NotYetVerified: the platform's issuer finishes it, or the
    same command later.
    """
    try:
        nkeys = await registry.void_nkeys(server_id)
        shut_out = await _shut_out(installation, target, registry, nkeys)
        await _tell(installation, target)
    except (BusUnavailable, BusDenied) as error:
        message = f"{server_id} gets no more tokens, but its present one may still work: {error}"
        raise NotYetVerified(message) from error
    return shut_out


async def _shut_out(
    installation: Installation, target: BusTarget, registry: Registry, nkeys: tuple[str, ...]
) -> ShutOut:
    system = await system_bus(installation, target).open()
    try:
        return await Revoker(system, registry, installation).shut_out(nkeys)
    finally:
        await system.close()


async def _tell(installation: Installation, target: BusTarget) -> None:
    bus = await role_bus(installation, target, Role.ISSUER).open()
    try:
        await _drain(installation, bus)
    finally:
        await bus.close()


async def _drain(installation: Installation, bus: Bus) -> None:
    waiting = await open_database(installation.platform / FILE_NAME, OUTBOX_SCHEMA)
    pump = OutboxPump(waiting, bus)
    running = asyncio.create_task(pump.run())
    try:
        async with asyncio.timeout(_TELL_SECONDS):
            await pump.drained()
    except TimeoutError:
        raise BusUnavailable("the ledger did not take the fact in time") from None
    finally:
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)
        await waiting.close()
