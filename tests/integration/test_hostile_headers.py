"""Whatever headers a tenant puts on its messages, nobody else is stopped or misled by them."""

import asyncio
from contextlib import aclosing

import pytest
from nats.aio.client import Client

from bus_schemas.codec import encode
from bus_schemas.events import FingerprintRenewed
from bus_schemas.flows import Role
from bus_schemas.requests import EVALUATE
from bus_schemas.streams import HEALTH, LEDGER
from bus_schemas.transport import follow as following
from bus_schemas.transport.connection import Bus
from bus_schemas.transport.follow import follow
from bus_schemas.transport.fresh import fresh
from bus_schemas.transport.jetstream import read_batch
from tests.conftest import Platform
from tests.following import messages_once

HOSTILE = {
    "end of a batch": b"NATS/1.0\r\nStatus: 204\r\n\r\n",
    "nothing there": b"NATS/1.0\r\nStatus: 404\r\n\r\n",
    "an error": b"NATS/1.0\r\nStatus: 503\r\n\r\n",
    "an inline status": b"NATS/1.0 204 EOB\r\n\r\n",
    "a status that is no text": b"NATS/1.0 \xff\xff\xff\r\n\r\n",
    "no version": b"         \xff\xff\xff\r\n\r\n",
    "a broken line": b"NATS/1.0 \xffA\x00\t\x00NATS/1.0Nats-Subject\r\n\tNats-SequenceA",
    "another subject": b"NATS/1.0\r\nNats-Subject: byok.v1.epoch\r\n\r\n",
    "another place": b"NATS/1.0\r\nNats-Sequence: x\r\nNats-Last-Sequence: 99\r\n\r\n",
    "another time": b"NATS/1.0\r\nNats-Time-Stamp: x\r\n\r\n",
    "only two letters": b"AB",
}
SUBJECT = "byok.v1.fingerprint.evil-1"


async def send(bus: Bus, subject: str, headers: bytes, body: bytes) -> None:
    """Publish with headers that no client would write."""
    client: Client = await bus.client()
    sizes = f"{len(headers)} {len(headers) + len(body)}"
    await client._send_command(  # noqa: SLF001 (nats-py writes no such thing itself)
        f"HPUB {subject} {sizes}\r\n".encode() + headers + body + b"\r\n"
    )
    await client.flush()


async def stored(bus: Bus, count: int) -> None:
    """Wait until the ledger has *count* messages."""
    await messages_once(bus, LEDGER, lambda found: len(found) >= count)


async def test_no_header_of_a_tenant_halts_or_deafens_those_who_follow_its_reports(
    platform: Platform, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Servers store these themselves, and nats-server tells of each with the headers they sent."""
    monkeypatch.setattr(following, "_LOOK_ANYWAY_SECONDS", 3600)
    evil = await platform.bus(Role.SERVER, "evil-1")
    reader = await platform.bus(Role.HEALTH)
    async with aclosing(follow(reader, HEALTH, 1)) as batches, asyncio.timeout(20):
        assert await anext(batches) == []
        for n, headers in enumerate(HOSTILE.values(), start=1):
            await send(evil, "byok.v1.health.evil-1", headers, b"{}")
            while not (batch := await anext(batches)):
                pass
            [message] = batch
            assert (message.sequence, message.subject) == (n, "byok.v1.health.evil-1")
            assert message.stored_at.startswith("20")


async def test_no_header_of_a_tenant_halts_those_who_read_the_ledger(platform: Platform) -> None:
    """Every message is read, at its own place, on its own subject and at its own time."""
    evil = await platform.bus(Role.SERVER, "evil-1")
    reader = await platform.bus(Role.HEALTH)
    for n, headers in enumerate(HOSTILE.values(), start=1):
        fact = FingerprintRenewed(server_id="evil-1", incarnation=1, n=n, held=())
        await send(evil, SUBJECT, headers, encode(fresh(fact)))
    await stored(reader, len(HOSTILE))
    found = await read_batch(reader, LEDGER.name, 1, 500)
    assert [message.sequence for message in found] == list(range(1, len(HOSTILE) + 1))
    assert {message.subject for message in found} == {SUBJECT}
    assert all(message.stored_at.startswith("20") for message in found)


@pytest.mark.parametrize("headers", HOSTILE.values(), ids=HOSTILE)
async def test_no_header_of_a_tenant_deafens_those_who_answer(
    platform: Platform, headers: bytes
) -> None:
    """A handler hears the next request, and every one after it, on the same connection."""
    heard: asyncio.Queue[bytes] = asyncio.Queue()
    handler = await platform.bus(Role.EVALUATOR)

    async def hear(message: object) -> None:
        heard.put_nowait(getattr(message, "data", b""))

    await handler.listen(EVALUATE.wildcard, hear)
    await (await handler.client()).flush()
    evil = await platform.bus(Role.SERVER, "evil-1")
    honest = await platform.bus(Role.SERVER, "acme-1")
    await send(evil, EVALUATE.fill({"server_id": "evil-1"}), headers, b"poison")
    await send(honest, EVALUATE.fill({"server_id": "acme-1"}), b"NATS/1.0\r\n\r\n", b"honest")
    async with asyncio.timeout(10):
        assert sorted([(await heard.get())[-6:], (await heard.get())[-6:]]) == [
            b"honest",
            b"poison",
        ]
