"""The ratchet's state on the bus: one message per server, written by compare-and-set only.

What lies there is believed for its MAC and not for its place (ADR-23).
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

import structlog

from bus_schemas.codec import decode
from bus_schemas.errors import ContractError, Refused
from bus_schemas.events import RatchetAdvanced
from bus_schemas.ratchet_mac import FORGED, with_mac, without_mac
from bus_schemas.streams import RATCHET
from bus_schemas.transport.connection import Bus
from bus_schemas.transport.fresh import fresh
from bus_schemas.transport.jetstream import Conflict, Expect, StoredMessage, read_last, store
from bus_schemas.transport.target import BusUnavailable
from platform_handlers.evaluator.rules import Circumstances, first_state, instead, never_started
from platform_handlers.evaluator.servers import ServerStore

_log = structlog.get_logger(__name__)

_ATTEMPTS: Final = 5


@dataclass(frozen=True)
class Found:
    """A server's state and where it lies; sequence 0 before the first."""

    state: RatchetAdvanced
    """Without its MAC, which was checked."""
    sequence: int
    message_id: str = ""


class Ratchets:
    """The states of all servers. *key* is the evaluator's own (`ratchet_mac.ratchet_key`)."""

    def __init__(self, bus: Bus, key: bytes, servers: ServerStore) -> None:
        self._bus = bus
        self._key = key
        self._servers = servers

    async def advance(
        self,
        server_id: str,
        about: Circumstances,
        decide: Callable[[Found], RatchetAdvanced],
    ) -> Found:
        """Store what *decide* makes of the state, and return it; unchanged is not stored.

        *decide* is asked again when another evaluator was faster. Raises what it raises, what
        `read` raises, BusUnavailable, StorageFull.
        """
        for _ in range(_ATTEMPTS):
            found = await self.read(server_id, about)
            wanted = decide(found)
            if wanted == found.state:
                return found
            message = fresh(with_mac(self._key, wanted))
            try:
                sequence = await store(self._bus, message, Expect(found.sequence))
            except Conflict:
                now = await self.read(server_id, about)
                if now.message_id != message.id:
                    continue
                sequence = now.sequence  # it was written, only the acknowledgement got lost
            await self._servers.remember(wanted)
            return Found(wanted, sequence, message.id)
        raise BusUnavailable(f"other evaluators keep changing the ratchet of {server_id}")

    async def read(self, server_id: str, about: Circumstances) -> Found:
        """Return the state of *server_id*, or what a recovery window puts in its place.

        Raises BusUnavailable, Refused(`ratchet_forged`).
        """
        subject = RatchetAdvanced.template.fill({"server_id": server_id})
        message = await read_last(self._bus, RATCHET.name, subject)
        if message is None and never_started(about):
            return Found(first_state(server_id), 0)
        sequence, fault = 0, "missing"
        if message is not None:
            try:
                return self._own(message, subject)
            except (Refused, ContractError) as error:
                sequence, fault = message.sequence, error.reason
        place = {"server": server_id, "sequence": sequence, "fault": fault}
        _log.error(FORGED, **place)  # also where a window is open: somebody wrote or removed it
        own = await self._servers.remembered(server_id)
        return Found(instead(server_id, own, about), sequence)

    def _own(self, message: StoredMessage, subject: str) -> Found:
        """Return the state in *message*. Raises Refused, ContractError: it is not this server's."""
        # Not message.subject: that is a header, which a forger may have sent along.
        envelope = decode(message.data, subject)
        if not isinstance(envelope.data, RatchetAdvanced):
            raise ContractError("wrong_type", f"{subject} holds a {envelope.type}")
        return Found(without_mac(self._key, envelope.data), message.sequence, envelope.id)
