"""What a server can do to its neighbour by having its own answers delivered there: nothing."""

import asyncio
import re

import pytest
from nats.aio.msg import Msg

from bus_schemas.codec import encode
from bus_schemas.events import ConfigDesired
from bus_schemas.flows import Role
from bus_schemas.transport.fresh import fresh
from bus_schemas.transport.jetstream import store_raw
from tests.conftest import Platform
from vps_runtime.config.document import DesiredDocument
from vps_runtime.state import Settings

SUBJECT = "byok.v1.config.globex-1"


def document(server_id: str, owner_id: str) -> bytes:
    """Return a desired document."""
    event = ConfigDesired(server_id=server_id, owner_id=owner_id, generation=1, slots=())
    return encode(fresh(event))


async def test_a_neighbours_answers_wake_nobody_up(
    platform: Platform, monkeypatch: pytest.MonkeyPatch
) -> None:
    """They arrive where nudges do, but only a document for this server makes it look."""
    evil = await platform.bus(Role.SERVER, "acme-1")
    victim = await platform.bus(Role.SERVER, "globex-1")
    config = await platform.bus(Role.CONFIG)
    await store_raw(config, "byok.v1.config.acme-1", "a", document("acme-1", "acme"))
    arrived, looked = asyncio.Queue[bytes](), list[bytes]()

    async def arrive(message: Msg) -> None:
        arrived.put_nowait(message.data)

    settings = Settings(server_id="globex-1", owner_id="globex", url="tls://localhost:1")
    reader = DesiredDocument(victim, settings)
    await reader.listen()
    monkeypatch.setattr(reader, "nudge", lambda: looked.append(b""))
    await victim.listen(SUBJECT, arrive)
    client = await evil.client()
    own = "$JS.API.DIRECT.GET.BYOK_CONFIG.byok.v1"
    for question in (
        "byok.v1.health.acme-1",  # answered by a stream
        f"{own}.config.acme-1",  # answered by a document, somebody else's
        f"{own}.sealed.acme-1.main",  # answered by a status
    ):
        await client.publish(question, b"", reply=SUBJECT)
    async with asyncio.timeout(10):
        forged = [await arrived.get() for _ in range(3)]
        assert document_of("acme-1") in b"".join(forged)
        await store_raw(config, SUBJECT, "b", document("globex-1", "globex"))
        while not looked:
            await arrived.get()
    assert len(looked) == 1


def document_of(server_id: str) -> bytes:
    """Return words that stand in a document of *server_id*."""
    return f'"server_id":"{server_id}"'.encode()


async def test_an_inbox_cannot_be_guessed(platform: Platform) -> None:
    """In one account an answer reaches any inbox that is known, so none may be."""
    bus = await platform.bus(Role.SERVER, "acme-1")
    client = await bus.client()
    again = await (await platform.bus(Role.SERVER, "acme-1")).client()
    inboxes = [client.new_inbox(), client.new_inbox(), again.new_inbox()]
    assert all(re.fullmatch(r"_INBOX\.acme-1\.[0-9A-Za-z]{22,}", inbox) for inbox in inboxes)
    assert len({inbox[:26] for inbox in inboxes}) == 2  # one prefix for each connection
