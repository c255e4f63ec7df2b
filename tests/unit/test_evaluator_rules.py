"""The ratchet, the approvals and the caps of the blind evaluator."""

from dataclasses import replace

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from hypothesis import given
from hypothesis import strategies as st

from bus_schemas.approval import Approval, copy_code, sign_approval
from bus_schemas.errors import Refused
from bus_schemas.evaluation import CommitRequest, UnlockRequest
from bus_schemas.events import RatchetAdvanced
from bus_schemas.keys import owner_fingerprint
from bus_schemas.unlock import unlock_check
from platform_handlers.evaluator.approvers import fold_pins
from platform_handlers.evaluator.rules import (
    APPROVAL_SECONDS,
    CLOCK_SECONDS,
    EVALUATIONS_PER_DAY,
    LONGEST_LEAP,
    UNLOCKS_PER_HOUR,
    Circumstances,
    approve,
    came_by_window,
    check_allowance,
    check_new_key,
    commit,
    current,
    first_state,
    incarnation_of,
    instead,
    never_started,
    unlock,
)
from platform_handlers.evaluator.servers import KnownServer, require_active

NOW = Circumstances(now=1_800_000_000)
POINT = b"\x07" * 32
OWNER = Ed25519PrivateKey.from_private_bytes(b"\x01" * 32)
PIN = owner_fingerprint(OWNER.public_key().public_bytes_raw())


def s(g: int, copy: str = "live") -> bytes:
    """Return the preimage of generation *g* on one copy of the disk."""
    return f"{copy}-{g}".encode().ljust(32, b".")


def wish(g: int, copy: str = "live", branch: str | None = None) -> UnlockRequest:
    """Return an unlock of *copy* at *g*, which goes on as *branch*."""
    return UnlockRequest(
        g=g,
        blinded=(POINT, POINT),
        preimage=s(g, copy),
        next_preimage=s(g + 1, branch or copy),
        nonce=POINT,
    )


def done(g: int, copy: str = "live", pins: tuple[str, ...] = (PIN,)) -> CommitRequest:
    """Return the commit of *g* by *copy*."""
    return CommitRequest(g=g, preimage=s(g, copy), owner_pins=pins, nonce=POINT)


def started(
    state: RatchetAdvanced, copy: str = "live", branch: str | None = None
) -> RatchetAdvanced:
    """Return the state after a whole start of *copy* at its generation."""
    g = state.committed
    state = commit(unlock(state, wish(g, copy, branch), NOW), done(g + 1, branch or copy), NOW)
    return state.model_copy(update={"unlocks": ()})


def at_generation(g: int) -> RatchetAdvanced:
    """Return the state after *g* whole starts, long ago."""
    state = first_state("acme-1")
    for _ in range(g):
        state = started(state)
    return state


def refusal(
    state: RatchetAdvanced,
    request: UnlockRequest | CommitRequest | Approval,
    about: Circumstances = NOW,
) -> str:
    """Return the reason why *request* is refused."""
    with pytest.raises(Refused) as caught:
        _decided(state, request, about)
    assert "acme-1" in caught.value.detail
    return caught.value.reason


def _decided(
    state: RatchetAdvanced,
    request: UnlockRequest | CommitRequest | Approval,
    about: Circumstances,
) -> RatchetAdvanced:
    if isinstance(request, UnlockRequest):
        return unlock(state, request, about)
    if isinstance(request, CommitRequest):
        return commit(state, request, about)
    return approve(state, request, about)


def approval(g: int, copy: str, *, at: int = NOW.now, by: Ed25519PrivateKey = OWNER) -> Approval:
    """Return the owner's approval of *copy* at *g*."""
    code = copy_code("acme-1", g, unlock_check(s(g, copy)))
    return sign_approval(by, server_id="acme-1", code=code, issued_at=at)


# --- each start ---


def test_each_start_moves_one_generation_on() -> None:
    """Unlock announces the next check, commit makes it the committed one, and counts."""
    state = at_generation(3)
    assert (state.committed, incarnation_of(state)) == (3, 3)
    assert state.committed_check == unlock_check(s(3))
    assert state.pending_check is None
    assert state.owner_pins == (PIN,)
    served = unlock(state, wish(3), NOW)
    assert served.committed == 3
    assert served.pending_check == unlock_check(s(4))
    assert served.unlocks == (NOW.now,)


