"""How far a slot's newest credential has come."""

from datetime import timedelta

import pytest

from bus_schemas.api import SlotStep
from bus_schemas.events import (
    ClockTicked,
    CredentialInUse,
    CredentialNeedsKey,
    CredentialRejected,
    CredentialRetired,
    CredentialStored,
    CredentialVerified,
)
from bus_schemas.events.reported import RotationStep
from platform_handlers.config.projection import (
    MAX_STEPS,
    Progress,
    SlotFact,
    fold,
    is_slot_fact,
    slot_of,
)
from platform_handlers.config.view import slot_view
from tests.one_slot import AT, requested, slot, step


def stored(revision: int, n: int) -> RotationStep:
    """Return `stored`."""
    return step(CredentialStored, revision, n, provider="anthropic")


def needs_key(n: int) -> CredentialNeedsKey:
    """Return `needs-key`."""
    return CredentialNeedsKey(
        server_id="acme-1",
        incarnation=2,
        n=n,
        slot_id="anthropic",
        provider="anthropic",
        reason="re_enrolled",
    )


def folded(*facts: SlotFact) -> Progress:
    """Return what *facts* add up to, a second apart."""
    progress = Progress()
    for seconds, fact in enumerate(facts):
        progress = fold(progress, fact, at=AT + timedelta(seconds=seconds))
    return progress


def steps(progress: Progress) -> list[str]:
    """Return the names of the steps."""
    return [view.step.value for view in progress.steps]


def test_steps_of_the_newest_revision_are_kept_in_order() -> None:
    """From sent to in use, with the provider's verdict."""
    progress = folded(
        requested(1),
        stored(1, 1),
        step(CredentialVerified, 1, 2, verdict="valid"),
        step(CredentialInUse, 1, 3, provider_status=200),
    )
    assert steps(progress) == ["sent", "stored", "verified", "in-use"]
    assert [view.reason for view in progress.steps] == [None, None, "valid", None]
    assert progress.steps[1].at == AT + timedelta(seconds=1)


def test_a_new_revision_begins_anew() -> None:
    """What happened to the old one is history, and its late steps are no progress."""
    progress = folded(
        requested(1), stored(1, 1), requested(2), step(CredentialRetired, 1, 2), stored(2, 3)
    )
    assert steps(progress) == ["sent", "stored"]
    assert progress.revision == 2
    assert steps(fold(progress, requested(1), at=AT)) == ["sent", "stored"]


def test_a_fact_told_twice_counts_once() -> None:
    """An outbox may send again; the pair (incarnation, n) tells."""
    once = folded(requested(1), stored(1, 1))
    assert fold(once, stored(1, 1), at=AT) == once
    assert fold(once, requested(1), at=AT) == once


def test_a_server_may_be_faster_than_the_request() -> None:
    """It acts on the document, which is written before the fact about it."""
    progress = folded(stored(1, 1), requested(1))
    assert steps(progress) == ["sent", "stored"]
    assert progress.steps[0].at == progress.steps[1].at


def test_a_refusal_says_why() -> None:
    """The reason code is the server's."""
    progress = folded(requested(1), step(CredentialRejected, 1, 1, reason="bad_signature"))
    assert progress.steps[-1].reason == "bad_signature"


def test_a_slot_without_a_key_says_so() -> None:
    """Whatever revision was asked for, the server holds none that works."""
    assert steps(folded(requested(3), stored(3, 9), needs_key(1))) == [
        "sent",
        "stored",
        "needs-key",
    ]
    alone = folded(needs_key(1))
    assert alone.steps[0].revision == 0
    assert alone.steps[0].reason == "re_enrolled"


def test_the_list_of_steps_is_bounded() -> None:
    """A server that repeats itself cannot make the record grow for ever."""
    progress = folded(requested(1), *(stored(1, n) for n in range(1, 50)))
    assert len(progress.steps) == MAX_STEPS
    flooded = folded(*(stored(1, n) for n in range(1, 50)), requested(1))
    assert len(flooded.steps) == MAX_STEPS


@pytest.mark.parametrize("fact", [requested(1), stored(1, 1), needs_key(1)])
def test_facts_about_slots_name_their_slot(fact: SlotFact) -> None:
    """The store finds the record by it."""
    assert is_slot_fact(fact)
    assert slot_of(fact) == ("acme-1", "anthropic")


def test_other_facts_are_none_of_its_business() -> None:
    """The clock is not about a slot."""
    assert not is_slot_fact(ClockTicked(minute=1))


def test_the_document_rules_where_the_ledger_lags() -> None:
    """A newer revision in the document shows as sent, without the old one's steps."""
    old = folded(requested(1), stored(1, 1))
    assert [s.step for s in slot_view(slot(2), old, written_at=AT).steps] == [SlotStep.SENT]
    assert [s.step for s in slot_view(slot(1), None, written_at=AT).steps] == [SlotStep.SENT]
    current = slot_view(slot(1), old, written_at=AT)
    assert current.latest.step is SlotStep.STORED
    assert (current.provider, current.kind, current.revision) == ("anthropic", "api_key", 1)
