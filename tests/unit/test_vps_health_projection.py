"""What a health report says of each slot."""

from collections.abc import Mapping

from bus_schemas.events.fingerprint import MAX_SLOTS
from bus_schemas.events.health import Receipt, SlotHealth, Validity
from bus_schemas.fields import Basis, CredentialKind, at_utc
from vps_runtime.facts.told import StoredNote
from vps_runtime.health.projection import slot_health
from vps_runtime.health.reporter import runtime_version
from vps_runtime.keys.calls import Answer
from vps_runtime.rotation.rules import SlotRotation, rotation_key
from vps_runtime.vault.credentials import Held

ID = "01890000-0000-7000-8000-000000000001"
NOW = 1_000.0
TAG = {"tag/main/2/e1/api_key": "0123abcd"}


def held(revision: int, slot: str = "main", stored_at: int = 100) -> Held:
    """Return one held API key."""
    kind, bases = CredentialKind.API_KEY, (Basis.API_KEY,)
    return Held(slot, revision, "openai", kind, ID, stored_at, bases)


def told(rotation: SlotRotation, **also: str) -> Mapping[str, str]:
    """Return a memory in which the rotation of `main` stands so."""
    return {rotation_key("main"): rotation.model_dump_json(), **also}


def only(found: tuple[SlotHealth, ...]) -> SlotHealth:
    """Return the one slot there is."""
    [slot] = found
    return slot


def test_the_revision_in_use_is_told_with_the_one_that_waits() -> None:
    """Validity and reason are those of the one in use; the age too."""
    rotation = SlotRotation(
        current=2, pending=3, newest=3, validity=Validity.INVALID, reason="invalid_grant"
    )
    kept = [held(1), held(2, stored_at=940), held(3)]
    slot = only(slot_health(kept, told(rotation), {}, NOW))
    assert slot == SlotHealth(
        slot_id="main",
        provider="openai",
        revision=2,
        pending=3,
        validity=Validity.INVALID,
        reason="invalid_grant",
        age_seconds=60,
    )
    assert only(slot_health(kept, told(rotation), {}, 50)).age_seconds == 0


def test_a_slot_that_uses_none_waits_with_its_newest() -> None:
    """Nothing is told as used that is not: neither before the first verdict nor without a word."""
    for rotation in (SlotRotation(pending=3, newest=3), SlotRotation(), SlotRotation(current=9)):
        slot = only(slot_health([held(2), held(3)], told(rotation), {}, NOW))
        assert (slot.revision, slot.pending, slot.validity) == (3, 3, Validity.UNKNOWN)


def test_what_was_ordered_out_of_use_is_told_no_more() -> None:
    """It is as good as gone; what lies above the order is not."""
    rotation = SlotRotation(floor=2, newest=2)
    assert slot_health([held(1), held(2)], told(rotation), {}, NOW) == ()
    assert only(slot_health([held(2), held(3)], told(rotation), {}, NOW)).revision == 3


def test_the_receipt_names_the_key_that_was_really_used() -> None:
    """Its tag is that revision's, once it is told, and none of a revision that is gone."""
    memory = told(SlotRotation(current=2, newest=2), **TAG)
    answer = Answer("main", 2, 200, 900.5)
    slot = only(slot_health([held(2)], memory, {"main": answer}, NOW))
    assert slot.receipt == Receipt(
        revision=2, short_tag="0123abcd", provider_status=200, at=at_utc(900.5)
    )
    older = Answer("main", 1, 429, 900.5)
    slot = only(slot_health([held(2)], memory, {"main": older}, NOW))
    assert slot.receipt == Receipt(revision=1, provider_status=429, at=at_utc(900.5))


def test_a_locked_server_tells_what_it_told_before() -> None:
    """Without the vault it knows no tag and makes no call; a stopped slot is told as such."""
    note = StoredNote(
        slot_id="main",
        revision=2,
        provider="openai",
        kind=CredentialKind.API_KEY,
        rotation_id=ID,
        stored_at=100,
    )
    memory = told(SlotRotation(current=2, newest=2), **TAG, **{"stopped/main": "x"})
    slot = only(slot_health([note], memory, {"main": Answer("main", 2, 200, 1.0)}, NOW))
    assert (slot.revision, slot.stopped) == (2, True)
    assert slot.receipt is not None
    assert slot.receipt.short_tag is None


def test_every_slot_is_told_in_order_up_to_the_most_there_may_be() -> None:
    """A report has room for so many, and more cannot come in."""
    many = [held(1, f"slot-{n:03}") for n in range(MAX_SLOTS + 1)]
    found = slot_health(reversed(many), {}, {}, NOW)
    assert [slot.slot_id for slot in found] == [entry.slot_id for entry in many[:MAX_SLOTS]]
    assert runtime_version()
