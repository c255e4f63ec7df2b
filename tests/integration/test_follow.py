"""Following a stream without a consumer, on a real bus."""

import asyncio
import signal
from collections.abc import AsyncIterator
from contextlib import aclosing

import pytest

from bus_schemas.event import Event
from bus_schemas.events import ClockTicked, HealthReported
from bus_schemas.flows import Role
from bus_schemas.streams import HEALTH, LEDGER
from bus_schemas.transport import follow as following
from bus_schemas.transport import jetstream
from bus_schemas.transport.connection import Bus
from bus_schemas.transport.follow import follow
from bus_schemas.transport.fresh import fresh
from bus_schemas.transport.jetstream import StoredMessage, read_batch, store
from bus_schemas.transport.target import BusUnavailable
from tests.conftest import Platform
from tests.outages import Outage, almighty


async def tell(bus: Bus, *events: Event) -> None:
    """Store *events* one by one."""
    for event in events:
        await store(bus, fresh(event))


async def until(
    batches: AsyncIterator[list[StoredMessage]], sequence: int
) -> list[list[StoredMessage]]:
    """Take batches until one ends at *sequence*, at most half a minute."""
    taken = []
    async with asyncio.timeout(30):
        async for batch in batches:
            taken.append(batch)
            if batch and batch[-1].sequence >= sequence:
                break
    return taken


def sequences(batches: list[list[StoredMessage]]) -> list[int]:
    """All sequences, in the order they came."""
    return [message.sequence for batch in batches for message in batch]


async def test_batches_come_in_order_and_the_head_is_told_once(platform: Platform) -> None:
    """An empty batch says "caught up"; then nothing comes until something is stored."""
    writer, bus = await platform.bus(Role.FINGERPRINT), await platform.bus(Role.HEALTH)
    await tell(writer, *(ClockTicked(minute=i) for i in range(1, 11)))
    async with aclosing(follow(bus, LEDGER, 1, size=4)) as batches:
        first = await until(batches, 10)
        assert [len(batch) for batch in first] == [4, 4, 2]
        assert sequences(first) == list(range(1, 11))
        assert await anext(batches) == []
        waiting = asyncio.create_task(until(batches, 11))
        await tell(writer, ClockTicked(minute=11))
        assert sequences(await waiting) == [11]


async def test_a_nudge_wakes_it_long_before_it_would_look(
    platform: Platform, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each of many messages that come one at a time is there at once."""
    monkeypatch.setattr(following, "_LOOK_ANYWAY_SECONDS", 3600)
    writer, bus = await platform.bus(Role.FINGERPRINT), await platform.bus(Role.HEALTH)
    async with aclosing(follow(bus, LEDGER, 1)) as batches:
        for i in range(1, 31):
            waiting = asyncio.create_task(until(batches, i))
            await tell(writer, ClockTicked(minute=i))
            assert sequences(await waiting) == [i]


async def test_a_lost_nudge_costs_a_few_seconds_only(
    platform: Platform, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The head is looked at anyway: here the follower may not listen at all."""
    monkeypatch.setattr(following, "_LOOK_ANYWAY_SECONDS", 0.2)
    monkeypatch.setattr(following, "_RETRIES_AFTER_NUDGE", ())
    deaf = LEDGER.__class__(LEDGER.name, (), 0, 0)
    writer, bus = await platform.bus(Role.FINGERPRINT), await platform.bus(Role.HEALTH)
    async with aclosing(follow(bus, deaf, 1)) as batches:
        assert await anext(batches) == []
        waiting = asyncio.create_task(until(batches, 1))
        await tell(writer, ClockTicked(minute=1))
        assert sequences(await waiting) == [1]


async def test_holes_in_a_stream_are_no_gap(platform: Platform) -> None:
    """A stream that keeps the last message of each subject has holes; none of it is lost."""
    servers = [await platform.bus(Role.SERVER, f"acme-{i}") for i in range(3)]
    for n in range(1, 5):
        for i, server in enumerate(servers):
            report = HealthReported(
                server_id=f"acme-{i}",
                incarnation=1,
                n=n,
                observed_generation=0,
                runtime_version="1",
                outbox_depth=0,
                slots=(),
            )
            if i != 1 or n != 4:
                await tell(server, report)
    bus = await platform.bus(Role.HEALTH)
    async with aclosing(follow(bus, HEALTH, 1)) as batches:
        assert sequences(await until(batches, 11)) == [8, 10, 11]


@pytest.mark.parametrize("kill", [False, True])
async def test_an_outage_is_waited_out(platform: Platform, kill: bool) -> None:
    """Nothing is skipped or yielded twice, and it goes on soon after the server is back."""
    outage = Outage(platform)
    writer, bus = await platform.bus(Role.FINGERPRINT), await platform.bus(Role.HEALTH)
    await tell(writer, *(ClockTicked(minute=i) for i in range(1, 21)))
    async with aclosing(follow(bus, LEDGER, 1, size=8)) as batches:
        before = await until(batches, 8)
        waiting = asyncio.create_task(until(batches, 21))
        await outage.begin(kill=kill)
        await outage.end()
        await tell(writer, ClockTicked(minute=21))
        assert sequences(before + await waiting) == list(range(1, 22))


async def test_a_read_that_is_cut_off_fails_at_once(platform: Platform) -> None:
    """What was asked before the outage is never answered, so nobody waits for it."""
    outage, bus = Outage(platform), await platform.bus(Role.HEALTH)
    platform.server.process.send_signal(signal.SIGSTOP)  # it takes the question and does not answer
    asking = asyncio.create_task(read_batch(bus, LEDGER.name, 1, 10))
    async with asyncio.timeout(4):  # sooner than the read would give up by itself
        await asyncio.sleep(0)
        await outage.begin(kill=True)
        with pytest.raises(BusUnavailable, match="lost"):
            await asking
    await outage.end()


async def test_reading_what_one_may_not_read_is_unavailable(
    platform: Platform, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A missing permission is no answer; it is told, not taken for an empty stream."""
    monkeypatch.setattr(jetstream, "_WAIT", 0.3)
    bus = await platform.bus(Role.SERVER, "acme-1")
    with pytest.raises(BusUnavailable, match="reading BYOK_LEDGER from 1 broke off"):
        await read_batch(bus, LEDGER.name, 1, 10)


async def test_a_stream_that_is_not_there_is_unavailable(platform: Platform) -> None:
    """So a reader that comes before its stream was made waits for it."""
    async with almighty(platform) as bus:
        with pytest.raises(BusUnavailable, match="status 503"):
            await read_batch(bus, "BYOK_NOTHING", 1, 10)
