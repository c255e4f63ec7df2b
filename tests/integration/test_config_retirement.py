"""A retired revision leaves the bus, and a replaced machine's report is not its successor's."""

import asyncio
import time
from collections.abc import AsyncIterator

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from bus_schemas.errors import Refused
from bus_schemas.events import ConfigRequested, HealthReported, ServerReenrolled, ServerUnlocked
from bus_schemas.events.health import SlotHealth, Validity
from bus_schemas.fields import at_utc
from bus_schemas.flows import Role
from bus_schemas.orders import Addressee, Instruction, OrderKind, Stamp, sign_order
from bus_schemas.streams import CONFIG, LEDGER
from bus_schemas.transport.fresh import fresh, new_id
from bus_schemas.transport.jetstream import read_last, store
from platform_handlers.config.service import ConfigHandler
from tests.conftest import Platform
from tests.facts import Ledger
from tests.following import events_of, messages_once
from tests.integration.test_config_handler import SEALED, SERVER, SLOT, Owners, sealing, until

TO = Addressee("acme", SERVER, bytes(range(32)))
OWNER = Ed25519PrivateKey.generate()


@pytest.fixture
async def handler(platform: Platform) -> AsyncIterator[ConfigHandler]:
    """A running config handler."""
    handler = await ConfigHandler.open(platform.installation, platform.server.target, Owners())
    task = asyncio.create_task(handler.run())
    await asyncio.wait_for(handler.reader.caught_up(), 10)
    yield handler
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
    await handler.close()


async def test_a_retired_revision_leaves_the_bus_and_a_newer_one_takes_its_place(
    platform: Platform, handler: ConfigHandler
) -> None:
    """Sealed as it is, nobody should keep it; the next sealing goes on top as ever."""
    bus = await platform.bus(Role.CONFIG)
    old, new = sealing(1), sealing(2)
    await handler.writer.accept(old, 0)
    stamp = Stamp(new_id(), 1, at_utc(time.time() + 60))
    retire = sign_order(OWNER, TO, Instruction(OrderKind.RETIRE, SLOT, "1"), stamp)
    document = await handler.orders.give(TO, retire)
    ledger = await platform.bus(Role.FINGERPRINT)
    told = events_of(await messages_once(ledger, LEDGER, lambda found: len(found) == 2))
    assert [fact.slot.min_revision for fact in told if isinstance(fact, ConfigRequested)] == [0, 2]
    assert [(slot.revision, slot.min_revision) for slot in document.slots] == [(1, 2)]
    assert await read_last(bus, CONFIG.name, SEALED) is None
    with pytest.raises(Refused, match="revision_retired"):
        await handler.writer.accept(old, 0)
    [slot] = (await handler.writer.accept(new, 1)).slots
    assert (slot.revision, slot.min_revision) == (2, 2)
    await handler.orders.give(TO, retire)  # the same once more: its answer got lost
    assert await read_last(bus, CONFIG.name, SEALED) is not None


async def test_the_machine_that_was_there_before_reports_nothing_any_more(
    platform: Platform, handler: ConfigHandler
) -> None:
    """Its last report lies on the bus for a day; the new machine holds nothing of it."""
    await handler.writer.accept(sealing(2), 0)
    ledger = Ledger()
    unlocked = ledger.unlocked(SERVER, 1).envelope.data
    reenrolled = ledger.reenrolled(SERVER, "acme").envelope.data
    assert isinstance(unlocked, ServerUnlocked)
    assert isinstance(reenrolled, ServerReenrolled)
    await store(await platform.bus(Role.SERVER, SERVER), fresh(REPORT))
    standing = await handler.view.standing(SERVER)
    assert (standing.locked, standing.slots[0].in_use) == (True, 0)
    await store(await platform.bus(Role.EVALUATOR), fresh(unlocked))
    await store(await platform.bus(Role.ISSUER), fresh(reenrolled))

    async def forgotten() -> bool:
        return (await handler.view.standing(SERVER)).reported_at is None

    await until(forgotten)
    assert (await handler.view.slots_of(SERVER))[0].in_use is None


REPORT = HealthReported(
    server_id=SERVER,
    incarnation=1,
    n=1,
    observed_generation=1,
    runtime_version="1",
    outbox_depth=0,
    slots=(
        SlotHealth(
            slot_id=SLOT,
            provider="anthropic",
            revision=2,
            validity=Validity.VALID,
            age_seconds=1,
        ),
    ),
    locked=True,
)
