"""Which revision of a slot is in use, whatever happens in whatever order."""

from collections.abc import Callable
from functools import partial

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bus_schemas.events.health import Validity
from bus_schemas.events.reported import (
    CredentialAborted,
    CredentialDrained,
    CredentialInUse,
    CredentialRejected,
    CredentialVerified,
)
from vps_runtime.rotation.held import is_retired, leftovers, lost, serves, unknown
from vps_runtime.rotation.rules import (
    DAMAGED,
    MAX_GAP,
    Change,
    SlotRotation,
    Step,
    Verdict,
    aborted,
    accepts,
    adopted,
    answered,
    drained,
    forced,
    judged,
    record_lost,
    retire_ordered,
    retired,
    rotation_key,
    rotation_of,
    rotations,
    stored,
    verify_asked,
)

VALID, LIMITED = Verdict(Validity.VALID, 200), Verdict(Validity.LIMITED, 429)
INVALID, UNKNOWN = Verdict(Validity.INVALID, 401), Verdict(Validity.UNKNOWN, None, "no_check")
AT = 1_800_000_000


def after(*events: Callable[[SlotRotation], Change]) -> SlotRotation:
    """Return where a slot stands after *events*, from its beginning."""
    rotation = SlotRotation()
    for event in events:
        rotation = event(rotation).rotation
    return rotation


def store(revision: int) -> Callable[[SlotRotation], Change]:
    """Return the event of a stored revision."""
    return partial(stored, revision=revision)


def judge(revision: int, verdict: Verdict = VALID) -> Callable[[SlotRotation], Change]:
    """Return the event of a verdict."""
    return partial(judged, revision=revision, verdict=verdict, at=AT)


IN_USE = after(store(3), judge(3))
ROTATING = after(store(3), judge(3), store(4))


def test_a_stored_revision_is_pending_and_not_in_use() -> None:
    """Nobody has said yet that it is good."""
    first = after(store(3))
    assert (first.current, first.pending, first.newest) == (None, 3, 3)
    assert (ROTATING.current, ROTATING.pending) == (3, 4)


@pytest.mark.parametrize("verdict", [VALID, LIMITED])
def test_a_good_one_comes_into_use(verdict: Verdict) -> None:
    """Valid, or valid and out of budget: told with the verdict, as promoted."""
    change = judged(ROTATING, 4, verdict, at=AT)
    word = verdict.validity.value
    told = Step(CredentialVerified, 4, {"verdict": word, "promoted": True})
    assert change.steps == (told,)
    assert change.rotation == SlotRotation(
        current=4, newest=4, validity=verdict.validity, judged_at=AT
    )


def test_a_refused_one_changes_nothing_in_use() -> None:
    """It is told as invalid and as rejected, and is over."""
    change = judged(ROTATING, 4, INVALID, at=AT)
    assert change.steps == (
        Step(CredentialVerified, 4, {"verdict": "invalid"}),
        Step(CredentialRejected, 4, {"reason": "refused_by_provider"}),
    )
    assert change.rotation == IN_USE.model_copy(update={"newest": 4})
    grant = Verdict(Validity.INVALID, 400, "invalid_grant")
    assert judged(ROTATING, 4, grant, at=AT).steps[1].words == {"reason": "invalid_grant"}


def test_no_verdict_is_told_once_and_changes_nothing() -> None:
    """The provider may be away for days; the ledger hears of it once."""
    first = judged(ROTATING, 4, UNKNOWN, at=AT)
    assert first.steps == (Step(CredentialVerified, 4, {"verdict": "unknown"}),)
    assert (first.rotation.current, first.rotation.pending) == (3, 4)
    assert judged(first.rotation, 4, UNKNOWN, at=AT) == Change(first.rotation)
    asked = verify_asked(first.rotation, 4).rotation
    assert judged(asked, 4, UNKNOWN, at=AT) == Change(first.rotation, first.steps)


