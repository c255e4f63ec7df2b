"""The ledger reader on a real bus: every fact once and in order, or a clear stop."""

import asyncio
import hashlib
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field, replace

import pytest

from bus_schemas.errors import ReaderMustStop
from bus_schemas.event import Event
from bus_schemas.events import ClockTicked, EpochClosed
from bus_schemas.flows import Role
from bus_schemas.streams import LEDGER
from bus_schemas.transport import follow, ledger
from bus_schemas.transport.connection import Bus
from bus_schemas.transport.database import StorageFull
from bus_schemas.transport.fresh import fresh
from bus_schemas.transport.jetstream import api, store, stream_state
from bus_schemas.transport.ledger import Batch, LedgerReader, Position
from bus_schemas.transport.target import BusUnavailable
from platform_handlers.authority.streams import make_streams
from tests.conftest import Platform
from tests.outages import Outage, almighty


@dataclass
class Notebook:
    """A ledger store that only writes down what it is given."""

    at: Position | None = None
    minutes: list[int] = field(default_factory=list)
    sequences: list[int] = field(default_factory=list)
    refusals: int = 0
    grown: asyncio.Event = field(default_factory=asyncio.Event)

    async def position(self) -> Position | None:
        """Return where it stands."""
        return self.at

    async def apply(self, batch: Batch) -> None:
        """Take a batch, unless the disk is said to be full."""
        if self.refusals:
            self.refusals -= 1
            raise StorageFull("no room")
        for fact in batch.facts:
            self.sequences.append(fact.sequence)
            if isinstance(fact.envelope.data, ClockTicked):
                self.minutes.append(fact.envelope.data.minute)
        self.at = batch.position
        self.grown.set()

    async def until(self, length: int) -> None:
        """Wait until there are so many facts, at most half a minute."""
        async with asyncio.timeout(30):
            while len(self.sequences) < length:
                self.grown.clear()
                await self.grown.wait()


@asynccontextmanager
async def reading(bus: Bus, notebook: Notebook, size: int = 7) -> AsyncIterator[LedgerReader]:
    """Read the ledger into *notebook* in small batches."""
    reader = LedgerReader(bus, LEDGER, "test", notebook)
    task = asyncio.create_task(reader.run(size=size))
    try:
        yield reader
    finally:
        task.cancel()
        with suppress(asyncio.CancelledError):
            await task


async def tell(bus: Bus, *events: Event) -> None:
    """Store *events* one by one, each until it is acknowledged."""
    for event in events:
        envelope = fresh(event)
        async with asyncio.timeout(30):
            while True:
                try:
                    await store(bus, envelope)
                    break
                except BusUnavailable:
                    await asyncio.sleep(0.05)


def ticks(first: int, last: int) -> list[Event]:
    """Minutes from *first* to *last*."""
    return [ClockTicked(minute=minute) for minute in range(first, last + 1)]


@pytest.mark.parametrize("kill", [False, True])
async def test_an_outage_in_the_middle_loses_and_repeats_nothing(
    platform: Platform, kill: bool
) -> None:
    """nats-server may end as it likes: what it acknowledged is read once and in order."""
    outage, notebook = Outage(platform), Notebook()
    writer = await platform.bus(Role.FINGERPRINT)
    async with reading(await platform.bus(Role.HEALTH), notebook):
        await tell(writer, *ticks(1, 60))
        telling = asyncio.create_task(tell(writer, *ticks(61, 120)))
        await notebook.until(20)
        await outage.begin(kill=kill)
        await outage.end()
        await telling
        await notebook.until(120)
    assert list(dict.fromkeys(notebook.minutes)) == list(range(1, 121))
    assert len(notebook.minutes) == 120
    assert notebook.sequences == list(range(1, 121))


async def test_a_reader_goes_on_where_its_store_stands(platform: Platform) -> None:
    """State and offset are one: what was applied is not applied again."""
    writer, notebook = await platform.bus(Role.FINGERPRINT), Notebook()
    bus = await platform.bus(Role.HEALTH)
    await tell(writer, *ticks(1, 10))
    async with reading(bus, notebook):
        await notebook.until(10)
    await tell(writer, *ticks(11, 15))
    async with reading(bus, notebook) as reader:
        await reader.caught_up()
    assert notebook.sequences == list(range(1, 16))
    assert notebook.at is not None
    assert notebook.at.sequence == 15


async def test_a_full_disk_is_waited_out(platform: Platform) -> None:
    """The same batch is offered until the store has room."""
    writer, notebook = await platform.bus(Role.FINGERPRINT), Notebook(refusals=2)
    await tell(writer, *ticks(1, 3))
    async with reading(await platform.bus(Role.HEALTH), notebook):
        await notebook.until(3)
    assert notebook.sequences == [1, 2, 3]


