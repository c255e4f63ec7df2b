"""Which starts of a server there were: the evaluator's ratchets say so.

The evaluator stores a ratchet before the answer leaves that gives a server its number. So a fact
with a higher one was made up, by somebody who has the server's nkey and a token, but not its vault.
Readers order a server's facts by that number: one that is invented would silence the server.
"""

from typing import Protocol

from bus_schemas.codec import decode
from bus_schemas.events import RatchetAdvanced
from bus_schemas.streams import RATCHET
from bus_schemas.transport.connection import Bus
from bus_schemas.transport.jetstream import read_last
from platform_handlers.intake.rules import newest_start


class Starts(Protocol):
    """Whoever knows how often servers were started."""

    async def newest(self, server_id: str) -> int:
        """Return the number of its newest start, 0 before the first."""


class RatchetStarts:
    """Starts as the ratchets tell of them. *bus* has role INTAKE."""

    def __init__(self, bus: Bus) -> None:
        self._bus = bus

    async def newest(self, server_id: str) -> int:
        """Ask the stream (`Starts`). Raises BusUnavailable, ContractError (of a newer build)."""
        subject = RatchetAdvanced.template.fill({"server_id": server_id})
        message = await read_last(self._bus, RATCHET.name, subject)
        if message is None:
            return 0
        state = decode(message.data, message.subject).data
        return newest_start(state) if isinstance(state, RatchetAdvanced) else 0


class StartBook:
    """Remembers what *starts* said, and asks again only about a number above that."""

    def __init__(self, starts: Starts) -> None:
        self._starts = starts
        self._known: dict[str, int] = {}

    async def has(self, server_id: str, incarnation: int) -> bool:
        """Say whether there was that start. Raises what `Starts.newest` does."""
        if incarnation > self._known.get(server_id, 0):
            self._known[server_id] = await self._starts.newest(server_id)
        return incarnation <= self._known.get(server_id, 0)