def test_a_newer_sealing_supersedes_one_that_waits() -> None:
    """A rotation that hangs never stands in the way of the next one."""
    unsure = judged(ROTATING, 4, UNKNOWN, at=AT).rotation
    change = stored(unsure, 6)
    assert change.steps == (Step(CredentialAborted, 4, {"reason": "superseded"}),)
    assert (change.rotation.current, change.rotation.pending) == (3, 6)
    assert judged(change.rotation, 4, VALID, at=AT) == Change(change.rotation)
    assert judged(change.rotation, 6, UNKNOWN, at=AT).steps  # told for this one, too


def test_a_revision_is_taken_on_once() -> None:
    """Found again in the vault after a kill, or older than what came since: nothing."""
    assert stored(ROTATING, 4) == Change(ROTATING)
    dropped = aborted(ROTATING, 4, held=True).rotation
    assert stored(dropped, 4) == Change(dropped)
    assert stored(SlotRotation(floor=9), 9) == Change(SlotRotation(floor=9))


def test_the_owner_may_force_what_nobody_can_judge() -> None:
    """It is told as promoted with the verdict there is: unknown."""
    change = forced(ROTATING, 4, held=True)
    assert change.rotation.current == 4
    told = Step(CredentialVerified, 4, {"verdict": "unknown", "promoted": True})
    assert change.steps == (told,)


@pytest.mark.parametrize("event", [forced, aborted])
def test_what_does_not_wait_cannot_be_forced_or_given_up(
    event: Callable[..., Change],
) -> None:
    """The order came late, or names another revision: it is refused and nothing changes."""
    assert event(ROTATING, 3, held=True) == Change(ROTATING, refused="not_pending")
    assert event(ROTATING, 5, held=False) == Change(ROTATING, refused="not_held")


def test_nothing_is_said_of_a_key_that_is_retired() -> None:
    """Not that the provider takes it, nor that it is used: the slot has none."""
    before = after(store(3), judge(3), partial(answered, revision=3, status=200))
    assert retired(before, 3).rotation == SlotRotation(newest=3, floor=3)


def test_given_up_leaves_the_one_in_use() -> None:
    """The rotation ends; what is in use never changed."""
    change = aborted(ROTATING, 4, held=True)
    assert change.steps == (Step(CredentialAborted, 4, {"reason": "aborted_by_owner"}),)
    assert change.rotation == IN_USE.model_copy(update={"newest": 4})


def test_a_verdict_about_the_one_in_use_is_kept_and_told_only_if_ordered() -> None:
    """Health tells it else. It stays in use, since nothing else may take its place."""
    refused = judged(IN_USE, 3, INVALID, at=AT + 1)
    assert refused.steps == ()
    assert (refused.rotation.current, refused.rotation.validity) == (3, Validity.INVALID)
    silent = judged(refused.rotation, 3, UNKNOWN, at=AT + 2)
    assert silent == Change(refused.rotation)  # no answer does not unsay the last one
    asked = verify_asked(IN_USE, 3).rotation
    told = judged(asked, 3, UNKNOWN, at=AT + 2)
    assert told.steps == (Step(CredentialVerified, 3, {"verdict": "unknown"}),)
    assert told.rotation == IN_USE
    assert verify_asked(IN_USE, 2).refused == "not_held"


def test_an_order_to_verify_outlives_a_verdict_about_another_revision() -> None:
    """Both may be asked about at once."""
    asked = verify_asked(ROTATING, 3).rotation
    assert judged(asked, 4, VALID, at=AT).rotation.asked == 3
    assert judged(asked, 4, UNKNOWN, at=AT).rotation.asked == 3
    assert aborted(asked, 4, held=True).rotation.asked == 3


def test_a_retired_revision_is_out_of_use_at_once_with_all_below() -> None:
    """Compromised: the newer one that waits takes over when it is verified, nothing else."""
    change = retired(ROTATING, 3)
    assert (change.rotation.current, change.rotation.pending, change.rotation.floor) == (None, 4, 3)
    assert judged(change.rotation, 4, VALID, at=AT).rotation.current == 4
    both = retired(verify_asked(ROTATING, 4).rotation, 4).rotation
    assert (both.current, both.pending, both.asked, both.floor) == (None, None, None, 4)
    assert retired(verify_asked(ROTATING, 4).rotation, 3).rotation.asked == 4


