"""The config writer and its view, against a real bus."""

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey
from pydantic import SecretStr

from bus_schemas.api import SlotStep
from bus_schemas.codec import decode
from bus_schemas.credential import CredentialPayload
from bus_schemas.errors import Refused
from bus_schemas.events import (
    ConfigDesired,
    ConfigRequested,
    CredentialSealed,
    CredentialStored,
    PinsChanged,
    SealingKeyPublished,
)
from bus_schemas.fields import CredentialKind, at_utc
from bus_schemas.flows import Role
from bus_schemas.keys import sign_sealing_key
from bus_schemas.sealed import SealContext, SealedEnvelope, seal
from bus_schemas.streams import CONFIG, LEDGER
from bus_schemas.transport.credentials import parse_credentials
from bus_schemas.transport.fresh import fresh, new_id
from bus_schemas.transport.jetstream import read_batch, read_last, store
from bus_schemas.transport.ledger import Batch, Position
from bus_schemas.transport.target import BusUnavailable
from platform_handlers.config.service import ConfigHandler
from platform_handlers.config.store import FILE_NAME, ConfigStore, Purge
from platform_handlers.config.writer import ConfigWriter
from tests.conftest import Platform
from tests.facts import Ledger, pin
from tests.integration.echo import Echo

SERVER, SLOT = "acme-1", "anthropic"
DOCUMENT = f"byok.v1.config.{SERVER}"
SEALED = f"byok.v1.sealed.{SERVER}.{SLOT}"


class Owners:
    """Who owns which server, for these tests."""

    async def owner_of_active_server(self, server_id: str) -> str | None:
        """Return acme for its one server."""
        return "acme" if server_id == SERVER else None


def sealing(revision: int, *, slot: str = SLOT, server: str = SERVER) -> SealedEnvelope:
    """Return a sealed credential."""
    payload = CredentialPayload(
        secret=SecretStr("not-a-real-key"),
        base_url="https://api.anthropic.com",
        header_style="x-api-key",
    )
    context = SealContext(
        owner_id="acme",
        server_id=server,
        key_id="k1",
        slot_id=slot,
        provider="anthropic",
        kind=CredentialKind.API_KEY,
        revision=revision,
        not_after=int(time.time()) + 3600,
        envelope_id=new_id(),
    )
    return seal(
        payload,
        context,
        sealing_public_key=X25519PrivateKey.generate().public_key().public_bytes_raw(),
        owner_private_key=Ed25519PrivateKey.generate(),
    )


def stored(envelope: SealedEnvelope, n: int) -> CredentialStored:
    """Return the server's word that it has *envelope*."""
    return CredentialStored(
        server_id=SERVER,
        incarnation=1,
        n=n,
        slot_id=envelope.slot_id,
        revision=envelope.revision,
        rotation_id=envelope.envelope_id,
        observed_generation=1,
        provider=envelope.provider,
    )


async def until(enough: Callable[[], Awaitable[bool]]) -> None:
    """Wait for a fact, ten seconds at most."""
    async with asyncio.timeout(10):
        while not await enough():  # noqa: ASYNC110 (the fact lies on a server)
            await asyncio.sleep(0.02)


@dataclass
class Bench:
    """A running config handler and ways to look at the bus."""

    platform: Platform
    handler: ConfigHandler

    async def sealed(self) -> SealedEnvelope | None:
        """Return the sealed message on the bus."""
        bus = await self.platform.bus(Role.CONFIG)
        last = await read_last(bus, CONFIG.name, SEALED)
        event = decode(last.data, SEALED).data if last else None
        return event.envelope if isinstance(event, CredentialSealed) else None

    async def requested(self) -> list[ConfigRequested]:
        """Return the facts about requests."""
        ops = await self.platform.bus(Role.OPS)
        messages = await read_batch(ops, LEDGER.name, 1, 100)
        events = [decode(message.data, message.subject).data for message in messages]
        return [event for event in events if isinstance(event, ConfigRequested)]

    async def steps(self) -> list[SlotStep]:
        """Return the steps the view shows."""
        [slot] = await self.handler.view.slots_of(SERVER)
        return [step.step for step in slot.steps]


@pytest.fixture
async def bench(platform: Platform) -> AsyncIterator[Bench]:
    """A running config handler."""
    handler = await ConfigHandler.open(platform.installation, platform.server.target, Owners())
    task = asyncio.create_task(handler.run())
    await asyncio.wait_for(handler.reader.caught_up(), 10)
    yield Bench(platform, handler)
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
    await handler.close()