async def stopped(bus: Bus, notebook: Notebook) -> ReaderMustStop:
    """Read until the reader stops by itself, and return why."""
    async with asyncio.timeout(30):
        with pytest.raises(ReaderMustStop) as stop:
            await LedgerReader(bus, LEDGER, "test", notebook).run()
    return stop.value


async def test_another_ledger_stops_a_running_reader(platform: Platform) -> None:
    """A new disk re-uses sequences; going on would mix two histories."""
    outage, notebook = Outage(platform), Notebook()
    writer, setup = await platform.bus(Role.FINGERPRINT), await platform.bus(Role.SETUP)
    await tell(writer, *ticks(1, 5))
    bus = await platform.bus(Role.HEALTH)
    reading_on = asyncio.create_task(stopped(bus, notebook))
    await notebook.until(5)
    await outage.begin()
    outage.lose_everything()
    await outage.end()
    await make_streams(setup)
    await tell(writer, *ticks(101, 109))
    stop = await reading_on
    assert (stop.reason, stop.position) == ("ledger_replaced", 5)
    assert "rebuild the test store" in stop.remedy
    assert notebook.sequences == [1, 2, 3, 4, 5]


async def test_a_ledger_made_anew_under_a_live_connection_is_noticed(
    platform: Platform, monkeypatch: pytest.MonkeyPatch
) -> None:
    """No reconnect tells of it, so the reader looks from time to time."""
    monkeypatch.setattr(ledger, "_LOOK_AGAIN_SECONDS", 0.1)
    monkeypatch.setattr(follow, "_LOOK_ANYWAY_SECONDS", 0.1)
    writer, setup = await platform.bus(Role.FINGERPRINT), await platform.bus(Role.SETUP)
    notebook = Notebook()
    await tell(writer, *ticks(1, 5))
    reading_on = asyncio.create_task(stopped(await platform.bus(Role.HEALTH), notebook))
    await notebook.until(5)
    async with almighty(platform) as bus:
        await api(bus, f"STREAM.DELETE.{LEDGER.name}", {})
    await make_streams(setup)
    assert (await reading_on).reason == "ledger_replaced"


async def test_a_reader_stops_at_the_start_where_its_ledger_is_another(
    platform: Platform,
) -> None:
    """The creation time, the message at the offset and the one after it must all be there."""
    writer, bus = await platform.bus(Role.FINGERPRINT), await platform.bus(Role.HEALTH)
    await tell(writer, *ticks(1, 5))
    created = (await stream_state(bus, LEDGER.name)).created
    right = Position(created, 5, hashlib.sha256(b"something else").hexdigest())
    ahead = replace(right, sequence=9)
    elsewhere = replace(right, created="2020-01-01T00:00:00Z")
    for position in (right, ahead, elsewhere):
        stop = await stopped(bus, Notebook(at=position))
        assert (stop.reason, stop.position) == ("ledger_replaced", position.sequence)


async def test_a_reader_that_slept_too_long_stops(platform: Platform) -> None:
    """What aged out before it was read is missing for good; only a snapshot helps."""
    writer, setup = await platform.bus(Role.FINGERPRINT), await platform.bus(Role.SETUP)
    bus, notebook = await platform.bus(Role.HEALTH), Notebook()
    await tell(writer, *ticks(1, 3))
    async with reading(bus, notebook):
        await notebook.until(3)
    await tell(writer, *ticks(4, 9))
    short = LEDGER.configuration() | {"max_msgs": 2, "discard": "old"}
    await api(setup, f"STREAM.UPDATE.{LEDGER.name}", short)
    stop = await stopped(bus, notebook)
    assert (stop.reason, stop.position) == ("ledger_truncated", 3)
    assert notebook.sequences == [1, 2, 3]


async def test_a_reader_whose_last_fact_aged_out_goes_on(platform: Platform) -> None:
    """Nothing is missing as long as the next fact is there."""
    writer, setup = await platform.bus(Role.FINGERPRINT), await platform.bus(Role.SETUP)
    bus, notebook = await platform.bus(Role.HEALTH), Notebook()
    await tell(writer, *ticks(1, 3))
    async with reading(bus, notebook):
        await notebook.until(3)
    await tell(writer, *ticks(4, 5))
    short = LEDGER.configuration() | {"max_msgs": 2, "discard": "old"}
    await api(setup, f"STREAM.UPDATE.{LEDGER.name}", short)
    async with reading(bus, notebook):
        await notebook.until(5)
    assert notebook.sequences == [1, 2, 3, 4, 5]


async def test_other_facts_are_facts_too(platform: Platform) -> None:
    """The reader hands over whatever the catalogue knows; its store chooses."""
    notebook = Notebook()
    await tell(await platform.bus(Role.EVALUATOR), EpochClosed(epoch="e1"))
    async with reading(await platform.bus(Role.HEALTH), notebook):
        await notebook.until(1)
    assert notebook.minutes == []
