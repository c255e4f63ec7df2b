"""What the desired document asks for."""

import pytest

from bus_schemas.events.config import ConfigDesired, DesiredSlot
from bus_schemas.fields import Basis, CredentialKind
from vps_runtime.config.plan import Fetch, Known, Missing, Retire, acceptable, missing, plan
from vps_runtime.vault.credentials import Held

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


def held(*names: tuple[str, int]) -> dict[tuple[str, int], Held]:
    """Return an index of held credentials."""
    return {
        (slot_id, revision): Held(
            slot_id,
            revision,
            "anthropic",
            CredentialKind.API_KEY,
            ROTATION,
            0,
            (Basis.API_KEY,),
        )
        for slot_id, revision in names
    }


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


def test_what_is_missing_or_older_is_fetched() -> None:
    """A slot is fetched until its revision is held; a newer one held asks for nothing."""
    wanted = slot()
    assert plan(document(wanted), {}) == [Fetch(wanted)]
    assert plan(document(wanted), held(("anthropic", 2))) == [Fetch(wanted)]
    assert plan(document(wanted), held(("anthropic", 2), ("anthropic", 3))) == []
    assert plan(document(wanted), held(("anthropic", 4))) == []


def test_what_is_below_the_minimum_or_unlisted_goes_first() -> None:
    """Retired revisions and dropped slots leave the vault before anything new comes in."""
    there = held(("anthropic", 2), ("anthropic", 3), ("gone", 1))
    wanted = slot(revision=4, min_revision=3)
    assert plan(document(wanted), there) == [
        Retire(there["anthropic", 2]),
        Retire(there["gone", 1]),
        Fetch(wanted),
    ]


def test_a_slot_without_any_key_is_missing_one() -> None:
    """An older key is still a key; without one the reason tells delivery from refusal."""
    one, two = slot(), slot("openai")
    assert missing(document(one, two), held(("anthropic", 1)), {}) == [
        Missing(two, "not_delivered")
    ]
    assert missing(document(two), {}, {"openai": "expired"}) == [Missing(two, "rejected")]
