"""The outbox on a real bus: in order, nothing lost, repeats recognised, a full disk survived."""

import asyncio
from collections.abc import AsyncIterator, Iterable
from contextlib import suppress
from pathlib import Path

import aiosqlite
import pytest

from bus_schemas.codec import decode
from bus_schemas.envelope import Envelope
from bus_schemas.event import Event
from bus_schemas.events import FingerprintRetired
from bus_schemas.flows import Role
from bus_schemas.streams import LEDGER
from bus_schemas.transport.database import StorageFull, open_database, transaction
from bus_schemas.transport.fresh import fresh
from bus_schemas.transport.jetstream import read_batch
from bus_schemas.transport.outbox import OUTBOX_SCHEMA, OutboxPump, depth, put
from platform_handlers.fingerprint.projection import Projection
from tests.conftest import Platform
from tests.facts import Ledger, fold
from tests.outages import Outage, forget_ids


@pytest.fixture
async def database(tmp_path: Path) -> AsyncIterator[aiosqlite.Connection]:
    """An outbox of its own."""
    opened = await open_database(tmp_path / "outbox.db", OUTBOX_SCHEMA)
    yield opened
    await opened.close()


def facts(first: int, last: int) -> list[Envelope[Event]]:
    """What acme-1 tells, numbered from *first* to *last*."""
    return [
        fresh(FingerprintRetired(server_id="acme-1", incarnation=1, n=n, slot_id="s", revision=1))
        for n in range(first, last + 1)
    ]


async def queue(database: aiosqlite.Connection, envelopes: Iterable[Envelope[Event]]) -> None:
    """Put *envelopes* into the outbox."""
    async with transaction(database):
        await put(database, envelopes)


async def told_by_servers(platform: Platform) -> list[FingerprintRetired]:
    """Return what servers put on the ledger, in order."""
    messages = await read_batch(await platform.bus(Role.OPS), LEDGER.name, 1, 1000)
    events = [decode(m.data, m.subject).data for m in messages if "fingerprint" in m.subject]
    return [event for event in events if isinstance(event, FingerprintRetired)]


@pytest.mark.parametrize("kill", [False, True])
async def test_order_survives_an_outage(
    platform: Platform, database: aiosqlite.Connection, kill: bool
) -> None:
    """Facts arrive as they were queued, each once, whenever the bus is there."""
    outage = Outage(platform)
    pump = OutboxPump(database, await platform.bus(Role.SERVER, "acme-1"))
    await queue(database, facts(1, 40))
    running = asyncio.create_task(pump.run())
    async with asyncio.timeout(10):
        while await depth(database) > 30:  # noqa: ASYNC110 (the database rings no bell)
            await asyncio.sleep(0.001)
    await outage.begin(kill=kill)
    await queue(database, facts(41, 60))
    pump.wake()
    await outage.end()
    async with asyncio.timeout(30):
        await pump.drained()
    running.cancel()
    with suppress(asyncio.CancelledError):
        await running
    assert await depth(database) == 0
    assert [event.n for event in await told_by_servers(platform)] == list(range(1, 61))


async def test_what_is_sent_twice_is_folded_once(
    platform: Platform, database: aiosqlite.Connection
) -> None:
    """Long after the stream has forgotten an id, the reader still knows the fact's number."""
    server, told = await platform.bus(Role.SERVER, "acme-1"), facts(1, 6)
    pump = OutboxPump(database, server, in_flight=3)
    running = asyncio.create_task(pump.run())
    await queue(database, told)
    pump.wake()
    await pump.drained()
    await queue(database, told[:2])  # within the window: recognised by the stream
    pump.wake()
    await pump.drained()
    await forget_ids(platform, LEDGER, "byok.v1.clock")
    await queue(database, told)
    pump.wake()
    await pump.drained()
    running.cancel()
    with suppress(asyncio.CancelledError):
        await running
    there = await told_by_servers(platform)
    assert sorted(event.n for event in there) == sorted([*range(1, 7), *range(1, 7)])
    ledger, state = Ledger(), Projection()
    ledger.provisioned("acme-1", "acme")
    for event in there:
        ledger.add(event)
    fold(state, *ledger.facts)
    assert state.servers["acme-1"].stamp == (1, 6)
    assert state.dropped >= 6


async def test_a_full_disk_refuses_what_does_not_fit_and_keeps_the_rest(
    database: aiosqlite.Connection,
) -> None:
    """The old state is whole, and the same is taken once there is room."""
    await queue(database, facts(1, 3))
    [row] = await database.execute_fetchall("PRAGMA page_count")
    await database.execute(f"PRAGMA max_page_count = {row[0]}")
    with pytest.raises(StorageFull, match="the disk is full or failing; nothing was changed"):
        await queue(database, facts(4, 400))
    assert await depth(database) == 3
    await database.execute("PRAGMA max_page_count = 100000")
    await queue(database, facts(4, 400))
    assert await depth(database) == 400


async def test_a_cancelled_transaction_leaves_the_next_one_free(
    database: aiosqlite.Connection,
) -> None:
    """Wherever a task is cancelled, the connection is usable and holds all or nothing."""
    for steps in range(12):
        before = await depth(database)
        task = asyncio.create_task(queue(database, facts(1, 2)))
        for _ in range(steps):
            await asyncio.sleep(0)
        task.cancel()
        with suppress(asyncio.CancelledError):
            await task
        assert await depth(database) in {before, before + 2}
        await queue(database, [])