def test_what_is_still_to_come_can_be_retired_but_not_every_number_there_is() -> None:
    """The order may be faster than the sealing; 2**53 would end the slot for good."""
    assert retire_ordered(ROTATING, 5).rotation.floor == 5
    assert retire_ordered(SlotRotation(), 7).rotation.floor == 7
    assert retire_ordered(ROTATING, 4 + MAX_GAP + 1) == Change(ROTATING, refused="revision_jump")


def test_the_receipt_is_told_once_and_only_for_what_is_in_use() -> None:
    """Refused and failed calls are none."""
    for status in (400, 401, 403, 407, 500, 503):
        assert answered(IN_USE, 3, status) == Change(IN_USE)
        assert not accepts(status)
    first = answered(IN_USE, 3, 404)
    assert first.steps == (Step(CredentialInUse, 3, {"provider_status": 404}),)
    assert answered(first.rotation, 3, 200) == Change(first.rotation)
    assert answered(IN_USE, 2, 200) == Change(IN_USE)


def test_drained_is_told_once_for_each_revision_in_use() -> None:
    """Only then does any screen say that the old key may be revoked."""
    first = drained(IN_USE, 3)
    assert first.steps == (Step(CredentialDrained, 3, {}),)
    assert drained(first.rotation, 3) == Change(first.rotation)
    assert drained(after(store(1)), 1) == Change(after(store(1)))
    next_one = judged(stored(first.rotation, 4).rotation, 4, VALID, at=AT).rotation
    assert not next_one.drained
    assert drained(next_one, 3) == Change(next_one)  # it was looked at for the one before


def test_a_record_that_the_vault_lost_brings_nothing_lower_back() -> None:
    """Of the one in use: the slot is empty. Of the pending one: the one in use goes on."""
    assert record_lost(ROTATING, 3) == retired(ROTATING, 3)
    change = record_lost(ROTATING, 4)
    assert change.steps == (Step(CredentialRejected, 4, {"reason": DAMAGED}),)
    assert (change.rotation.current, change.rotation.pending) == (3, None)
    assert record_lost(ROTATING, 2) == Change(ROTATING)


def test_the_one_before_stays_until_nothing_waits_with_it_and_the_new_tags_are_told() -> None:
    """Unused; older ones, and those that were given up, go at once."""
    now = judged(ROTATING, 4, VALID, at=AT).rotation
    assert leftovers(now, [2, 3, 4], settled=True) == [2]
    ready = drained(now, 4).rotation
    assert leftovers(ready, [3, 4], settled=False) == []
    assert leftovers(ready, [3, 4, 9], settled=True) == [3]  # 9 is not taken on yet
    assert leftovers(aborted(ROTATING, 4, held=True).rotation, [3, 4], settled=False) == [4]
    assert leftovers(retired(now, 3).rotation, [3, 4], settled=False) == [3]
    assert leftovers(SlotRotation(floor=5), [5, 6], settled=False) == [5]


def test_what_left_the_vault_was_retired_or_given_up() -> None:
    """A match ends with a retired revision *and all below*, so the two are told differently."""
    assert is_retired(2, IN_USE)
    assert not is_retired(4, IN_USE)
    assert is_retired(4, retired(ROTATING, 4).rotation)


def test_which_held_revisions_serve_a_slot() -> None:
    """In use, pending, or just stored; not what was given up or is on its way out."""
    assert [serves(ROTATING, revision) for revision in (2, 3, 4, 5)] == [False, True, True, True]
    assert not serves(SlotRotation(floor=5), 5)


