"""What the desired document asks for."""

import pytest

from bus_schemas.events.config import ConfigDesired, DesiredSlot
from bus_schemas.fields import CredentialKind
from vps_runtime.config.plan import Fetch, Known, Missing, Retire, acceptable, missing, plan
from vps_runtime.rotation.rules import SlotRotation

ROTATION = "01890000-0000-7000-8000-000000000001"


def slot(slot_id: str = "anthropic", revision: int = 3, min_revision: int = 0) -> DesiredSlot:
    """Return a slot of a document."""
    return DesiredSlot(
        slot_id=slot_id,
        provider="anthropic",
        kind=CredentialKind.API_KEY,
        revision=revision,
        min_revision=min_revision,
        rotation_id=ROTATION,
    )


def document(
    *slots: DesiredSlot, generation: int = 7, server_id: str = "acme-1", owner_id: str = "acme"
) -> ConfigDesired:
    """Return a desired document."""
    return ConfigDesired(server_id=server_id, owner_id=owner_id, generation=generation, slots=slots)


@pytest.mark.parametrize(
    ("found", "expected"),
    [
        (document(), True),
        (document(generation=8), True),
        (document(generation=6), False),
        (document(server_id="acme-2"), False),
        (document(owner_id="globex"), False),
    ],
)
def test_only_our_own_newest_document_counts(found: ConfigDesired, *, expected: bool) -> None:
    """A document of somebody else, or older than one acted on, changes nothing."""
    assert acceptable(found, Known("acme-1", "acme", 7)) is expected


def test_what_is_newer_than_anything_taken_in_is_fetched() -> None:
    """Neither what is held, nor what was given up or refused since, is fetched once more."""
    wanted = slot()
    assert plan(document(wanted), {}, {}) == [Fetch(wanted)]
    assert plan(document(wanted), {}, {"anthropic": 2}) == [Fetch(wanted)]
    assert plan(document(wanted), {}, {"anthropic": 3}) == []
    assert plan(document(wanted), {}, {"anthropic": 4}) == []


def test_what_is_retired_is_not_fetched_even_if_it_never_came() -> None:
    """The order to retire it may be faster than its sealing; the document may say so, too."""
    retired = {"anthropic": SlotRotation(floor=3)}
    assert plan(document(slot()), retired, {}) == []
    assert plan(document(slot(revision=4)), retired, {}) == [Fetch(slot(revision=4))]
    assert plan(document(slot(min_revision=4)), {}, {}) == []


def test_what_is_below_the_minimum_or_unlisted_goes_first() -> None:
    """Revisions that may not be used go out of use before anything new comes in; and once."""
    wanted = slot(revision=4, min_revision=3)
    there = {"anthropic": 3, "gone": 1}
    assert plan(document(wanted), {}, there) == [
        Retire("anthropic", 2),
        Retire("gone", 1),
        Fetch(wanted),
    ]
    then = {"anthropic": SlotRotation(floor=2), "gone": SlotRotation(floor=1)}
    assert plan(document(wanted), then, there) == [Fetch(wanted)]


def test_no_document_can_end_a_slot_for_good() -> None:
    """It retires what is there, however high its minimum; a platform come to itself can go on."""
    raised = slot(min_revision=2**53 - 1)
    assert plan(document(raised), {}, {"anthropic": 3}) == [Retire("anthropic", 3)]
    assert plan(document(raised), {"anthropic": SlotRotation(floor=3)}, {"anthropic": 3}) == []
    assert plan(document(raised), {}, {"anthropic": 0}) == []


def test_a_slot_without_any_key_is_missing_one() -> None:
    """An older key is still a key; without one the reason tells why there is none."""
    one, two = slot(), slot("openai")
    assert missing(document(one, two), {"anthropic"}, {}, {}) == [Missing(two, "not_delivered")]
    assert missing(document(two), (), {"openai": "expired"}, {}) == [Missing(two, "rejected")]
    retired = {"openai": SlotRotation(floor=3)}
    assert missing(document(two), (), {"openai": "expired"}, retired) == [Missing(two, "retired")]
    raised = slot("openai", min_revision=4)
    assert missing(document(raised), (), {}, {}) == [Missing(raised, "retired")]