async def test_a_sealing_goes_from_sent_to_stored_and_off_the_bus(bench: Bench) -> None:
    """The server finds document and credential; once it has stored it, the bus holds neither."""
    envelope = sealing(1)
    server = await bench.platform.bus(Role.SERVER, SERVER)
    document = await bench.handler.writer.accept(envelope, 0)
    assert document.generation == 1
    read = await read_last(server, CONFIG.name, DOCUMENT)
    assert read is not None
    assert decode(read.data, DOCUMENT).data == document
    assert await bench.sealed() == envelope
    assert await bench.steps() == [SlotStep.SENT]
    await store(server, fresh(stored(envelope, 1)))

    async def gone() -> bool:
        return await bench.sealed() is None

    await until(gone)
    assert await bench.steps() == [SlotStep.SENT, SlotStep.STORED]
    assert await bench.handler.view.newest_revision(SERVER, SLOT) == 1
    assert await bench.handler.view.newest_revision(SERVER, "other") == 0


async def test_the_same_sealing_again_changes_nothing(bench: Bench) -> None:
    """An owner whose answer got lost sends it again and gets the same answer."""
    envelope = sealing(1)
    first = await bench.handler.writer.accept(envelope, 0)
    assert await bench.handler.writer.accept(envelope, 0) == first
    bus = await bench.platform.bus(Role.CONFIG)
    last = await read_last(bus, CONFIG.name, DOCUMENT)
    assert last is not None
    assert last.sequence == 2  # one sealed message, one document


async def test_a_stale_base_is_refused(bench: Bench) -> None:
    """Of two sealings on top of the same revision one wins, and its credential stays."""
    winner, loser = sealing(1), sealing(2)
    await bench.handler.writer.accept(winner, 0)
    with pytest.raises(Refused, match="stale_base_revision"):
        await bench.handler.writer.accept(loser, 0)
    assert await bench.sealed() == winner


async def test_two_at_once_leave_one_winner_and_its_credential(bench: Bench) -> None:
    """Two writers by mistake: one document wins and the bus holds the credential it asks for."""
    second = ConfigWriter(await bench.platform.bus(Role.CONFIG), Owners())
    for round_ in range(5):
        rivals = [sealing(round_ + 1), sealing(round_ + 1)]
        answers = await asyncio.gather(
            bench.handler.writer.accept(rivals[0], round_),
            second.accept(rivals[1], round_),
            return_exceptions=True,
        )
        assert {type(answer) for answer in answers} == {ConfigDesired, Refused}
        document = await bench.handler.writer.document(SERVER)
        assert document is not None
        assert isinstance(document.data, ConfigDesired)
        held = await bench.sealed()
        assert held is not None
        assert document.data.slots[0].rotation_id == held.envelope_id


async def test_a_server_that_is_not_active_is_not_configured(bench: Bench) -> None:
    """Nothing is put on the bus for a server that was turned away."""
    with pytest.raises(Refused, match="server_not_active"):
        await bench.handler.writer.accept(sealing(1, server="acme-9"), 0)


async def test_a_lost_acknowledgement_is_recognised(bench: Bench) -> None:
    """A conflict with our own message means that it was written: one generation, not two."""
    installation = bench.platform.installation
    credentials = parse_credentials(installation.credentials(Role.CONFIG).read_text())
    bus = await Echo(bench.platform.server.target, "config", lambda: credentials).open()
    try:
        envelope = sealing(1)
        document = await ConfigWriter(bus, Owners()).accept(envelope, 0)
    finally:
        await bus.close()
    assert document.generation == 1
    held = await bench.handler.writer.document(SERVER)
    assert held is not None
    assert held.data == document
    assert await bench.sealed() == envelope


async def test_a_newer_sealing_survives_the_purge_of_an_older_one(bench: Bench) -> None:
    """`stored` of revision 1 that comes late must not take revision 2 off the bus."""
    first, second = sealing(1), sealing(2)
    server = await bench.platform.bus(Role.SERVER, SERVER)
    await bench.handler.writer.accept(first, 0)
    await bench.handler.writer.accept(second, 1)
    await store(server, fresh(stored(first, 1)))
    path = bench.platform.installation.platform / FILE_NAME
    other = await ConfigStore.open(path)

    async def folded() -> bool:
        position = await other.position()
        return position is not None and position.sequence >= 3 and not await other.purges()

    await until(folded)
    assert await bench.sealed() == second
    assert await bench.steps() == [SlotStep.SENT]
    await other.close()


