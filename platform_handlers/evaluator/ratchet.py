"""The ratchet's state on the bus: one message per server, written by compare-and-set only."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from bus_schemas.codec import decode
from bus_schemas.errors import ContractError
from bus_schemas.events import RatchetAdvanced
from bus_schemas.streams import RATCHET
from bus_schemas.transport.connection import Bus
from bus_schemas.transport.fresh import fresh
from bus_schemas.transport.jetstream import Conflict, Expect, read_last, store
from bus_schemas.transport.target import BusUnavailable
from platform_handlers.evaluator.rules import first_state

_ATTEMPTS: Final = 5


@dataclass(frozen=True)
class Found:
    """A server's state and where it lies; sequence 0 before the first."""

    state: RatchetAdvanced
    sequence: int
    message_id: str = ""


async def advance(bus: Bus, server_id: str, decide: Callable[[Found], RatchetAdvanced]) -> Found:
    """Store what *decide* makes of the state, and return it; unchanged is not stored.

    *decide* is asked again when another evaluator was faster. Raises what it raises, and
    BusUnavailable.
    """
    for _ in range(_ATTEMPTS):
        found = await read_state(bus, server_id)
        wanted = decide(found)
        if wanted == found.state:
            return found
        message = fresh(wanted)
        try:
            sequence = await store(bus, message, Expect(found.sequence))
        except Conflict:
            now = await read_state(bus, server_id)
            if now.message_id != message.id:
                continue
            return now  # our own id: it was written, only the acknowledgement got lost
        return Found(wanted, sequence, message.id)
    raise BusUnavailable(f"other evaluators keep changing the ratchet of {server_id}")


async def read_state(bus: Bus, server_id: str) -> Found:
    """Return the state of *server_id*. Raises BusUnavailable, ContractError."""
    subject = RatchetAdvanced.template.fill({"server_id": server_id})
    message = await read_last(bus, RATCHET.name, subject)
    if message is None:
        return Found(first_state(server_id), 0)
    envelope = decode(message.data, subject)
    if not isinstance(envelope.data, RatchetAdvanced):
        raise ContractError("wrong_type", f"{subject} holds a {envelope.type}")
    return Found(envelope.data, message.sequence, envelope.id)
