"""The history of a slot's rotations, and what its owner is shown of it."""

from datetime import timedelta

from bus_schemas.api import SlotStep
from bus_schemas.events import (
    CredentialAborted,
    CredentialInUse,
    CredentialNeedsKey,
    CredentialRetired,
    CredentialStored,
    CredentialVerified,
    HealthReported,
)
from bus_schemas.events.health import Receipt, SlotHealth, Validity
from platform_handlers.config.projection import (
    MAX_ALL_STEPS,
    MAX_ROTATIONS,
    MAX_STEPS,
    Progress,
    SlotFact,
    as_sent,
    fold,
)
from platform_handlers.config.view import history_view, slot_view, with_report
from tests.one_slot import AT, requested, slot, step


def folded(*facts: SlotFact, onto: Progress | None = None) -> Progress:
    """Return what *facts* add up to, a second apart."""
    progress = onto or Progress()
    for seconds, fact in enumerate(facts):
        progress = fold(progress, fact, at=AT + timedelta(seconds=seconds))
    return progress


def told(progress: Progress) -> dict[int, list[str]]:
    """Return the names of the steps, by revision."""
    history = history_view("acme-1", "anthropic", progress)
    return {r.revision: [view.step.value for view in r.steps] for r in history.rotations}


def test_each_rotation_keeps_its_own_steps() -> None:
    """What is told late of an older revision belongs to that one's history."""
    progress = folded(
        requested(1),
        step(CredentialStored, 1, 1, provider="anthropic"),
        step(CredentialVerified, 1, 2, verdict="valid", promoted=True),
        requested(2),
        step(CredentialStored, 2, 3, provider="anthropic"),
        step(CredentialVerified, 2, 4, verdict="unknown", promoted=True),
        step(CredentialRetired, 1, 5),
        step(CredentialInUse, 2, 6, provider_status=200),
    )
    assert told(progress) == {
        1: ["sent", "stored", "verified", "retired"],
        2: ["sent", "stored", "verified", "in-use"],
    }
    forced = progress.steps[2]
    assert (forced.reason, forced.promoted) == ("unknown", True)
    assert progress.steps[1].promoted is None
    assert folded(step(CredentialRetired, 1, 5), onto=progress) == progress


def test_another_machine_is_told_to_miss_what_was_sent_last() -> None:
    """Of all that is known of the slot only that is the platform's word; a lie goes with it."""
    known = folded(
        requested(4),
        requested(5),
        step(CredentialStored, 5, 1, provider="anthropic"),
        step(CredentialStored, 2**53 - 1, 2, provider="anthropic"),
    )
    left = as_sent(known)
    assert told(left) == {5: ["sent"]}
    missed = CredentialNeedsKey(
        server_id="acme-1",
        incarnation=2,
        n=1,
        slot_id="anthropic",
        provider="anthropic",
        reason="not_delivered",
    )
    shown = slot_view(slot(5), folded(missed, onto=left), written_at=AT)
    assert [view.step for view in shown.steps] == [SlotStep.SENT, SlotStep.NEEDS_KEY]
    assert as_sent(folded(step(CredentialStored, 7, 1, provider="anthropic"))) == Progress()


def test_an_order_to_retire_a_revision_sends_none() -> None:
    """It comes as a request whose slot is below the lowest revision that is taken."""
    order = requested(2).model_copy(update={"slot": slot(2).model_copy(update={"min_revision": 3})})
    assert folded(order) == Progress()
    known = folded(requested(2))
    assert folded(order, onto=known) == known


