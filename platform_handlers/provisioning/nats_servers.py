"""All nats-servers of the bus, asked through the system account."""

import asyncio
import contextlib
import json
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from http import HTTPStatus
from typing import Any, Final

from nats.aio.msg import Msg

from bus_schemas.errors import Refused
from bus_schemas.transport.connection import Bus
from bus_schemas.transport.target import BusUnavailable

_PING = "$SYS.REQ.SERVER.PING"
_UPDATE = "$SYS.REQ.CLAIMS.UPDATE"
_CONNECTIONS = "$SYS.REQ.SERVER.PING.CONNZ"
_QUIET_SECONDS: Final = 0.3
"""When no further server answers for so long, all that can have."""

_SLOW_SECONDS: Final = 3.0
"""So long a server that is known to be up may take: it writes the claims to its disk first."""

_WAIT_SECONDS: Final = 5.0

Answers = list[dict[str, Any]]


@dataclass(frozen=True)
class Present:
    """Which nats-servers there are."""

    answering: int
    known: int
    """Those that answer, and those that they still count among their own: one that hangs or was
    cut off goes on serving its clients, so what it was not told is not done."""


@dataclass(frozen=True)
class OpenConnection:
    """One client's connection to one nats-server."""

    server_id: str
    """The nats-server's own id, new at each of its starts."""
    cid: int
    nkey: str


class NatsServers:
    """Questions to every nats-server at once. *bus* is the system account's user."""

    def __init__(self, bus: Bus) -> None:
        self._bus = bus

    async def present(self) -> Present:
        """Return how many there are. Raises BusUnavailable."""

        def all_there(answers: Answers) -> bool:
            return len(answers) >= _known(answers)

        answers = await self._ask(_PING, b"", all_there, quiet=_QUIET_SECONDS)
        return Present(len(answers), max(len(answers), _known(answers)))

    async def update_claims(self, jwt: str, *, expected: int) -> int:
        """Push an account's JWT; return how many servers took it, waiting for *expected*.

        Raises BusUnavailable.
        """
        answers = await self._ask(_UPDATE, jwt.encode(), lambda a: len(a) >= expected)
        return sum(1 for found in answers if found.get("data", {}).get("code") == HTTPStatus.OK)

    async def connections(
        self, account: str, nkeys: Iterable[str], *, expected: int
    ) -> list[OpenConnection]:
        """Return the open connections of *nkeys* on all servers. Raises BusUnavailable."""
        found: list[OpenConnection] = []
        for nkey in nkeys:
            # Asked by user: an answer lists 1,024 connections at most, and a fleet has more.
            query = json.dumps({"acc": account, "user": nkey, "auth": True}).encode()
            for answer in await self._ask(_CONNECTIONS, query, lambda a: len(a) >= expected):
                found += _connections(answer, nkey)
        return found

    async def kick(self, connection: OpenConnection) -> bool:
        """Have its server end *connection*; say whether it was there to be ended."""
        subject = f"$SYS.REQ.SERVER.{connection.server_id}.KICK"
        body = json.dumps({"cid": connection.cid}).encode()
        reply = await self._bus.request(subject, body, wait=_WAIT_SECONDS)
        return "error" not in json.loads(reply.data)

    async def reload(self) -> None:
        """Have every server read its configuration and certificates anew; connections stay.

        Raises Refused(`not_reloaded`) with what the server did not like, BusUnavailable.
        """
        answers = await self._ask(_PING, b"", lambda found: len(found) >= _known(found))
        for server_id in {str(answer["server"]["id"]) for answer in answers}:
            subject = f"$SYS.REQ.SERVER.{server_id}.RELOAD"
            reply = await self._bus.request(subject, b"", wait=_WAIT_SECONDS)
            if error := json.loads(reply.data).get("error"):
                raise Refused("not_reloaded", str(error.get("description", ""))[:300].strip())

    async def _ask(
        self,
        subject: str,
        body: bytes,
        enough: Callable[[Answers], bool],
        *,
        quiet: float = _SLOW_SECONDS,
    ) -> Answers:
        """Ask all servers; return the answers once they are *enough*, or no more come."""
        client = await self._bus.client()
        replies: asyncio.Queue[Msg] = asyncio.Queue()

        async def collect(message: Msg) -> None:
            replies.put_nowait(message)

        inbox = client.new_inbox()
        subscription = await client.subscribe(inbox, cb=collect)
        answers: Answers = []
        try:
            await client.publish(subject, body, reply=inbox)
            with contextlib.suppress(TimeoutError):
                while not answers or not enough(answers):
                    async with asyncio.timeout(quiet if answers else _WAIT_SECONDS):
                        reply = await replies.get()
                    answers.append(json.loads(reply.data))
        finally:
            await subscription.unsubscribe()
        if not answers:
            raise BusUnavailable(f"no nats-server answered on {subject}")
        return answers


def _known(answers: Answers) -> int:
    """Return how many servers the answering ones know of, themselves included."""
    return max(int(answer.get("statsz", {}).get("active_servers", 1)) for answer in answers)


def _connections(answer: dict[str, Any], nkey: str) -> list[OpenConnection]:
    server_id = answer["server"]["id"]
    return [
        OpenConnection(server_id, int(found["cid"]), nkey)
        for found in answer.get("data", {}).get("connections", [])
        if found.get("authorized_user") == nkey
    ]