def test_the_very_first_share_is_taken_on_trust() -> None:
    """No root key exists before the first commit, and a crash may have lost that share."""
    state = unlock(first_state("acme-1"), wish(0, "lost"), NOW)
    state = unlock(state, wish(0, "live"), NOW)
    assert commit(state, done(1), NOW).committed == 1
    assert refusal(state, done(1, "lost")) == "stale_generation"
    assert refusal(state, done(0)) == "stale_generation"


def test_a_start_that_broke_off_goes_on_with_the_same_next_share() -> None:
    """The old generation is still on the disk, and the next share was there before the question."""
    state = unlock(at_generation(2), wish(2), NOW)
    state = unlock(state, wish(2), NOW)
    assert commit(state, done(3), NOW).committed == 3


def test_an_older_copy_cannot_go_on_with_a_start_that_broke_off() -> None:
    """It holds the committed share, but not the one that the live server has begun with."""
    state = unlock(at_generation(2), wish(2), NOW)
    assert refusal(state, wish(2, branch="thief")) == "stale_generation"


def test_a_lost_commit_is_made_up_for_at_the_next_start() -> None:
    """The new disk's preimage fits the pending check, and the lost commit is counted."""
    state = unlock(unlock(at_generation(2), wish(2), NOW), wish(3), NOW)
    assert (state.committed, incarnation_of(state)) == (3, 3)
    assert state.committed_check == unlock_check(s(3))
    assert state.pending_check == unlock_check(s(4))
    assert refusal(state, wish(2)) == "stale_generation"


def test_no_other_secret_makes_up_for_a_lost_commit() -> None:
    """The pending generation is its holder's: its number alone opens nothing."""
    begun = unlock(at_generation(2), wish(2), NOW)
    assert refusal(begun, wish(3, "thief")) == "stale_generation"
    assert refusal(begun, done(3, "thief")) == "stale_generation"


def test_a_secret_is_good_for_its_own_generation_only() -> None:
    """The right preimage under another number is another disk, before the first start too."""
    begun = unlock(at_generation(2), wish(2), NOW)
    assert refusal(begun, wish(5).model_copy(update={"preimage": s(3)})) == "generation_ahead"
    assert refusal(begun, done(1).model_copy(update={"preimage": s(2)})) == "stale_generation"
    assert refusal(begun, done(1).model_copy(update={"preimage": s(3)})) == "stale_generation"
    assert refusal(first_state("acme-1"), wish(1)) == "stale_generation"
    assert refusal(first_state("acme-1"), wish(7)) == "generation_ahead"


def test_a_server_that_cannot_read_its_pins_keeps_those_it_told() -> None:
    """A damaged file must not take the owner's way back from an older disk."""
    unread = done(3).model_copy(update={"owner_pins": None})
    begun = unlock(at_generation(2), wish(2), NOW)
    assert commit(begun, unread, NOW).owner_pins == (PIN,)
    assert commit(begun, done(3, pins=()), NOW).owner_pins == ()


def test_a_repeated_commit_changes_nothing_but_the_pins() -> None:
    """Its first answer may have got lost; or its owner has changed whom it obeys."""
    state = at_generation(2)
    assert commit(state, done(2), NOW) == state
    again = commit(state, done(2, pins=()), NOW)
    assert again == state.model_copy(update={"owner_pins": ()})


@pytest.mark.parametrize(
    ("request_", "reason"),
    [
        (wish(1), "stale_generation"),
        (wish(2, "copy"), "stale_generation"),
        (wish(3), "stale_generation"),
        (wish(4), "generation_ahead"),
        (wish(0), "stale_generation"),
        (done(1), "stale_generation"),
        (done(3), "stale_generation"),
        (done(2, "copy"), "stale_generation"),
        (done(4), "generation_ahead"),
    ],
)
def test_a_wrong_generation_is_refused(
    request_: UnlockRequest | CommitRequest, reason: str
) -> None:
    """An older disk, another secret, or an evaluator restored from a backup."""
    assert refusal(at_generation(2), request_) == reason


