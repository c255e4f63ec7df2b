"""Publishing banners: in order, once, whoever else publishes the same."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path

import aiosqlite

from bus_schemas.codec import decode
from bus_schemas.envelope import Envelope
from bus_schemas.event import Event
from bus_schemas.events import BannerEvent
from bus_schemas.flows import Role
from bus_schemas.streams import BANNERS
from bus_schemas.transport.connection import Bus
from bus_schemas.transport.database import open_database, transaction
from bus_schemas.transport.jetstream import read_batch, store_raw
from platform_handlers.banner.announcer import ANNOUNCEMENTS_SCHEMA, Announcer, enqueue
from platform_handlers.banner.lifecycle import announcement
from platform_handlers.fingerprint.projection import Projection
from tests.conftest import Platform
from tests.facts import Ledger, fold
from tests.outages import Outage, forget_ids


def story() -> list[Envelope[Event]]:
    """Events of two banners: raised, then changed and cleared again and again."""
    ledger = Ledger()
    for server_id in ("acme-1", "acme-2"):
        ledger.provisioned(server_id, "acme")
    for revision in range(1, 6):
        for server_id in ("acme-1", "acme-2"):
            ledger.observed(server_id, f"k{revision}", revision=revision)
        ledger.retired("acme-1", revision)
    return [announcement(*each) for each in fold(Projection(), *ledger.facts)]


@asynccontextmanager
async def announcing(path: Path, bus: Bus) -> AsyncIterator[tuple[Announcer, aiosqlite.Connection]]:
    """Run an announcer with its queue at *path*."""
    database = await open_database(path, ANNOUNCEMENTS_SCHEMA)
    announcer = Announcer(database, bus)
    task = asyncio.create_task(announcer.run())
    try:
        yield announcer, database
    finally:
        task.cancel()
        with suppress(asyncio.CancelledError):
            await task
        await database.close()


async def announce(path: Path, bus: Bus, events: list[Envelope[Event]]) -> None:
    """Queue *events* and wait until the queue is empty."""
    async with announcing(path, bus) as (announcer, database):
        async with transaction(database):
            await enqueue(database, events)
        announcer.wake()
        async with asyncio.timeout(20):
            while await waiting_in(database):  # noqa: ASYNC110 (the database rings no bell)
                await asyncio.sleep(0.01)


async def waiting_in(database: aiosqlite.Connection) -> int:
    """Return how many announcements are still queued."""
    [row] = await database.execute_fetchall("SELECT count(*) FROM announcements")
    return int(row[0])


async def published(platform: Platform) -> list[Envelope[Event]]:
    """Return the banner stream, without what the tests themselves put there."""
    messages = await read_batch(await platform.bus(Role.OPS), BANNERS.name, 1, 500)
    return [decode(m.data, m.subject) for m in messages if "probe" not in m.subject]


def by_banner(events: list[Envelope[Event]]) -> dict[str, list[Envelope[Event]]]:
    """Events of each subject, in order."""
    found: dict[str, list[Envelope[Event]]] = {}
    for event in events:
        found.setdefault(event.data.subject, []).append(event)
    return found


async def test_each_banners_events_come_in_order(platform: Platform, tmp_path: Path) -> None:
    """Many banners at once, but one event at a time of each."""
    events = story()
    await announce(tmp_path / "a.db", await platform.bus(Role.FINGERPRINT), events)
    assert by_banner(await published(platform)) == by_banner(events)


async def test_a_rebuilt_handler_repeats_nothing_however_late(
    platform: Platform, tmp_path: Path
) -> None:
    """Weeks later the stream knows no id any more; what was said then is not said again."""
    events, bus = story(), await platform.bus(Role.FINGERPRINT)
    await announce(tmp_path / "a.db", bus, events)
    await forget_ids(platform, BANNERS, "byok.v1.banner.acme.probe")
    await announce(tmp_path / "rebuilt.db", bus, events)
    assert by_banner(await published(platform)) == by_banner(events)


async def test_a_rebuilt_handler_goes_on_where_the_other_ended(
    platform: Platform, tmp_path: Path
) -> None:
    """It says what is missing, after what is there, also over several rounds."""
    events, bus = story(), await platform.bus(Role.FINGERPRINT)
    await announce(tmp_path / "a.db", bus, events[: len(events) // 2])
    await forget_ids(platform, BANNERS, "byok.v1.banner.acme.probe")
    for event in events:
        await announce(tmp_path / "rebuilt.db", bus, [event])
    assert by_banner(await published(platform)) == by_banner(events)


async def test_two_announcers_say_everything_once(platform: Platform, tmp_path: Path) -> None:
    """Whoever comes second finds it said."""
    events, bus = story(), await platform.bus(Role.FINGERPRINT)
    await asyncio.gather(*(announce(tmp_path / f"{name}.db", bus, events) for name in "ab"))
    assert by_banner(await published(platform)) == by_banner(events)


async def test_an_outage_is_waited_out(platform: Platform, tmp_path: Path) -> None:
    """What was queued meanwhile is said afterwards, in order."""
    events, bus, outage = story(), await platform.bus(Role.FINGERPRINT), Outage(platform)
    await announce(tmp_path / "a.db", bus, events[:3])
    await outage.begin(kill=True)
    waiting = asyncio.create_task(announce(tmp_path / "a.db", bus, events[3:]))
    await outage.end()
    await waiting
    assert by_banner(await published(platform)) == by_banner(events)


async def test_what_is_no_banner_is_written_over(platform: Platform, tmp_path: Path) -> None:
    """An unreadable message on a banner's subject does not silence the banner."""
    events, bus = story(), await platform.bus(Role.FINGERPRINT)
    subject = events[0].data.subject
    await store_raw(bus, subject, "rubbish", b"{")
    await announce(tmp_path / "a.db", bus, events)
    messages = await read_batch(await platform.bus(Role.OPS), BANNERS.name, 2, 500)
    told = [decode(m.data, m.subject) for m in messages]
    assert by_banner(told) == by_banner(events)
    assert all(isinstance(event.data, BannerEvent) for event in told)
