"""The intake on a real bus: no server fills the ledger, and none loses what it has to tell."""

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path

import aiosqlite
import pytest

from bus_schemas.codec import encode
from bus_schemas.envelope import Envelope
from bus_schemas.event import Event
from bus_schemas.events import ClockTicked, FingerprintRenewed, RatchetAdvanced
from bus_schemas.events.fingerprint import HeldRevision
from bus_schemas.flows import Role
from bus_schemas.intake import UNITS_A_DAY
from bus_schemas.streams import LEDGER
from bus_schemas.transport import outbox
from bus_schemas.transport.connection import Bus
from bus_schemas.transport.database import fetch_one, open_database, transaction
from bus_schemas.transport.fresh import fresh, new_id
from bus_schemas.transport.jetstream import (
    Later,
    StreamError,
    Unusable,
    api,
    read_batch,
    store,
    store_raw,
    stream_state,
)
from bus_schemas.transport.outbox import OUTBOX_SCHEMA, OutboxPump, depth, put
from platform_handlers.intake import rules
from tests.conftest import Platform

SUBJECT = "byok.v1.fingerprint.evil-1"


def renewal(server_id: str, n: int, held: int = 100) -> Envelope[Event]:
    """A fact that is long enough to need only a few for a day's worth."""
    revisions = tuple(HeldRevision(slot_id=f"{i:060d}", revision=1) for i in range(held))
    return fresh(FingerprintRenewed(server_id=server_id, incarnation=1, n=n, held=revisions))


async def spend_all(bus: Bus, server_id: str) -> int:
    """Store facts of *server_id* until no more are taken, and return how many were."""
    for n in range(1, UNITS_A_DAY):
        try:
            await store(bus, renewal(server_id, n))
        except Later:
            return n - 1
    raise AssertionError("no quota")


@pytest.fixture
async def database(tmp_path: Path) -> AsyncIterator[aiosqlite.Connection]:
    """The outbox of a server."""
    opened = await open_database(tmp_path / "outbox.db", OUTBOX_SCHEMA)
    yield opened
    await opened.close()


async def queue(database: aiosqlite.Connection, *envelopes: Envelope[Event]) -> None:
    """Put *envelopes* into the outbox."""
    async with transaction(database):
        await put(database, envelopes)


@asynccontextmanager
async def pumping(database: aiosqlite.Connection, bus: Bus) -> AsyncIterator[OutboxPump]:
    """Send what the outbox holds."""
    pump = OutboxPump(database, bus)
    task = asyncio.create_task(pump.run())
    try:
        yield pump
    finally:
        task.cancel()
        with suppress(asyncio.CancelledError):
            await task


async def test_a_server_fills_its_own_quota_and_nobody_elses(platform: Platform) -> None:
    """Two thousand KiB, then it is told when to come again; its neighbour notices nothing."""
    evil, honest = [await platform.bus(Role.SERVER, name) for name in ("evil-1", "acme-1")]
    taken = await spend_all(evil, "evil-1")
    each = rules.cost(encode(renewal("evil-1", 1)))
    assert taken == UNITS_A_DAY // each
    with pytest.raises(Later, match="takes 2000 KiB of facts a day") as refusal:
        await store(evil, renewal("evil-1", 999))
    assert 0 < refusal.value.seconds < 24 * 3600
    await store(honest, renewal("acme-1", 1))
    platform.later = refusal.value.seconds
    await store(evil, renewal("evil-1", 1000))
    assert (await stream_state(await platform.bus(Role.OPS), LEDGER.name)).last == taken + 2