async def test_purges_wait_in_the_store(bench: Bench) -> None:
    """A purge is forgotten only up to the revision that was purged."""
    database = bench.platform.installation.platform / "other.db"
    store_ = await ConfigStore.open(database)
    await store_.database.execute("INSERT INTO purges VALUES ('acme-1', 'a', 2)")
    await store_.purged(Purge("acme-1", "a", 1))
    assert await store_.purges() == [Purge("acme-1", "a", 2)]
    await store_.purged(Purge("acme-1", "a", 2))
    assert await store_.purges() == []
    await store_.close()


async def test_the_newest_announcements_are_shown(bench: Bench) -> None:
    """Sealing key and pins are the newest the server announced; another server's key is not."""
    server = await bench.platform.bus(Role.SERVER, SERVER)
    identity = Ed25519PrivateKey.generate()

    def announced(n: int, key_id: str, of: str = SERVER) -> SealingKeyPublished:
        key = sign_sealing_key(
            identity,
            server_id=of,
            key_id=key_id,
            public_key=X25519PrivateKey.generate().public_key().public_bytes_raw(),
            not_after=at_utc(time.time() + 3600),
        )
        return SealingKeyPublished(server_id=SERVER, incarnation=1, n=n, signed_key=key)

    view = bench.handler.view
    assert await view.sealing_key(SERVER) is None
    assert await view.pins(SERVER) is None
    assert await view.slots_of(SERVER) == []
    for fact in (announced(2, "k2"), announced(1, "k1"), announced(3, "k3", "acme-2")):
        await store(server, fresh(fact))
    pins = ("A" * 20,)
    await store(server, fresh(PinsChanged(server_id=SERVER, incarnation=1, n=4, pinned=pins)))

    async def shown() -> bool:
        return await view.pins(SERVER) == pins

    await until(shown)
    key = await view.sealing_key(SERVER)
    assert key is not None
    assert key.key_id == "k2"


async def test_another_machine_has_neither_the_keys_nor_the_pins_of_the_one_before(
    bench: Bench,
) -> None:
    """Else owners would seal to a key that nobody has; what the new one says then counts."""
    store_ = await ConfigStore.open(bench.platform.installation.platform / "other.db")
    ledger, pins = Ledger(), tuple("ABC")
    ledger.unlocked(SERVER, 1)
    word = ledger.pinned(SERVER, pins)
    again = ledger.reenrolled(SERVER, "acme")
    await store_.apply(Batch(tuple(ledger.facts), (), Position("then", 3, "digest")))
    assert await store_.pins(SERVER) is None
    ledger.add(word.envelope.data)  # the old machine's, once more
    assert await applied(store_, ledger) is None
    ledger.pinned(SERVER, pins, 2)
    ledger.add(again.envelope.data)
    assert await applied(store_, ledger) == tuple(map(pin, pins))
    await store_.close()


async def applied(store_: ConfigStore, ledger: Ledger) -> tuple[str, ...] | None:
    """Have the newest two facts folded and return the pins known then."""
    facts = tuple(ledger.facts[-2:])
    await store_.apply(Batch(facts, (), Position("then", facts[-1].sequence, "digest")))
    return await store_.pins(SERVER)


async def test_a_server_cannot_read_its_neighbours_credential(bench: Bench) -> None:
    """The sealed message is for one server; NATS stops the read of any other."""
    await bench.handler.writer.accept(sealing(1), 0)
    neighbour = await bench.platform.bus(Role.SERVER, "acme-2")
    with pytest.raises(BusUnavailable):
        await neighbour.request(f"$JS.API.DIRECT.GET.{CONFIG.name}.{SEALED}", b"", wait=0.3)


async def test_a_restart_continues_where_it_was(bench: Bench) -> None:
    """Requests are told in the ledger without ciphertext, once per accepted sealing."""
    envelope = sealing(1)
    await bench.handler.writer.accept(envelope, 0)
    [requested] = await bench.requested()
    assert requested.slot.rotation_id == envelope.envelope_id
    assert requested.generation == 1
