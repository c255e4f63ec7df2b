"""What one server may make the config handler remember."""

from pathlib import Path

import pytest

from bus_schemas.event import Event
from bus_schemas.events import (
    ConfigRequested,
    CredentialNeedsKey,
    CredentialStored,
    OrderAnswered,
    PinsChanged,
    ServerReenrolled,
    ServerUnlocked,
)
from bus_schemas.events.config import DesiredSlot
from bus_schemas.fields import CredentialKind, at_utc
from bus_schemas.transport.fresh import fresh
from bus_schemas.transport.ledger import Batch, Fact, Position
from platform_handlers.config.orders.book import answers_of
from platform_handlers.config.store import FILE_NAME, MAX_REPORTED_SLOTS, ConfigStore

LAST = 2**53 - 1
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


def words(incarnation: int, n: int, pin: str) -> list[Event]:
    """Return what one machine says of everything, from *n* down, as a thief would say it."""
    told = {"server_id": "evil-1", "incarnation": incarnation}
    answer = OrderAnswered.model_validate(
        told
        | {"n": n, "order_id": ROTATION, "order_n": 1, "kind": "lock", "outcome": "refused"}
        | {"reason": "replayed", "last_n": n}
    )
    pins = PinsChanged.model_validate(told | {"n": n - 1, "pinned": [pin * 20]})
    stamp = {"incarnation": incarnation, "n": n - 2, "revision": n}
    return [answer, pins, stored(1, "main").model_copy(update=stamp)]


@pytest.mark.parametrize("size", [1, 4, 100])
@pytest.mark.parametrize("first", [1, LAST])
async def test_nothing_that_a_former_machine_said_outlives_it(
    tmp_path: Path, first: int, size: int
) -> None:
    """However high it counted, and if it says so again: the next machine is heard.

    The evaluator tells which starts were its own.
    """
    store = await ConfigStore.open(tmp_path / FILE_NAME)
    old = words(first, LAST, "A")
    again = ServerReenrolled(
        server_id="evil-1", owner_id="acme", nkey="U" + "A" * 55, identity_key=bytes(32)
    )
    start = ServerUnlocked(server_id="evil-1", incarnation=1)
    late = words(1, LAST, "A")
    await fold(store, start, *old, again, *late, size=size)
    assert await answers_of(store.database, "evil-1") == (0, ())
    assert await store.pins("evil-1") is None
    assert await store.progress("evil-1") == {}
    start = ServerUnlocked(server_id="evil-1", incarnation=2)
    await fold(store, *words(2, 9, "B"), start, again, *late, size=size)
    last_n, [answer] = await answers_of(store.database, "evil-1")
    assert (last_n, answer.n) == (9, 1)
    assert await store.pins("evil-1") == ("B" * 20,)
    assert (await store.progress("evil-1"))["main"].revision == 9
    await store.close()


@pytest.mark.parametrize("size", [1, 100])
async def test_what_the_platform_sent_is_what_the_next_machine_misses(
    tmp_path: Path, size: int
) -> None:
    """Its `needs-key` is about that revision; else it would be shown as on its way for ever."""
    store = await ConfigStore.open(tmp_path / FILE_NAME)
    asked = DesiredSlot(
        slot_id="main",
        provider="openai",
        kind=CredentialKind.API_KEY,
        revision=1,
        min_revision=0,
        rotation_id=ROTATION,
    )
    sent = ConfigRequested(server_id="evil-1", owner_id="acme", generation=1, slot=asked)
    again = ServerReenrolled(
        server_id="evil-1", owner_id="acme", nkey="U" + "A" * 55, identity_key=bytes(32)
    )
    missed = CredentialNeedsKey(
        server_id="evil-1",
        incarnation=2,
        n=1,
        slot_id="main",
        provider="openai",
        reason="not_delivered",
    )
    begun = ServerUnlocked(server_id="evil-1", incarnation=1)
    await fold(store, begun, sent, stored(1, "main"), again, missed, size=size)
    steps = (await store.progress("evil-1"))["main"].steps
    assert [(step.step, step.revision) for step in steps] == [("sent", 1), ("needs-key", 1)]
    await store.close()
