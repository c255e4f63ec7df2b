"""What is still to be told: the vault against the memory."""

import json

from bus_schemas.fields import Basis, CredentialKind
from vps_runtime.facts.told import (
    TagKey,
    closed_epochs,
    gone_forgets,
    is_noted,
    last_revision,
    missing_tags,
    note_of,
    notes,
    rejected_key,
    rejections,
    renewal_due,
    settled,
    stored_memory,
    to_tell_gone,
    to_tell_stored,
)
from vps_runtime.vault.credentials import Held

ROTATION = "01890000-0000-7000-8000-000000000001"
DAY = 24 * 3600


def entry(slot: str = "anthropic", revision: int = 1, *bases: Basis) -> Held:
    """Return a held credential."""
    kind = CredentialKind.API_KEY
    return Held(slot, revision, "anthropic", kind, ROTATION, 9, bases or (Basis.API_KEY,))


def test_what_was_told_is_not_told_again() -> None:
    """Told once, an entry is remembered with all that its retirement will need."""
    one, two = entry(revision=1), entry(revision=2)
    told = stored_memory(one)
    assert to_tell_stored([two, one], {}) == [one, two]
    assert to_tell_stored([two, one], told) == [two]
    [note] = notes(told)
    assert (note.rotation_id, note.provider, note.stored_at) == (ROTATION, "anthropic", 9)


def test_what_is_gone_from_the_vault_is_told_as_retired() -> None:
    """A kill between removing and telling leaves exactly this difference."""
    one, two = entry(revision=1), entry(revision=2)
    told = (
        stored_memory(one)
        | stored_memory(two)
        | {TagKey("anthropic", 1, "e1", Basis.API_KEY).key: "1"}
    )
    [note] = to_tell_gone({("anthropic", 2): two}, told)
    assert note.revision == 1
    for key in gone_forgets(note, told):
        del told[key]
    assert to_tell_gone({("anthropic", 2): two}, told) == []
    assert not [key for key in told if key.startswith("tag/")]


def test_a_slot_whose_name_begins_like_another_keeps_its_tags() -> None:
    """Revision 1 and 10, slot `a` and `a-b`: one's retirement forgets nothing of the other."""
    told = stored_memory(entry("a", 1))
    kept = {
        TagKey("a", 10, "e1", Basis.API_KEY).key: "1",
        TagKey("a-b", 1, "e1", Basis.API_KEY).key: "1",
    }
    [note] = notes(told)
    assert not set(gone_forgets(note, told | kept)) & set(kept)


def test_every_basis_is_told_under_every_epoch() -> None:
    """During an overlap each tag is told twice; settled means all of one epoch's."""
    both = entry("openai", 1, Basis.OAUTH_GRANT, Basis.OAUTH_ACCOUNT)
    first = missing_tags([both], ["e1", "e2"], {})
    assert len(first) == 4
    told = {tag.key: "1" for tag in first if tag.epoch == "e1"}
    assert {tag.epoch for tag in missing_tags([both], ["e1", "e2"], told)} == {"e2"}
    assert settled([both], "e1", told) == [both]
    assert settled([both], "e2", told) == []
    assert len(closed_epochs(["e2"], told)) == 2
    assert closed_epochs(["e1"], told | {"pins": ""}) == []


def test_the_last_revision_outlives_its_credential() -> None:
    """A retired revision never comes in again; one that was stored and not yet told counts too."""
    told = stored_memory(entry(revision=7))
    assert last_revision("anthropic", told, []) == 7
    assert last_revision("anthropic", told, [("anthropic", 8), ("openai", 9)]) == 8
    assert last_revision("other", told, []) == 0


def test_a_renewal_is_told_daily_once_something_was_held() -> None:
    """An empty new server has nothing to renew; a clock set back makes it due."""
    assert not renewal_due({}, 5 * DAY)
    assert renewal_due(stored_memory(entry()), 5 * DAY)
    assert not renewal_due({"renewed": str(4 * DAY + 1)}, 5 * DAY)
    assert renewal_due({"renewed": str(4 * DAY)}, 5 * DAY)
    assert renewal_due({"renewed": str(6 * DAY)}, 5 * DAY)


def test_the_memory_holds_nothing_secret() -> None:
    """It lies in the clear on the disk: names and numbers only."""
    fields = json.loads(next(v for k, v in stored_memory(entry()).items() if k.startswith("held")))
    assert set(fields) == {"slot_id", "revision", "provider", "kind", "rotation_id", "stored_at"}


def test_a_note_is_found_by_slot_and_revision() -> None:
    """Who tells a step of a rotation needs the rotation's id."""
    told = stored_memory(entry(revision=2))
    assert note_of("anthropic", 2, told).rotation_id == ROTATION
    assert is_noted("anthropic", 2, told)
    assert not is_noted("anthropic", 1, told)


def test_why_the_newest_was_refused_is_known_by_slot() -> None:
    """For the status, and for the reason why a key is missing."""
    assert rejections({rejected_key("a"): "7/expired", "pins": ""}) == {"a": "expired"}