def test_the_memory_of_a_slot_is_found_by_its_name() -> None:
    """One that has none is at its beginning; what the vault has lost is found."""
    told = {rotation_key("a"): ROTATING.model_dump_json(exclude_defaults=True), "pins": ""}
    assert rotation_of("a", told) == ROTATING
    assert rotation_of("b", told) == SlotRotation()
    assert rotations(told) == {"a": ROTATING}
    assert lost([("a", 3), ("a", 4)], told) == []
    assert lost([("a", 4)], told) == [("a", 3)]


def test_what_an_older_build_has_stored_is_taken_on() -> None:
    """The newest of each slot; where a rotation is remembered, that has the say."""
    told = {rotation_key("a"): IN_USE.model_dump_json(), "held/b/1": "{}", "held/b/2": "{}"}
    assert unknown([("a", 3), ("b", 2), ("b", 1)], told) == {"b": 2}
    assert adopted(SlotRotation(), 2) == Change(SlotRotation(pending=2, newest=2, floor=1))


def test_what_has_only_just_come_is_nobody_s_to_adopt() -> None:
    """It is not told as stored yet; taken on without that, no step of it could be told."""
    assert unknown([("c", 1)], {}) == {}


def _event(draw: st.DrawFn) -> Callable[[SlotRotation], Change]:
    revision = draw(st.integers(1, 8))
    verdict = draw(st.sampled_from((VALID, LIMITED, INVALID, UNKNOWN)))
    held = draw(st.booleans())
    status = draw(st.sampled_from((200, 401)))
    events: list[Callable[[SlotRotation], Change]] = [
        store(revision),
        judge(revision, verdict),
        partial(forced, revision=revision, held=held),
        partial(aborted, revision=revision, held=held),
        partial(verify_asked, revision=revision),
        partial(retire_ordered, revision=revision),
        partial(record_lost, revision=revision),
        partial(answered, revision=revision, status=status),
        partial(drained, revision=revision),
    ]
    return draw(st.sampled_from(events))


EVENTS = st.lists(st.composite(_event)(), max_size=40)


@given(EVENTS)
def test_any_order_of_events_keeps_the_promises(
    events: list[Callable[[SlotRotation], Change]],
) -> None:
    """A retired revision is never used, the one in use never steps back, one waits at most."""
    rotation, highest = SlotRotation(), 0
    for event in events:
        before, change = rotation, event(rotation)
        rotation = change.rotation
        assert SlotRotation.model_validate_json(rotation.model_dump_json()) == rotation
        assert rotation.floor >= before.floor
        assert rotation.newest >= before.newest
        for revision in (rotation.current, rotation.pending):
            assert revision is None or rotation.floor < revision <= rotation.newest
        if rotation.current is not None and rotation.current != before.current:
            assert rotation.current == before.pending  # only what was pending comes into use
            assert rotation.current > highest
            assert change.steps[0].words["promoted"] is True
            highest = rotation.current
        if rotation.pending is not None and rotation.current is not None:
            assert rotation.current < rotation.pending
        if change.refused:
            assert change == Change(before, refused=change.refused)


@given(EVENTS)
def test_whatever_happens_twice_happens_once(
    events: list[Callable[[SlotRotation], Change]],
) -> None:
    """An event that is repeated, as after a kill, tells nothing and changes nothing more."""
    rotation = SlotRotation()
    for event in events:
        rotation = event(rotation).rotation
        again = event(rotation)
        if not again.refused:
            assert again == Change(rotation)


@given(EVENTS, st.sets(st.integers(1, 8)), st.booleans())
def test_what_leaves_the_vault_was_in_use_for_the_last_time(
    events: list[Callable[[SlotRotation], Change]],
    held: set[int],
    settled: bool,
) -> None:
    """Neither the current nor the pending one goes, and at most three of a slot stay."""
    rotation = after(*events)
    known = {one for one in held if one <= max(rotation.newest, rotation.floor)}
    gone = set(leftovers(rotation, held, settled=settled))
    assert gone <= known
    assert not gone & {rotation.current, rotation.pending}
    assert {one for one in known if one <= rotation.floor} <= gone
    assert len(known - gone) <= 3
