"""Turning a server away at once: the FLEET account's claims go to every nats-server.

One version of the account's JWT at a time, `iat` strictly growing: of two equal ones a node that
missed the second would roll the older back over the newer, everywhere. nats-server itself closes
the connections of a user it finds revoked; what a server that missed the push still has open is
looked for afterwards and kicked.
"""

import asyncio
import contextlib
import fcntl
import time
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from bus_schemas.flows import Account
from bus_schemas.transport.connection import Bus
from bus_schemas.transport.private_files import give_to_folders_owner
from platform_handlers.authority.accounts import account_plans
from platform_handlers.authority.claims import issued_at, mint_account
from platform_handlers.authority.installation import Installation
from platform_handlers.provisioning.claims_log import ClaimsLog, ClaimsOrder
from platform_handlers.provisioning.nats_servers import NatsServers, OpenConnection
from platform_handlers.provisioning.registry import Registry

_GONE_SECONDS: Final = 5.0
_LOOK_SECONDS: Final = 0.05


@dataclass(frozen=True)
class Pushed:
    """What came of a push."""

    servers: int
    """nats-servers that are known, also if they do not answer."""
    updated: int
    """Of these, how many confirmed the new claims."""

    @property
    def complete(self) -> bool:
        """Whether every server has the new claims."""
        return 0 < self.servers <= self.updated


@dataclass(frozen=True)
class ShutOut:
    """What was verified of a server that was turned away, in numbers."""

    pushed: Pushed
    found: int
    """Connections it had open before."""
    kicked: int
    """Those that were still open after the push and were ended one by one."""
    left: int
    """Those that are open still."""

    @property
    def verified(self) -> bool:
        """Whether it is out, and stays out."""
        return self.pushed.complete and self.left == 0

    def lines(self) -> tuple[str, ...]:
        """Return it for people."""
        pushed = self.pushed
        return (
            f"nats-servers that confirmed its end: {pushed.updated} of {pushed.servers}",
            f"its connections: {self.found} found, {self.kicked} kicked, {self.left} still open",
        )


class Revoker:
    """Brings the bus up to what the registry says. Uses the system account's user."""

    def __init__(self, bus: Bus, registry: Registry, installation: Installation) -> None:
        self._servers = NatsServers(bus)
        self._claims = ClaimsLog(registry)
        self._installation = installation
        self._fleet = installation.account_id(Account.FLEET.value)

    async def push(self, *, again: bool = False) -> Pushed | None:
        """Push the newest claims; None if the bus had them already, unless *again*.

        Raises BusUnavailable.
        """
        async with _alone(self._installation.authority / "claims.lock"):
            return await self._push(again=again)

    async def shut_out(self, nkeys: Sequence[str]) -> ShutOut:
        """Push, see the connections of *nkeys* end, and end what has not. Raises BusUnavailable."""
        found = set(await self.connections(nkeys))
        pushed = await self.push(again=True)
        assert pushed is not None  # noqa: S101 (`again`)
        missed = set(await self.connections(nkeys))
        kicked = [await self._servers.kick(connection) for connection in missed]
        deadline = time.monotonic() + _GONE_SECONDS
        # What is back already came by a nats-server that has not heard: that is to be told.
        while (left := set(await self.connections(nkeys))) & missed:
            if time.monotonic() > deadline:
                break
            await asyncio.sleep(_LOOK_SECONDS)
        return ShutOut(pushed, len(found | missed), sum(kicked), len(left))

    async def connections(self, nkeys: Sequence[str]) -> list[OpenConnection]:
        """Return the open connections of *nkeys*, over all nats-servers. Raises BusUnavailable."""
        present = await self._servers.present()
        return await self._servers.connections(self._fleet, nkeys, expected=present.answering)

    async def _push(self, *, again: bool) -> Pushed | None:
        on_disk = self._installation.nats / "accounts" / f"{self._fleet}.jwt"
        newest = issued_at(on_disk.read_text())
        order = await self._claims.next_order(newest_known=newest, again=again)
        if order is None:
            return None
        present = await self._servers.present()
        updated = await self._servers.update_claims(self._jwt(order), expected=present.answering)
        pushed = Pushed(present.known, updated)
        if pushed.complete:
            await self._claims.pushed(order)
        return pushed

    def _jwt(self, order: ClaimsOrder) -> str:
        plans = account_plans(self._installation, order.revocations)
        plan = next(p for p in plans if p.name == Account.FLEET.value)
        operator = self._installation.operator_key()
        return mint_account(operator, self._fleet, plan, issued_at=order.issued_at)


@contextlib.asynccontextmanager
async def _alone(path: Path) -> AsyncIterator[None]:
    """Hold the lock of the one writer of account JWTs, against commands and handlers alike."""
    with path.open("a") as file:
        give_to_folders_owner(file.fileno(), path.parent)
        await asyncio.to_thread(fcntl.flock, file, fcntl.LOCK_EX)
        yield  # the kernel lets go when the file is closed, however that happens
