"""What one server may make the config handler remember."""

from pathlib import Path

from bus_schemas.event import Event
from bus_schemas.events import ConfigRequested, CredentialStored
from bus_schemas.events.config import DesiredSlot
from bus_schemas.fields import CredentialKind, at_utc
from bus_schemas.transport.fresh import fresh
from bus_schemas.transport.ledger import Batch, Fact, Position
from platform_handlers.config.store import FILE_NAME, MAX_REPORTED_SLOTS, ConfigStore

ROTATION = "0198f0a0-0000-7000-8000-000000000000"


def stored(n: int, slot_id: str) -> CredentialStored:
    """Return evil-1's word about a slot."""
    return CredentialStored(
        server_id="evil-1",
        incarnation=1,
        n=n,
        slot_id=slot_id,
        revision=1,
        rotation_id=ROTATION,
        observed_generation=1,
        provider="openai",
    )


async def fold(store: ConfigStore, *events: Event, size: int) -> None:
    """Fold *events* in batches of *size*."""
    for at in range(0, len(events), size):
        facts = tuple(Fact(at + 1, at_utc(0), fresh(e)) for e in events[at : at + size])
        await store.apply(Batch(facts, (), Position("x", at + len(facts), "")))


async def test_slots_that_a_server_invents_are_forgotten_beyond_a_number(tmp_path: Path) -> None:
    """Else each of its facts would cost as much as all before it; what the owner asked for stays.

    How the facts are grouped makes no difference.
    """
    invented = [stored(n, f"s-{n}") for n in range(1, 3 * MAX_REPORTED_SLOTS)]
    asked = DesiredSlot(
        slot_id="real",
        provider="openai",
        kind=CredentialKind.API_KEY,
        revision=1,
        min_revision=0,
        rotation_id=ROTATION,
    )
    real = ConfigRequested(server_id="evil-1", owner_id="acme", generation=1, slot=asked)
    ends = []
    for size in (7, 1000):
        store = await ConfigStore.open(tmp_path / f"{size}-{FILE_NAME}")
        await fold(store, *invented, real, stored(9999, "real"), size=size)
        ends.append(await store.progress("evil-1"))
        assert len(await store.purges()) == MAX_REPORTED_SLOTS + 1
        await store.close()
    assert len(ends[0]) == MAX_REPORTED_SLOTS + 1
    assert [step.step for step in ends[0]["real"].steps] == ["sent", "stored"]
    assert ends[0] == ends[1]