async def test_over_the_quota_the_outbox_keeps_what_it_has_and_says_so(
    platform: Platform, database: aiosqlite.Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nothing is lost or reordered, and `byok-vps status` reads why it waits."""
    monkeypatch.setattr(outbox, "_held_seconds", lambda _: 0.02)
    bus = await platform.bus(Role.SERVER, "acme-1")
    taken = await spend_all(bus, "acme-1")
    await queue(database, *(renewal("acme-1", taken + i) for i in range(1, 6)))
    async with pumping(database, bus) as pump, asyncio.timeout(20):
        held = "SELECT until FROM outbox_held"
        while await fetch_one(database, held) is None:  # noqa: ASYNC110 (no bell)
            await asyncio.sleep(0.01)
        assert await depth(database) == 5
        platform.later = 24 * 3600
        await pump.drained()
        assert await fetch_one(database, held) is None
    messages = await read_batch(await platform.bus(Role.OPS), LEDGER.name, taken + 1, 50)
    assert [json.loads(m.data)["data"]["n"] for m in messages] == list(range(taken + 1, taken + 6))


async def test_of_a_servers_rubbish_one_a_day_gets_in(
    platform: Platform, database: aiosqlite.Connection
) -> None:
    """That one is parked by the readers; the rest stands in nobody's way, not even its own."""
    bus, ops = await platform.bus(Role.SERVER, "evil-1"), await platform.bus(Role.OPS)
    await store_raw(bus, SUBJECT, new_id(), b"{first")
    for _ in range(3):
        with pytest.raises(Unusable, match="malformed"):
            await store_raw(bus, SUBJECT, new_id(), b"{more")
    await queue(database, renewal("acme-1", 1), renewal("evil-1", 2))  # the first is a neighbour's
    await database.execute("UPDATE outbox SET subject = ?", (SUBJECT,))
    await database.commit()
    async with pumping(database, bus) as pump, asyncio.timeout(10):
        await pump.drained()
    found = await read_batch(ops, LEDGER.name, 1, 10)
    assert [m.data[:6] for m in found] == [b"{first", encode(renewal("evil-1", 2))[:6]]
    platform.later = 24 * 3600
    await store_raw(bus, SUBJECT, new_id(), b"{next day")


async def test_a_fact_of_a_start_that_never_was_is_not_taken(platform: Platform) -> None:
    """Readers order by that number: one that a thief of the nkey invented would silence the server.

    The evaluator's ratchet tells which starts there were, before any server hears of its own.
    """
    platform.starts = 0
    bus, evaluator = await platform.bus(Role.SERVER, "acme-1"), await platform.bus(Role.EVALUATOR)
    fact = renewal("acme-1", 1)
    for start in (1, 2):
        with pytest.raises(Later, match=f"no start {start} of this server"):
            await store(bus, of_start(fact, start))
        state = RatchetAdvanced(server_id="acme-1", committed=1, incarnation=start)
        await store(evaluator, fresh(state))
        await store(bus, of_start(fact, start))
    await store(bus, renewal("acme-1", 2))  # told late, by its first start
    with pytest.raises(Later):
        await store(bus, of_start(fact, 2**53 - 1))
    found = await read_batch(await platform.bus(Role.OPS), LEDGER.name, 1, 10)
    stamps = [json.loads(m.data)["data"] for m in found]
    assert [(s["incarnation"], s["n"]) for s in stamps] == [(1, 1), (2, 1), (1, 2)]


def of_start(fact: Envelope[Event], incarnation: int) -> Envelope[Event]:
    """Return *fact* as if told by another start of the server."""
    return fresh(fact.data.model_copy(update={"incarnation": incarnation}))


async def test_a_long_fact_is_never_taken(platform: Platform) -> None:
    """Not even the first of a day: readers could use it, were it not for the bound."""
    bus = await platform.bus(Role.SERVER, "evil-1")
    with pytest.raises(Unusable, match="oversized"):
        await store(bus, renewal("evil-1", 1, held=128).model_copy(update={"source": "x" * 9000}))


async def test_no_header_of_a_server_gets_into_the_ledger(platform: Platform) -> None:
    """What lies there has the headers of the intake and of nats-server, and no others."""
    client = await (await platform.bus(Role.SERVER, "evil-1")).client()
    headers = {
        "Nats-Rollup": "all",
        "Nats-TTL": "1s",
        "Nats-Expected-Last-Sequence": "7",
        "Nats-Stream-Source": "BYOK_LEDGER 999999 > >",
        "Nats-Msg-Id": "theirs",
        "X-Evil": "yes",
    }
    raw = encode(renewal("evil-1", 1))
    answer = await client.request(SUBJECT, raw, timeout=5, headers=headers)
    assert json.loads(answer.data) == {"stream": LEDGER.name, "seq": 1}
    ops = await platform.bus(Role.OPS)
    question = json.dumps({"seq": 1}).encode()
    found = await ops.request(f"{ops.api}.DIRECT.GET.{LEDGER.name}", question, wait=5)
    assert found.data == raw
    assert found.headers is not None
    assert set(found.headers) == {
        "Content-Type",
        "Nats-Msg-Id",
        "Nats-Stream",
        "Nats-Subject",
        "Nats-Sequence",
        "Nats-Time-Stamp",
    }
    assert found.headers["Nats-Subject"] == SUBJECT
    assert found.headers["Nats-Msg-Id"].startswith("evil-1/")


async def test_an_id_that_a_server_sent_first_swallows_nobodys_message(platform: Platform) -> None:
    """The ledger knows a server's messages by ids of the intake's making."""
    client = await (await platform.bus(Role.SERVER, "evil-1")).client()
    tick = fresh(ClockTicked(minute=1))
    body = encode(renewal("evil-1", 1))
    await client.request(SUBJECT, body, timeout=5, headers={"Nats-Msg-Id": tick.id})
    assert await store(await platform.bus(Role.FINGERPRINT), tick) == 2


async def test_a_repeat_is_recognised(platform: Platform) -> None:
    """An answer that got lost is asked for again, and the fact lies in the ledger once."""
    bus, fact = await platform.bus(Role.SERVER, "acme-1"), renewal("acme-1", 1)
    assert [await store(bus, fact), await store(bus, fact)] == [1, 1]
    assert (await stream_state(await platform.bus(Role.OPS), LEDGER.name)).last == 1


async def test_a_full_ledger_is_told_and_waited_out(
    platform: Platform, database: aiosqlite.Connection
) -> None:
    """The server hears the stream's own words, and its outbox goes on when there is room."""
    setup, bus = await platform.bus(Role.SETUP), await platform.bus(Role.SERVER, "acme-1")
    small = LEDGER.configuration() | {"max_bytes": 1024}
    await api(setup, f"STREAM.UPDATE.{LEDGER.name}", small)
    with pytest.raises(StreamError, match="maximum bytes exceeded"):
        await store(bus, renewal("acme-1", 1))
    await queue(database, renewal("acme-1", 1))
    async with pumping(database, bus) as pump, asyncio.timeout(20):
        await api(setup, f"STREAM.UPDATE.{LEDGER.name}", LEDGER.configuration())
        await pump.drained()
    assert (await stream_state(await platform.bus(Role.OPS), LEDGER.name)).last == 1
