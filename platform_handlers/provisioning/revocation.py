"""Turning a server away at once: the FLEET account's claims go to every nats-server.

One version of the account's JWT at a time, `iat` strictly growing: of two equal ones a node that
missed the second would roll the older back over the newer, everywhere. nats-server itself closes
the connections of a user it finds revoked; what is left open is looked for afterwards and said.
"""

import asyncio
import contextlib
import fcntl
import json
from collections.abc import AsyncIterator
from dataclasses import dataclass
from http import HTTPStatus
from pathlib import Path
from typing import Any

import structlog
from nats.aio.msg import Msg

from bus_schemas.flows import Account
from bus_schemas.transport.connection import Bus
from bus_schemas.transport.target import BusUnavailable
from platform_handlers.authority.accounts import account_plans
from platform_handlers.authority.claims import issued_at, mint_account
from platform_handlers.authority.installation import Installation
from platform_handlers.provisioning.claims_log import ClaimsLog, ClaimsOrder
from platform_handlers.provisioning.registry import Registry

_log = structlog.get_logger(__name__)

_PING = "$SYS.REQ.SERVER.PING"
_UPDATE = "$SYS.REQ.CLAIMS.UPDATE"
_CONNECTIONS = "$SYS.REQ.SERVER.PING.CONNZ"
_QUIET_SECONDS = 0.3
"""When no further server answers for so long, all have."""

_WAIT_SECONDS = 5.0


@dataclass(frozen=True)
class Pushed:
    """What came of a push."""

    servers: int
    """nats-servers that are up."""
    updated: int
    """Of these, how many confirmed the new claims."""

    @property
    def complete(self) -> bool:
        """Whether every server that is up has the new claims."""
        return 0 < self.servers <= self.updated


class Revoker:
    """Brings the bus up to what the registry says. Uses the system account's user."""

    def __init__(self, bus: Bus, registry: Registry, installation: Installation) -> None:
        self._bus = bus
        self._claims = ClaimsLog(registry)
        self._installation = installation

    async def push(self) -> Pushed | None:
        """Push the newest claims; None if the bus had them already. Raises BusUnavailable."""
        async with _alone(self._installation.authority / "claims.lock"):
            return await self._push()

    async def _push(self) -> Pushed | None:
        fleet = self._installation.account_id(Account.FLEET.value)
        on_disk = self._installation.nats / "accounts" / f"{fleet}.jwt"
        order = await self._claims.next_order(newest_known=issued_at(on_disk.read_text()))
        if order is None:
            return None
        servers = await self._gather(_PING, b"")
        answers = await self._gather(_UPDATE, self._jwt(fleet, order).encode(), len(servers))
        updated = sum(
            1 for answer in answers if answer.get("data", {}).get("code") == HTTPStatus.OK
        )
        pushed = Pushed(len(servers), updated)
        if pushed.complete:
            await self._claims.pushed(order)
        _log.info("claims_pushed", servers=pushed.servers, updated=updated, iat=order.issued_at)
        return pushed

    async def connections(self, nkey: str) -> int:
        """Return how many connections of *nkey* are open, over all nats-servers."""
        fleet = self._installation.account_id(Account.FLEET.value)
        query = {"acc": fleet, "user": nkey, "auth": True}  # by user: an answer has a page limit
        answers = await self._gather(_CONNECTIONS, json.dumps(query).encode())
        open_ = [c for answer in answers for c in answer.get("data", {}).get("connections", [])]
        return sum(1 for connection in open_ if connection.get("authorized_user") == nkey)

    def _jwt(self, fleet: str, order: ClaimsOrder) -> str:
        plans = account_plans(self._installation, order.revocations)
        plan = next(p for p in plans if p.name == Account.FLEET.value)
        operator = self._installation.operator_key()
        return mint_account(operator, fleet, plan, issued_at=order.issued_at)

    async def _gather(self, subject: str, body: bytes, expected: int = 0) -> list[dict[str, Any]]:
        """Ask all nats-servers and return their answers."""
        client = await self._bus.client()
        replies: asyncio.Queue[Msg] = asyncio.Queue()

        async def collect(message: Msg) -> None:
            replies.put_nowait(message)

        inbox = client.new_inbox()
        subscription = await client.subscribe(inbox, cb=collect)
        answers: list[dict[str, Any]] = []
        try:
            await client.publish(subject, body, reply=inbox)
            with contextlib.suppress(TimeoutError):
                while not expected or len(answers) < expected:
                    wait = _QUIET_SECONDS if answers and not expected else _WAIT_SECONDS
                    async with asyncio.timeout(wait):
                        reply = await replies.get()
                    answers.append(json.loads(reply.data))
        finally:
            await subscription.unsubscribe()
        if not answers:
            raise BusUnavailable(f"no nats-server answered on {subject}")
        return answers


@contextlib.asynccontextmanager
async def _alone(path: Path) -> AsyncIterator[None]:
    """Hold the lock of the one writer of account JWTs, against commands and handlers alike."""
    with path.open("a") as file:
        await asyncio.to_thread(fcntl.flock, file, fcntl.LOCK_EX)
        yield  # the kernel lets go when the file is closed, however that happens
