"""The ledger reader: every fact exactly once, in order, into a store that keeps its own offset.

State and offset lie in one SQLite transaction, so there is nothing to acknowledge and nothing is
delivered twice. What no reader could ever use is parked with its reason and the offset moves on;
what only *this build* cannot understand stops the reader, which never skips (ADR-3).
"""

import asyncio
import hashlib
import time
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from datetime import datetime
from functools import partial
from typing import Protocol, TypeVar

import structlog

from bus_schemas.catalog import catalog
from bus_schemas.codec import UnknownEvent, decode
from bus_schemas.envelope import Envelope
from bus_schemas.errors import ContractError, ReaderMustStop
from bus_schemas.event import Event
from bus_schemas.events import MessageParked, RulesChanged
from bus_schemas.ids import derived_id
from bus_schemas.streams import Stream
from bus_schemas.transport.connection import Bus
from bus_schemas.transport.database import StorageFull
from bus_schemas.transport.follow import BATCH, follow
from bus_schemas.transport.fresh import fresh
from bus_schemas.transport.jetstream import (
    StoredMessage,
    StreamState,
    read_batch,
    stream_state,
)
from bus_schemas.transport.target import BusUnavailable

_log = structlog.get_logger(__name__)
_T = TypeVar("_T")
_PAUSE_SECONDS = 0.5
_LOOK_AGAIN_SECONDS = 30.0
"""A stream that is deleted and made anew under a live connection gives no other sign."""


@dataclass(frozen=True)
class Position:
    """Where a store stands, with enough to notice that the ledger is another one."""

    created: str
    """Creation time of the stream."""
    sequence: int
    """The last message that was applied; 0 before the first."""
    digest: str
    """SHA-256 of that message's body in hex; empty before the first."""


@dataclass(frozen=True)
class Fact:
    """One decoded message of the ledger."""

    sequence: int
    stored_at: datetime
    """When the stream took it, in UTC: the only time of day a replay can see again."""
    envelope: Envelope[Event]


@dataclass(frozen=True)
class Batch:
    """What a store must take in one transaction."""

    facts: tuple[Fact, ...]
    parked: tuple[Envelope[Event], ...]
    """Pointers to unusable messages; they leave through the store's outbox."""
    position: Position


class LedgerStore(Protocol):
    """Whoever folds the ledger."""

    async def position(self) -> Position | None:
        """Return the last committed position; None for an empty store."""

    async def apply(self, batch: Batch) -> None:
        """Commit the new state, the outgoing events and the position together, or nothing."""


@dataclass(frozen=True)
class Interpreted:
    """Some messages, told apart. Facts before a stop are still good."""

    facts: tuple[Fact, ...]
    parked: tuple[tuple[StoredMessage, str], ...]
    """A message and the reason why nobody could use it."""
    stop: ReaderMustStop | None = None
    taken: int = 0
    """How many of the messages were dealt with; fewer than given only before a stop."""


def interpret(messages: Sequence[StoredMessage], known_rules: frozenset[int]) -> Interpreted:
    """Decode *messages* up to the first that demands a stop. Pure.

    A server's message of an unknown type or major is parked, not a reason to stop: majors are
    opened for servers by a rules fact, at which a build that lacks them stops. Otherwise one
    tenant could halt the whole platform with one message (ADR-4).
    """
    facts: list[Fact] = []
    parked: list[tuple[StoredMessage, str]] = []
    for taken, message in enumerate(messages):
        try:
            envelope = decode(message.data, message.subject)
            _check_rules(envelope.data, message.sequence, known_rules)
        except UnknownEvent as error:
            if error.source.startswith("/servers/") or not _platform_speaks(message.subject):
                parked.append((message, error.reason))
                continue
            remedy = f"install a version that knows {error.type}, then start again"
            stop = ReaderMustStop(error.reason, message.sequence, remedy)
            return Interpreted(tuple(facts), tuple(parked), stop, taken)
        except ContractError as error:
            parked.append((message, error.reason))
        except ReaderMustStop as stop:
            return Interpreted(tuple(facts), tuple(parked), stop, taken)
        else:
            stored_at = datetime.fromisoformat(message.stored_at)
            facts.append(Fact(message.sequence, stored_at, envelope))
    return Interpreted(tuple(facts), tuple(parked), None, len(messages))


def _check_rules(event: Event, sequence: int, known: frozenset[int]) -> None:
    if not isinstance(event, RulesChanged):
        return
    missing = sorted(set(event.opens) - set(catalog()))
    if event.version not in known or missing:
        what = ", ".join(missing) or f"rules version {event.version}"
        remedy = f"install a version that knows {what}, then start again"
        raise ReaderMustStop("unknown_rules", sequence, remedy)