def test_of_two_copies_of_a_disk_the_first_to_ask_stays() -> None:
    """Once either has begun a start, the other's preimages are stale for good."""
    state = unlock(at_generation(2), wish(2, branch="thief"), NOW)
    assert refusal(state, wish(2)) == "stale_generation"
    state = commit(state, done(3, "thief"), NOW)
    assert refusal(state, wish(2)) == "stale_generation"
    assert refusal(state, wish(3)) == "stale_generation"


@given(copies=st.lists(st.sampled_from(["a", "b"]), min_size=1, max_size=12))
def test_whoever_started_last_is_the_only_one_served(copies: list[str]) -> None:
    """Two copies that start in any order: a start works exactly if nobody else's came between."""
    state, holder, g = at_generation(1), "", 1
    shares = {"a": "live", "b": "live"}
    for number, copy in enumerate(copies):
        request = wish(g, shares[copy], branch=f"{copy}{number}")
        if holder in {"", copy}:
            state = started(state, shares[copy], f"{copy}{number}")
            holder, shares[copy], g = copy, f"{copy}{number}", g + 1
        else:
            assert refusal(state, request) == "stale_generation"


def test_unlocks_are_limited_by_the_hour() -> None:
    """Only served ones count, and an hour later there is room again."""
    state = at_generation(1)
    for second in range(UNLOCKS_PER_HOUR):
        state = unlock(state, wish(1), replace(NOW, now=NOW.now + second))
    end = replace(NOW, now=NOW.now + 3599)
    assert refusal(state, wish(1), end) == "too_many_unlocks"
    assert refusal(state, wish(1, "copy"), end) == "stale_generation"
    later = unlock(state, wish(1), replace(NOW, now=NOW.now + 3600))
    assert len(later.unlocks) == UNLOCKS_PER_HOUR


def test_a_clock_that_was_ahead_locks_nobody_out() -> None:
    """Its stamps would count until their time comes; they are let go."""
    ahead = tuple(NOW.now + 86400 + n for n in range(UNLOCKS_PER_HOUR))
    state = at_generation(1).model_copy(update={"unlocks": ahead})
    assert unlock(state, wish(1), NOW).unlocks == (NOW.now,)


def test_a_state_of_the_first_build_reads_as_it_was_meant() -> None:
    """Before the two came apart, the generation was the incarnation."""
    old = RatchetAdvanced(server_id="acme-1", committed=7, committed_check=unlock_check(s(7)))
    assert incarnation_of(old) == 7
    assert incarnation_of(started(old)) == 8


# --- enrolled again ---


def test_another_machine_begins_anew_and_its_incarnation_goes_on() -> None:
    """Nothing of the old machine's shares, pins and approvals holds; the count of starts does."""
    state = approve(at_generation(3), approval(1, "live"), NOW)
    again = replace(NOW, enrolment=2)
    fresh = current(state, again)
    assert (fresh.committed, fresh.committed_check, fresh.owner_pins) == (0, None, None)
    assert (fresh.approved_code, fresh.approved_at) == (None, NOW.now)
    moved = commit(unlock(fresh, wish(0, "new"), again), done(1, "new"), again)
    assert (moved.committed, moved.incarnation, moved.enrolment) == (1, 4, 2)
    assert current(moved, again) is moved


def test_another_machine_has_no_new_hourly_count() -> None:
    """Else enrolling again and again would be as many guesses as one likes."""
    state = at_generation(1)
    for _ in range(UNLOCKS_PER_HOUR):
        state = unlock(state, wish(1), NOW)
    again = replace(NOW, enrolment=2)
    assert refusal(current(state, again), wish(0, "new"), again) == "too_many_unlocks"


def test_an_evaluator_that_lags_behind_does_not_go_back() -> None:
    """One that has not heard of the new machine yet must not serve the old one."""
    state = current(at_generation(1), replace(NOW, enrolment=2))
    with pytest.raises(Refused, match="server_reenrolled: acme-1"):
        current(state, NOW)


# --- approvals ---


