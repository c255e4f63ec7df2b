"""After a revocation: tell the bus and the ledger now, and say plainly what was verified."""

import asyncio
import time

from bus_schemas.errors import ByokError
from bus_schemas.flows import Role
from bus_schemas.transport.connection import Bus
from bus_schemas.transport.database import open_database
from bus_schemas.transport.outbox import OUTBOX_SCHEMA, OutboxPump
from bus_schemas.transport.target import BusDenied, BusTarget, BusUnavailable
from platform_handlers.authority.installation import Installation
from platform_handlers.authority.role_bus import role_bus
from platform_handlers.provisioning.registry import FILE_NAME, Registry
from platform_handlers.provisioning.revocation import Revoker
from platform_handlers.provisioning.service import system_bus

_GONE_SECONDS = 5.0
_LOOK_SECONDS = 0.1
_TELL_SECONDS = 10.0


class NotYetVerified(ByokError):
    """The registry is changed; the bus could not be told or looked at (exit code 75)."""


async def turn_away(
    installation: Installation, target: BusTarget, registry: Registry, server_id: str
) -> list[str]:
    """Push the claims, see the server's connections end, send the fact; return what was seen.

    Raises NotYetVerified: the platform's issuer finishes it, or the same command later.
    """
    try:
        system = await system_bus(installation, target).open()
        try:
            lines = await _shut_out(Revoker(system, registry, installation), registry, server_id)
        finally:
            await system.close()
        bus = await role_bus(installation, target, Role.ISSUER).open()
        try:
            await _tell(installation, bus)
        finally:
            await bus.close()
    except (BusUnavailable, BusDenied) as error:
        message = f"{server_id} gets no more tokens, but its present one may still work: {error}"
        raise NotYetVerified(message) from error
    return [*lines, "the ledger tells of it"]


async def _shut_out(revoker: Revoker, registry: Registry, server_id: str) -> list[str]:
    pushed = await revoker.push()
    if pushed is not None and not pushed.complete:
        seen = f"{pushed.updated} of {pushed.servers} nats-servers confirmed it"
        raise BusUnavailable(f"{seen}; the others refuse it at their next update")
    how = f"all {pushed.servers} nats-servers confirmed" if pushed else "the bus had it already"
    nkey = (await registry.require_server(server_id)).nkey
    if nkey is None:
        return [f"its join token is void ({how})"]
    deadline = time.monotonic() + _GONE_SECONDS
    while open_ := await revoker.connections(nkey):
        if time.monotonic() > deadline:
            raise BusUnavailable(f"{open_} of its connections are still open")
        await asyncio.sleep(_LOOK_SECONDS)
    return [f"its tokens are void ({how})", "none of its connections is open"]


async def _tell(installation: Installation, bus: Bus) -> None:
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
