"""Who hears what: the feed's fan-out and the frames made of it."""

import asyncio
import json
from collections.abc import AsyncGenerator
from contextlib import aclosing
from datetime import UTC, datetime

import pytest

from bus_schemas.codec import encode
from bus_schemas.envelope import wrap
from bus_schemas.errors import ReaderMustStop
from bus_schemas.events import BannerRaised
from bus_schemas.events.banner import BannerCode
from bus_schemas.ids import derived_id
from bus_schemas.transport.jetstream import StoredMessage
from platform_handlers.banner.feed import LISTENERS_PER_OWNER, Feed, TooManyListeners
from platform_handlers.dashboard.stream import Audience, frames

AT = datetime(2026, 11, 23, tzinfo=UTC)


def stored(sequence: int, owner: str = "acme") -> StoredMessage:
    """Return a banner event of *owner* as it lies in the stream."""
    event = BannerRaised(
        owner_id=owner,
        banner_id=f"s-{sequence}__server-silent",
        server_id=f"s-{sequence}",
        slot_id=None,
        code=BannerCode.SERVER_SILENT,
        severity=BannerCode.SERVER_SILENT.severity,
        colour=BannerCode.SERVER_SILENT.severity.colour,
        revision=sequence,
        since_time=AT,
    )
    body = encode(wrap(event, id_=derived_id(owner, str(sequence)), at=AT))
    return StoredMessage(event.subject, sequence, "", body)


async def welcome() -> bool:
    """Nobody is ever sent away."""
    return True


def hearing(feed: Feed, owner: str) -> AsyncGenerator[bytes, None]:
    """Listen as *owner*."""
    return frames(feed, Audience(owner, None, welcome), heartbeat=30)


async def test_events_reach_the_listeners_of_their_owner_only() -> None:
    """There is no filter to forget: others' queues are never touched."""
    feed = Feed()
    with feed.listen("acme") as mine, feed.listen("globex") as theirs:
        feed.take(stored(1))
        feed.take(stored(2, "globex"))
        entries = [await mine.next(), await theirs.next()]
    assert [entry and entry.sequence for entry in entries] == [1, 2]


async def test_a_slow_listener_is_let_go_with_resync() -> None:
    """It neither holds up the others nor grows without bound; it is told to read anew."""
    feed = Feed(queue=2)
    async with aclosing(hearing(feed, "acme")) as slow:
        assert b"event: snapshot" in await anext(slow)
        for sequence in range(1, 5):
            feed.take(stored(sequence))
        assert b"event: resync" in await anext(slow)
        with pytest.raises(StopAsyncIteration):
            await anext(slow)


async def test_nothing_falls_between_snapshot_and_stream() -> None:
    """The listener is there before the snapshot is made."""
    feed = Feed()
    feed.take(stored(1))
    async with aclosing(hearing(feed, "acme")) as source:
        first = await anext(source)
        feed.take(stored(2))
        second = await anext(source)
    data = json.loads(first.decode().partition("data: ")[2])
    assert (data["cursor"], len(data["banners"])) == (1, 1)
    assert b"\nid: 2\n" in second


async def test_a_listener_that_leaves_is_forgotten() -> None:
    """Room for the next one, and no queue that fills for nobody."""
    feed = Feed()
    for _ in range(2 * LISTENERS_PER_OWNER):
        with feed.listen("acme"):
            pass
    opened = [feed.listen("acme") for _ in range(LISTENERS_PER_OWNER)]
    for listener in opened:
        listener.__enter__()
    with pytest.raises(TooManyListeners), feed.listen("acme"):
        pass
    for listener in opened:
        listener.__exit__(None, None, None)


def test_an_unreadable_message_is_passed_by() -> None:
    """The cursor moves on; what comes after is shown."""
    feed = Feed()
    feed.take(StoredMessage("byok.v1.banner.acme.x", 1, "", b"poison"))
    feed.take(stored(2))
    assert (feed.board.cursor, len(feed.board.all("acme"))) == (2, 1)


def test_a_newer_major_stops_the_feed() -> None:
    """Skipping it would show old news as if it were the newest."""
    message = stored(1)
    newer = message.data.replace(b"byok.banner.raised.v1", b"byok.banner.raised.v2")
    with pytest.raises(ReaderMustStop, match="upgrade the dashboard"):
        Feed().take(StoredMessage(message.subject, 1, "", newer))


async def test_a_heartbeat_asks_whether_the_listener_is_still_welcome() -> None:
    """A token that was replaced stops hearing."""
    answers = [True, False]

    async def asked() -> bool:
        return answers.pop(0)

    source = frames(Feed(), Audience("acme", None, asked), heartbeat=0.01)
    async with asyncio.timeout(5):
        said = [frame async for frame in source]
    assert said[1:] == [b": still here\n\n"]


async def test_news_without_end_does_not_put_the_question_off() -> None:
    """A token that was replaced stops hearing, however much there is to hear."""
    feed, sequence = Feed(), 0

    async def never() -> bool:
        return False

    async with asyncio.timeout(5):
        async for _ in frames(feed, Audience("acme", None, never), heartbeat=0.05):
            sequence += 1
            feed.take(stored(sequence))
            await asyncio.sleep(0)