def test_an_approved_copy_is_let_in_once() -> None:
    """The generation goes back to the copy's, the incarnation goes on, the newer disk is stale."""
    state = approve(at_generation(4), approval(2, "live"), NOW)
    assert refusal(state, wish(1)) == "stale_generation"
    served = unlock(state, wish(2, branch="restored"), NOW)
    assert served.approved_code is None
    restored = commit(served, done(3, "restored"), NOW)
    assert (restored.committed, incarnation_of(restored)) == (3, 5)
    for g in (2, 3, 4):
        assert refusal(restored, wish(g)) == "stale_generation"


def test_of_two_copies_with_one_code_the_first_is_let_in() -> None:
    """An approval is for one machine, also if a thief holds the same snapshot."""
    state = approve(at_generation(4), approval(2, "live"), NOW)
    state = unlock(state, wish(2, branch="restored"), NOW)
    assert refusal(state, wish(2, branch="thief")) == "stale_generation"
    assert unlock(state, wish(2, branch="restored"), NOW).committed == 2


def test_a_commit_makes_an_approval_void() -> None:
    """It was signed by a key that the server may obey no longer; its owner signs anew."""
    approved = approve(at_generation(4), approval(2, "live"), NOW)
    for state in (commit(approved, done(4, pins=()), NOW), started(approved)):
        assert state.approved_code is None
        assert refusal(state, wish(2)) == "stale_generation"


def test_an_approval_names_one_copy() -> None:
    """Another disk at the same generation is still refused."""
    state = approve(at_generation(4), approval(2, "other"), NOW)
    assert refusal(state, wish(2)) == "stale_generation"


def test_an_approved_copy_may_be_ahead_of_a_restored_evaluator() -> None:
    """The starts that the evaluator lost are counted: what was said after them stays older."""
    state = approve(at_generation(2), approval(9, "live"), NOW)
    moved = commit(unlock(state, wish(9), NOW), done(10), NOW)
    assert (moved.committed, incarnation_of(moved)) == (10, 10)


def test_an_approval_is_good_for_an_hour() -> None:
    """To be accepted, and to be used."""
    state = at_generation(4)
    for at in (NOW.now - APPROVAL_SECONDS, NOW.now + CLOCK_SECONDS + 1):
        assert refusal(state, approval(2, "live", at=at)) == "approval_expired"
    state = approve(state, approval(2, "live"), NOW)
    end = replace(NOW, now=NOW.now + APPROVAL_SECONDS)
    assert refusal(state, wish(2), end) == "stale_generation"
    assert unlock(state, wish(2), replace(end, now=end.now - 1)).committed == 2


def test_an_approval_is_good_once() -> None:
    """The same one again is harmless until it was used, then it and every older one is refused."""
    state, word = at_generation(4), approval(2, "live")
    state = approve(state, word, NOW)
    assert approve(state, word, NOW) is state
    assert refusal(state, approval(3, "live", at=NOW.now - 1)) == "approval_replayed"
    used = unlock(state, wish(2), NOW)
    assert refusal(used, word) == "approval_replayed"
    later = approval(1, "live", at=NOW.now + 1)
    assert approve(used, later, NOW).approved_code == later.code


def test_a_code_that_no_refused_copy_showed_is_not_taken() -> None:
    """A slip is told to who may approve, and to nobody else; too many copies tell nothing."""
    state, word = at_generation(4), approval(2, "live")
    about = replace(NOW, refused_copies=frozenset({approval(3, "live").code}))
    assert refusal(state, word, about) == "unknown_copy"
    stranger = approval(2, "live", by=Ed25519PrivateKey.generate())
    assert refusal(state, stranger, about) == "not_an_owner_key"
    for copies in (frozenset({word.code}), None):
        assert approve(state, word, replace(NOW, refused_copies=copies)).approved_code == word.code


@pytest.mark.parametrize("pins", [None, (), ("A" * 20,)])
def test_only_a_key_that_the_server_pinned_approves(pins: tuple[str, ...] | None) -> None:
    """The platform's keys, a stranger's, or anyone's before the server said whom it obeys."""
    state = at_generation(4).model_copy(update={"owner_pins": pins})
    assert refusal(state, approval(2, "live")) == "not_an_owner_key"
    stranger = approval(2, "live", by=Ed25519PrivateKey.generate())
    assert refusal(at_generation(4), stranger) == "not_an_owner_key"