def test_only_the_newest_rotations_are_kept() -> None:
    """A slot that is rotated for years, or a server that invents revisions, fills no disk."""
    progress = folded(*(step(CredentialRetired, r, r) for r in range(1, 100)))
    assert list(told(progress)) == list(range(100 - MAX_ROTATIONS, 100))
    chatty = [
        step(CredentialAborted, n // 50 + 1, n, reason="superseded") for n in range(1, 50 * 40)
    ]
    kept = told(folded(*chatty))
    assert max(len(steps) for steps in kept.values()) == MAX_STEPS
    assert sum(len(steps) for steps in kept.values()) <= MAX_ALL_STEPS
    assert max(kept) == 40


def test_a_late_request_finds_its_place_without_pushing_out_the_newest_step() -> None:
    """It comes first, also where the steps are as many as can be."""
    many = [step(CredentialAborted, 1, n, reason="superseded") for n in range(1, MAX_STEPS + 9)]
    progress = folded(*many, step(CredentialRetired, 1, 100), requested(1))
    assert (progress.steps[0].step, progress.steps[-1].step) == (SlotStep.SENT, SlotStep.RETIRED)
    assert len(progress.steps) == MAX_STEPS


def test_that_nothing_is_held_is_no_rotation() -> None:
    """A server may want a key before any was sent: there is no revision to tell of."""
    fact = CredentialNeedsKey(
        server_id="acme-1",
        incarnation=1,
        n=1,
        slot_id="anthropic",
        provider="anthropic",
        reason="never_delivered",
    )
    assert told(folded(fact)) == {}
    assert history_view("acme-1", "anthropic", Progress()).rotations == ()


def test_the_document_rules_over_what_a_server_makes_up() -> None:
    """The steps shown are those of the newest sealed revision, or of one that is newer still."""
    progress = folded(requested(1), requested(2), step(CredentialRetired, 1, 1))
    assert [s.step for s in slot_view(slot(2), progress, written_at=AT).steps] == ["sent"]
    assert slot_view(slot(1), progress, written_at=AT).latest.revision == 2
    assert slot_view(slot(3), progress, written_at=AT).latest.revision == 3


def report(*slots: SlotHealth, locked: bool | None = None) -> HealthReported:
    """Return a server's report."""
    return HealthReported(
        server_id="acme-1",
        incarnation=1,
        n=1,
        observed_generation=1,
        runtime_version="1",
        outbox_depth=0,
        slots=slots,
        locked=locked,
    )


def health(revision: int, **more: object) -> SlotHealth:
    """Return what a report says of the slot."""
    fields = {
        "slot_id": "anthropic",
        "provider": "anthropic",
        "revision": revision,
        "validity": Validity.VALID,
        "age_seconds": 60,
    }
    return SlotHealth.model_validate(fields | more)


def test_the_last_report_says_what_is_in_use() -> None:
    """With the provider's word and the receipt; before the first report nothing is claimed."""
    view = slot_view(slot(2), None, written_at=AT)
    assert with_report(view, None).in_use is None
    receipt = Receipt(revision=1, short_tag="00c0ffee", provider_status=200, at=AT)
    shown = with_report(view, report(health(1, pending=2, receipt=receipt)))
    assert (shown.in_use, shown.validity, shown.receipt) == (1, Validity.VALID, receipt)


def test_what_is_only_held_is_not_in_use() -> None:
    """A first revision waits for the provider, an order forbids it, or the server is locked."""
    view = slot_view(slot(2), None, written_at=AT)
    assert with_report(view, report()).in_use == 0
    assert with_report(view, report(health(2, pending=2))).in_use == 0
    stopped = with_report(view, report(health(2, stopped=True)))
    assert (stopped.in_use, stopped.stopped) == (0, True)
    assert with_report(view, report(health(2), locked=True)).in_use == 0


def test_asking_the_provider_again_and_again_pushes_nothing_out() -> None:
    """Of verdicts in a row the last one stays; that it was stored and promoted stays, too."""
    facts = [step(CredentialStored, 1, 1, provider="openai")]
    facts += [step(CredentialVerified, 1, 2, verdict="valid", promoted=True)]
    facts += [step(CredentialVerified, 1, n, verdict="unknown") for n in range(3, MAX_STEPS + 9)]
    facts += [step(CredentialVerified, 1, MAX_STEPS + 9, verdict="invalid")]
    progress = folded(*facts)
    assert [(s.step, s.reason) for s in progress.steps] == [
        (SlotStep.STORED, None),
        (SlotStep.VERIFIED, "valid"),
        (SlotStep.VERIFIED, "invalid"),
    ]