def _platform_speaks(subject: str) -> bool:
    """Whether only the platform may publish on *subject* (NATS permissions see to it)."""
    tokens = subject.split(".")
    return tokens[2:3] not in (["fingerprint"], ["reported"], ["health"])


class LedgerReader:
    """Feeds one store from one stream until cancelled or forced to stop."""

    def __init__(
        self,
        bus: Bus,
        stream: Stream,
        name: str,
        store: LedgerStore,
        *,
        known_rules: frozenset[int] = frozenset({1}),
    ) -> None:
        """*name* is how parked pointers and logs call this reader."""
        self._bus = bus
        self._stream = stream
        self._name = name
        self._store = store
        self._known_rules = known_rules
        self._caught_up = asyncio.Event()
        self._unsure = True
        self._looked_at = 0.0
        bus.on_ready(self._doubt)
        self.parked = 0
        """Messages parked since the start, for metrics."""

    async def caught_up(self) -> None:
        """Wait until the head of the ledger was reached once."""
        await self._caught_up.wait()

    async def run(self, *, size: int = BATCH) -> None:
        """Read for ever. Raises ReaderMustStop, after committing all facts before the stop."""
        position = await self._store.position()
        created = ""
        start = position.sequence + 1 if position else 1
        async for messages in follow(self._bus, self._stream, start, size=size):
            if self._unsure or time.monotonic() - self._looked_at > _LOOK_AGAIN_SECONDS:
                created = await _patiently(partial(self._verify, position))
            if not messages:
                self._caught_up.set()
                continue
            seen = interpret(messages, self._known_rules)
            if seen.taken:
                last = messages[seen.taken - 1]
                digest = hashlib.sha256(last.data).hexdigest()
                position = Position(created, last.sequence, digest)
                pointers = tuple(self._pointer(message, reason) for message, reason in seen.parked)
                batch = Batch(seen.facts, pointers, position)
                await _patiently(partial(self._store.apply, batch))
            if seen.stop:
                _log.critical("reader_stopped", reader=self._name, reason=str(seen.stop))
                raise seen.stop

    def _pointer(self, message: StoredMessage, reason: str) -> Envelope[Event]:
        """Point at a parked message; all readers derive the same id, so one pointer is kept."""
        self.parked += 1
        _log.warning("parked", reader=self._name, sequence=message.sequence, reason=reason)
        pointer = fresh(
            MessageParked(
                stream=self._stream.token,
                sequence=message.sequence,
                reader=self._name,
                reason=reason,
            )
        )
        same_for_all = derived_id("parked", self._stream.name, str(message.sequence))
        return pointer.model_copy(update={"id": same_for_all})

    def _doubt(self) -> None:
        self._unsure = True

    async def _verify(self, position: Position | None) -> str:
        """Return the stream's creation time once it is sure to be the ledger we know."""
        self._unsure, self._looked_at = False, time.monotonic()
        state = await check_position(self._bus, self._stream, self._name, position)
        return state.created


async def check_position(
    bus: Bus, stream: Stream, name: str, position: Position | None
) -> StreamState:
    """Return how *stream* is, once it is sure to be the one in which *position* was reached.

    A restored or power-cut stream re-uses sequences: going on would fold two histories. Raises
    ReaderMustStop with what to do about the store called *name*, BusUnavailable, StreamError.
    """
    state = await stream_state(bus, stream.name)
    if position is None or position.sequence == 0:
        return state
    at = position.sequence
    rebuild = f"rebuild the {name} store from an empty file or a snapshot"
    if state.created != position.created or state.last < at:
        raise ReaderMustStop("ledger_replaced", at, rebuild)
    if state.first > at + 1:
        raise ReaderMustStop("ledger_truncated", at, rebuild)
    if state.first <= at:
        found = await read_batch(bus, stream.name, at, 1)
        if [hashlib.sha256(message.data).hexdigest() for message in found] != [position.digest]:
            raise ReaderMustStop("ledger_replaced", at, rebuild)
    return state


async def _patiently(attempt: Callable[[], Awaitable[_T]]) -> _T:
    """Repeat *attempt* until the bus answers and the disk has room; both pass by themselves."""
    while True:
        try:
            return await attempt()
        except (BusUnavailable, StorageFull) as trouble:
            _log.warning("reader_waits", trouble=str(trouble))
            await asyncio.sleep(_PAUSE_SECONDS)