def test_a_key_that_was_given_up_since_the_commit_approves_nothing() -> None:
    """A locked server cannot commit; what it tells of its pins takes the key away at once."""
    state = at_generation(4)
    told = fold_pins(None, (PIN,), (), incarnation_of(state))
    assert refusal(state, approval(2, "live"), replace(NOW, told_pins=told)) == "not_an_owner_key"
    after = unlock(unlock(state, wish(4), NOW), wish(5), replace(NOW, told_pins=told))
    assert (incarnation_of(after), after.owner_pins) == (told.incarnation + 1, ())
    older = replace(told, incarnation=incarnation_of(state) - 1)
    word = approval(2, "live")
    assert approve(state, word, replace(NOW, told_pins=older)).approved_code == word.code


# --- recovery ---


def test_after_a_restore_one_higher_generation_is_believed() -> None:
    """Until the window's end, once for each server, and the incarnation does not go back."""
    window = replace(NOW, recover_until=NOW.now + 60, incarnation=9)
    state = at_generation(2)
    recovered = unlock(state, wish(7, branch="next"), window)
    assert (recovered.committed, incarnation_of(recovered)) == (7, 9)
    assert refusal(recovered, wish(9), window) == "generation_ahead"
    assert refusal(recovered, wish(7, branch="thief"), window) == "stale_generation"
    whole = commit(recovered, done(8, "next"), window)
    assert (whole.committed, incarnation_of(whole)) == (8, 10)
    assert unlock(whole, wish(20), replace(window, recover_until=NOW.now + 90)).committed == 20


@pytest.mark.parametrize(("remembered", "told"), [(2, 2), (2, 0), (0, 2)])
def test_a_window_is_not_for_a_server_that_lost_nothing(remembered: int, told: int) -> None:
    """Neither folder nor ledger know of a later start: whoever claims one is not the server."""
    window = replace(NOW, recover_until=NOW.now + 60, remembered=remembered, incarnation=told)
    assert refusal(at_generation(2), wish(3, "thief"), window) == "stale_generation"
    assert refusal(at_generation(2), wish(7), window) == "generation_ahead"
    for later in (replace(window, remembered=3), replace(window, incarnation=3)):
        assert unlock(at_generation(2), wish(7), later).committed == 7


def test_who_came_by_a_window_is_known_until_its_end() -> None:
    """So that it is told, also when the first telling was cut off."""
    window = replace(NOW, recover_until=NOW.now + 60)
    state = unlock(at_generation(2), wish(7), window)
    assert came_by_window(state, now=NOW.now + 59)
    assert not came_by_window(state, now=NOW.now + 60)
    assert not came_by_window(at_generation(2), now=NOW.now)


def test_only_a_server_that_nobody_knows_a_start_of_is_a_new_one() -> None:
    """Else a ratchet that is gone would let anything begin at generation 0."""
    assert never_started(NOW)
    assert not never_started(replace(NOW, incarnation=1))
    assert not never_started(replace(NOW, remembered=0))


@pytest.mark.parametrize(
    ("g", "until"), [(7, NOW.now), (7, 0), (2 + LONGEST_LEAP + 1, NOW.now + 60)]
)
def test_no_leap_is_believed_outside_the_window_or_beyond_reason(g: int, until: int) -> None:
    """A leap that no server can have made would use up the counters for good."""
    window = replace(NOW, recover_until=until)
    assert refusal(at_generation(2), wish(g), window) == "generation_ahead"


def test_recovery_lets_no_lower_generation_in() -> None:
    """An older copy stays out as long as the restored state is newer than it."""
    window = replace(NOW, recover_until=NOW.now + 60)
    assert refusal(at_generation(2), wish(2, "copy"), window) == "stale_generation"
    assert refusal(at_generation(2), wish(1), window) == "stale_generation"


# --- states that are not ours, or not the last ---


def test_a_forged_state_is_served_to_nobody() -> None:
    """Outside a recovery window; the error names the server."""
    with pytest.raises(Refused, match=r"ratchet_forged: .*acme-1"):
        instead("acme-1", at_generation(2), NOW)


