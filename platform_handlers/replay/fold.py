"""Fold a part of the ledger into an empty projection and compare it with what was published."""

from collections.abc import AsyncIterator
from dataclasses import dataclass, field

from bus_schemas.codec import decode, encode
from bus_schemas.envelope import Envelope
from bus_schemas.errors import ContractError
from bus_schemas.event import Event
from bus_schemas.events import BannerEvent
from bus_schemas.streams import BANNERS, LEDGER
from bus_schemas.transport.connection import Bus
from bus_schemas.transport.jetstream import StoredMessage, read_batch
from bus_schemas.transport.ledger import interpret
from platform_handlers.banner.lifecycle import announcement
from platform_handlers.fingerprint.projection import Projection
from platform_handlers.fingerprint.rules import RULES_VERSION
from platform_handlers.fingerprint.store import cause_of
from platform_handlers.replay.plan import ReplayPlan

_BATCH = 500


async def messages(bus: Bus, stream: str, first: int, last: int) -> AsyncIterator[StoredMessage]:
    """Yield a stream's messages from *first* to *last*, both inclusive."""
    position = first
    while position <= last:
        batch = await read_batch(bus, stream, position, min(_BATCH, last - position + 1))
        if not batch:
            return
        for message in batch:
            if message.sequence > last:
                return
            yield message
        position = batch[-1].sequence + 1


async def replayed_banners(bus: Bus, plan: ReplayPlan) -> AsyncIterator[Envelope[Event]]:
    """Yield the banner events that the range gives, folded into an empty projection.

    Nothing is published. Raises ReaderMustStop like the handler itself.
    """
    projection = Projection()
    async for message in messages(bus, LEDGER.name, plan.first, plan.last):
        seen = interpret([message], frozenset({RULES_VERSION}))
        if seen.stop:
            raise seen.stop
        for fact in seen.facts:
            cause = cause_of(fact, projection.ticks)
            for banner in projection.apply(fact.envelope.data, cause):
                yield announcement(banner, cause)


@dataclass
class Comparison:
    """How a replay compares with the banner stream."""

    same: int = 0
    """Events that are in the stream, byte for byte."""
    differ: list[str] = field(default_factory=list)
    """Ids of events that are in the stream with other bytes."""
    unpublished: list[str] = field(default_factory=list)
    """Ids that only the replay has: not yet published, or aged out of the stream."""
    unexplained: list[str] = field(default_factory=list)
    """Ids that only the stream has."""

    @property
    def agrees(self) -> bool:
        """Whether replay and stream say the same."""
        return not (self.differ or self.unpublished or self.unexplained)


async def compare(bus: Bus, plan: ReplayPlan, banners_last: int) -> Comparison:
    """Compare a replay with what was published up to *banners_last* and caused in its range."""
    published = {
        _id(message): message.data
        async for message in messages(bus, BANNERS.name, 1, banners_last)
        if _caused_within(message, plan)
    }
    result = Comparison()
    async for envelope in replayed_banners(bus, plan):
        raw = published.pop(envelope.id, None)
        if raw is None:
            result.unpublished.append(envelope.id)
        elif raw == encode(envelope):
            result.same += 1
        else:
            result.differ.append(envelope.id)
    result.unexplained += published
    return result


def _id(message: StoredMessage) -> str:
    try:
        return decode(message.data, message.subject).id
    except ContractError:
        return f"unreadable message {message.sequence}"


def _caused_within(message: StoredMessage, plan: ReplayPlan) -> bool:
    """Whether the event's cause lies in the range (what comes later is not the replay's)."""
    try:
        event = decode(message.data, message.subject).data
    except ContractError:
        return True
    return isinstance(event, BannerEvent) and plan.first <= event.revision <= plan.last
