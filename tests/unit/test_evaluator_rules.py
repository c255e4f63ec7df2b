"""The ratchet, the nonces and the caps of the blind evaluator."""

import secrets

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bus_schemas.errors import Refused
from bus_schemas.evaluation import CommitRequest, UnlockRequest
from bus_schemas.events import RatchetAdvanced
from bus_schemas.unlock import unlock_check
from platform_handlers.evaluator.rules import (
    EVALUATIONS_PER_DAY,
    NONCE_SECONDS,
    UNLOCKS_PER_HOUR,
    Nonces,
    check_allowance,
    commit,
    first_state,
    unlock,
)
from platform_handlers.evaluator.servers import KnownServer, require_active

NOW = 1_800_000_000
POINT = b"\x07" * 32


def s(g: int, copy: str = "live") -> bytes:
    """Return the preimage of generation *g* on one copy of the disk."""
    return f"{copy}-{g}".encode().ljust(32, b".")


def wish(g: int, copy: str = "live", branch: str | None = None) -> UnlockRequest:
    """Return an unlock of *copy* at *g*, which goes on as *branch*."""
    return UnlockRequest(
        g=g,
        blinded=(POINT, POINT),
        preimage=s(g, copy),
        next_check=unlock_check(s(g + 1, branch or copy)),
        nonce=POINT,
    )


def done(g: int, copy: str = "live") -> CommitRequest:
    """Return the commit of *g* by *copy*."""
    return CommitRequest(g=g, preimage=s(g, copy), nonce=POINT)


def at_generation(g: int) -> RatchetAdvanced:
    """Return the state after *g* whole starts, long ago."""
    state = first_state("acme-1")
    for n in range(g):
        state = commit(unlock(state, wish(n), now=0), done(n + 1))
    return state.model_copy(update={"unlocks": ()})


def refusal(state: RatchetAdvanced, request: UnlockRequest | CommitRequest) -> str:
    """Return the reason why *request* is refused."""
    with pytest.raises(Refused) as caught:
        _ = (
            unlock(state, request, now=NOW)
            if isinstance(request, UnlockRequest)
            else commit(state, request)
        )
    assert "acme-1" in caught.value.detail
    return caught.value.reason


def test_each_start_moves_one_generation_on() -> None:
    """Unlock announces the next check, commit makes it the committed one."""
    state = at_generation(3)
    assert state.committed == 3
    assert state.committed_check == unlock_check(s(3))
    assert state.pending_check is None
    served = unlock(state, wish(3), now=NOW)
    assert served.committed == 3
    assert served.pending_check == unlock_check(s(4))
    assert served.unlocks == (NOW,)


def test_the_very_first_share_is_taken_on_trust() -> None:
    """No root key exists before the first commit, and a crash may have lost that share."""
    state = unlock(first_state("acme-1"), wish(0, "lost"), now=NOW)
    state = unlock(state, wish(0, "live"), now=NOW)
    assert commit(state, done(1)).committed == 1
    assert refusal(state, done(1, "lost")) == "stale_generation"


def test_a_crash_before_the_disk_was_written_is_harmless() -> None:
    """The old generation is still on the disk, and still committed."""
    state = unlock(at_generation(2), wish(2, branch="lost"), now=NOW)
    state = unlock(state, wish(2), now=NOW)
    assert commit(state, done(3)).committed == 3


def test_a_lost_commit_is_made_up_for_at_the_next_start() -> None:
    """The new disk's preimage fits the pending check."""
    state = unlock(unlock(at_generation(2), wish(2), now=NOW), wish(3), now=NOW + 1)
    assert state.committed == 3
    assert state.committed_check == unlock_check(s(3))
    assert state.pending_check == unlock_check(s(4))
    assert refusal(state, wish(2)) == "stale_generation"


def test_a_repeated_commit_changes_nothing() -> None:
    """Its first answer may have got lost."""
    state = at_generation(2)
    assert commit(state, done(2)) is state


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


def test_of_two_copies_of_a_disk_one_stays() -> None:
    """Once either has committed, the other's preimage is stale for good."""
    state = at_generation(2)
    state = commit(unlock(state, wish(2, branch="thief"), now=NOW), done(3, "thief"))
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
            state = commit(unlock(state, request, now=NOW), done(g + 1, f"{copy}{number}"))
            holder, shares[copy], g = copy, f"{copy}{number}", g + 1
        else:
            assert refusal(state, request) == "stale_generation"
        state = state.model_copy(update={"unlocks": ()})


def test_unlocks_are_limited_by_the_hour() -> None:
    """Only served ones count, and an hour later there is room again."""
    state = at_generation(1)
    for second in range(UNLOCKS_PER_HOUR):
        state = unlock(state, wish(1), now=NOW + second)
    with pytest.raises(Refused, match="too_many_unlocks"):
        unlock(state, wish(1), now=NOW + 3599)
    later = unlock(state, wish(1), now=NOW + 3600)
    assert len(later.unlocks) == UNLOCKS_PER_HOUR
    with pytest.raises(Refused, match="stale_generation"):
        unlock(state, wish(1, "copy"), now=NOW + 3599)


def test_a_nonce_is_good_for_one_request_of_its_server_within_a_minute() -> None:
    """Used, foreign, made-up and old ones are refused."""
    nonces = Nonces()
    mine, late = secrets.token_bytes(32), secrets.token_bytes(32)
    nonces.issue("acme-1", mine, now=100)
    nonces.issue("acme-1", late, now=100)
    with pytest.raises(Refused, match="stale_nonce"):
        nonces.use("acme-2", mine, now=100)
    nonces.use("acme-1", mine, now=100 + NONCE_SECONDS)
    for nonce, now in ((mine, 101), (late, 101 + NONCE_SECONDS), (POINT, 100)):
        with pytest.raises(Refused, match="stale_nonce"):
            nonces.use("acme-1", nonce, now=now)


def test_nonces_of_one_server_are_bounded() -> None:
    """The oldest gives way; another server's are untouched."""
    nonces = Nonces()
    other = secrets.token_bytes(32)
    nonces.issue("acme-2", other, now=0)
    issued = [secrets.token_bytes(32) for _ in range(17)]
    for nonce in issued:
        nonces.issue("acme-1", nonce, now=0)
    with pytest.raises(Refused, match="stale_nonce"):
        nonces.use("acme-1", issued[0], now=0)
    nonces.use("acme-1", issued[1], now=0)
    nonces.use("acme-2", other, now=0)


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
        require_active("acme-1", KnownServer(POINT, active=False))
    known = KnownServer(POINT, active=True)
    assert require_active("acme-1", known) is known