def test_a_recovery_window_believes_nothing_of_a_forged_state() -> None:
    """Without a memory all is new: no pins, no code; one disk comes, and the count goes on."""
    window = replace(NOW, recover_until=NOW.now + 60, incarnation=9)
    state = instead("acme-1", None, window)
    assert (state.committed, state.owner_pins, state.approved_code) == (0, None, None)
    served = unlock(state, wish(8), window)
    assert refusal(served, wish(8, branch="thief"), window) == "stale_generation"
    whole = commit(served, done(9), window)
    assert (whole.committed, whole.owner_pins) == (9, (PIN,))
    assert incarnation_of(whole) > 9


def test_a_recovery_window_goes_on_from_what_the_evaluator_remembers() -> None:
    """Then no older disk is let in, nor with an approval that may have been used."""
    window = replace(NOW, recover_until=NOW.now + 60, incarnation=2)
    own = approve(at_generation(2), approval(1, "live"), NOW)
    state = instead("acme-1", own, window)
    assert refusal(state, wish(1), window) == "stale_generation"
    assert refusal(state, approval(1, "live"), window) == "approval_replayed"
    assert unlock(state, wish(2), window).committed == 2


def test_a_state_that_was_put_back_opens_no_older_disk() -> None:
    """The ledger tells of commits that it lacks: whoever fits it is older than the newest disk."""
    later = replace(NOW, incarnation=4)
    assert refusal(at_generation(2), wish(2), later) == "stale_generation"
    begun = unlock(at_generation(2), wish(2), NOW)
    assert refusal(begun, wish(2), later) == "stale_generation"
    assert refusal(begun, wish(3), later) == "stale_generation"
    assert refusal(begun, wish(4), later) == "generation_ahead"


def test_a_state_that_was_put_back_by_one_commit_makes_up_for_it() -> None:
    """The disk that fits the pending check is the one whose commit the ledger tells of."""
    begun = unlock(at_generation(2), wish(2), NOW)
    served = unlock(begun, wish(3), replace(NOW, incarnation=3))
    assert (served.committed, incarnation_of(served)) == (3, 4)


def test_an_owner_lets_a_disk_in_although_the_state_was_put_back() -> None:
    """Also when that start breaks off and is gone on with: the count has caught up."""
    later = replace(NOW, incarnation=4)
    state = approve(at_generation(2), approval(2, "live"), later)
    served = unlock(state, wish(2), later)
    assert incarnation_of(served) == 4
    assert unlock(served, wish(2), later).committed == 2


# --- keys ---


@pytest.mark.parametrize(
    ("starts", "about"),
    [(1, NOW), (0, replace(NOW, incarnation=4)), (1, replace(NOW, enrolment=2))],
)
def test_a_server_that_has_started_is_made_no_new_key(starts: int, about: Circumstances) -> None:
    """Its key file is older than it: a new key would open nothing and hide that."""
    state = at_generation(starts).model_copy(update={"enrolment": about.enrolment})
    with pytest.raises(Refused, match=r"unlock_key_missing: .*acme-1.*back-up"):
        check_new_key(state, about)
    check_new_key(state, replace(about, recover_until=NOW.now + 1))
    with pytest.raises(Refused, match="unlock_key_missing"):
        check_new_key(state, replace(about, recover_until=NOW.now))


def test_a_machine_that_never_started_is_made_a_key() -> None:
    """The first of its name, or one in the place of another that did start."""
    check_new_key(first_state("acme-1"), NOW)
    again = replace(NOW, enrolment=2, incarnation=4)
    check_new_key(current(at_generation(4), again), again)


# --- caps ---


def test_the_daily_allowance_is_whole_or_nothing() -> None:
    """A request that would exceed it is refused, the last that fits is not."""
    check_allowance(EVALUATIONS_PER_DAY - 2, 2, "acme-1")
    with pytest.raises(Refused, match="too_many_evaluations: acme-1"):
        check_allowance(EVALUATIONS_PER_DAY - 2, 3, "acme-1")


def test_only_known_active_servers_are_served() -> None:
    """Unknown may pass by itself, inactive never does: the codes differ."""
    with pytest.raises(Refused, match="unknown_server"):
        require_active("acme-1", None)
    with pytest.raises(Refused, match="server_not_active"):
        require_active("acme-1", KnownServer("acme-1", POINT, active=False))
    known = KnownServer("acme-1", POINT, active=True)
    assert require_active("acme-1", known) is known
