"""Reading the ledger and folding it, against the plain way: a consumer, one message at a time."""

import asyncio
import statistics
import time
from collections.abc import Awaitable, Callable
from pathlib import Path

import aiosqlite
import nats.errors
from nats.js.api import AckPolicy, ConsumerConfig

from benchmarks.bus import FACTS, Bench, fill_ledger, running_bus
from benchmarks.figure import Figure
from bus_schemas.codec import decode
from bus_schemas.events import FingerprintObserved
from bus_schemas.streams import LEDGER
from bus_schemas.transport.connection import Bus
from bus_schemas.transport.database import open_database
from bus_schemas.transport.follow import follow
from bus_schemas.transport.ledger import LedgerReader
from platform_handlers.fingerprint.store import FingerprintStore

_ROUNDS = 3
_PLAIN_FACTS = 2_000
"""The plain handler is slow; so many facts are enough to know its rate."""

_PLAIN_SCHEMA = """
CREATE TABLE IF NOT EXISTS holders (
    server_id TEXT, slot_id TEXT, tag TEXT, PRIMARY KEY (server_id, slot_id)
);
CREATE INDEX IF NOT EXISTS by_tag ON holders (tag);
CREATE TABLE IF NOT EXISTS inbox (id TEXT PRIMARY KEY);
"""


async def measure() -> list[Figure]:
    """Return the ledger's figures."""
    async with running_bus() as bench:
        bus = await bench.everything()
        try:
            await fill_ledger(bus)
            return [await _reading(bus), await _folding(bench, bus)]
        finally:
            await bus.close()


async def _reading(bus: Bus) -> Figure:
    pairs = [(await _rate(_follow, bus), await _rate(_fetch, bus)) for _ in range(_ROUNDS)]
    ours, theirs = (statistics.median(column) for column in zip(*pairs, strict=True))
    return Figure(
        "ledger read in batches against nats-py fetch()",
        round(statistics.median(a / b for a, b in pairs), 2),
        "times",
        2.0,
        "higher",
        f"ours {ours:,.0f} messages/s, pull consumer with fetch(500) {theirs:,.0f}/s",
    )


async def _folding(bench: Bench, bus: Bus) -> Figure:
    pairs = []
    for number in range(_ROUNDS):
        folder = bench.folder / f"round-{number}"
        folder.mkdir()
        ours = await _rate(_fold, bus, folder / "fingerprint.db")
        theirs = await _rate(_plain, bus, folder / "plain.db")
        pairs.append((ours, theirs))
    ours, theirs = (statistics.median(column) for column in zip(*pairs, strict=True))
    return Figure(
        "fingerprint handler against one message, one transaction, one ack",
        round(statistics.median(a / b for a, b in pairs), 1),
        "times",
        8.0,
        "higher",
        f"ours {ours:,.0f} facts/s with banners, plain handler {theirs:,.0f}/s without",
    )


async def _rate(work: Callable[..., Awaitable[int]], *arguments: object) -> float:
    began = time.perf_counter()
    done = await work(*arguments)
    return done / (time.perf_counter() - began)


async def _follow(bus: Bus) -> int:
    read = 0
    async for batch in follow(bus, LEDGER, 1):
        read += len(batch)
        if not batch:
            break
    return read


async def _fetch(bus: Bus) -> int:
    """Read the whole stream by an ephemeral consumer without acks, nats-py's documented way."""
    client = await bus.client()
    subscription = await client.jetstream().pull_subscribe(
        "byok.v1.>", stream=LEDGER.name, config=ConsumerConfig(ack_policy=AckPolicy.NONE)
    )
    read = 0
    while read < FACTS:
        try:
            read += len(await subscription.fetch(500, timeout=5))
        except nats.errors.TimeoutError:
            break
    await subscription.unsubscribe()
    return read


async def _fold(bus: Bus, path: Path) -> int:
    """Fold the whole ledger as the handler does, announcements committed but not published."""
    store = await FingerprintStore.open(path)
    reader = LedgerReader(bus, LEDGER, "bench", store)
    running = asyncio.create_task(reader.run())
    await reader.caught_up()
    running.cancel()
    await asyncio.gather(running, return_exceptions=True)
    await store.close()
    return FACTS


async def _plain(bus: Bus, path: Path) -> int:
    """Do the same as most services write it: fetch, look up, store, commit, acknowledge."""
    client = await bus.client()
    database = await open_database(path, _PLAIN_SCHEMA)
    subscription = await client.jetstream().pull_subscribe(
        "byok.v1.fingerprint.*", stream=LEDGER.name
    )
    done = 0
    while done < _PLAIN_FACTS:
        for message in await subscription.fetch(100, timeout=5):
            envelope = decode(message.data, message.subject)
            await _plain_handler(database, envelope.id, envelope.data)
            await message.ack()
            done += 1
    await subscription.unsubscribe()
    await database.close()
    return done


async def _plain_handler(database: aiosqlite.Connection, event_id: str, event: object) -> None:
    if not isinstance(event, FingerprintObserved):
        return
    await database.execute("BEGIN IMMEDIATE")
    await database.execute("INSERT OR IGNORE INTO inbox VALUES (?)", (event_id,))
    row = (event.server_id, event.slot_id, event.tag)
    await database.execute("INSERT OR REPLACE INTO holders VALUES (?, ?, ?)", row)
    query = "SELECT server_id FROM holders WHERE tag = ?"
    await database.execute_fetchall(query, (event.tag,))
    await database.execute("COMMIT")
