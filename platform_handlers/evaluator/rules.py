"""The ratchet that tells the newest disk from a stale copy. Pure (docs/protocol.md, "Unlock").

Left to others: that the request is the server's and fresh, compare-and-set on the state, the
evaluation itself. Two copies of one disk hold the same shares until either unlocks; from then on
only that one's preimages fit (ADR-15). A request with the right preimages is always served, so
that an old backup, refused for its wrong ones, cannot lock the live server out.
"""

from dataclasses import dataclass
from typing import Final

from bus_schemas.approval import Approval, copy_code
from bus_schemas.errors import Refused
from bus_schemas.evaluation import CommitRequest, UnlockRequest
from bus_schemas.events import RatchetAdvanced
from bus_schemas.keys import owner_fingerprint
from bus_schemas.ratchet_mac import FORGED
from bus_schemas.unlock import unlock_check

UNLOCKS_PER_HOUR: Final = 30
EVALUATIONS_PER_DAY: Final = 400
APPROVAL_SECONDS: Final = 3600
"""How long an approval is good, to be accepted and to be used, from its signing on."""
CLOCK_SECONDS: Final = 300
"""How far an owner's clock may be ahead of ours."""
LONGEST_LEAP: Final = 1_000_000
"""More generations than a server can get through in 3 years at the hourly limit."""
_HOUR = 3600


@dataclass(frozen=True)
class Circumstances:
    """What else a decision rests on, beside the state and the request."""

    now: int
    """Unix seconds."""
    enrolment: int = 1
    """Which enrolment of the server the ledger tells of last."""
    incarnation: int = 0
    """The highest incarnation of the server that the ledger tells of."""
    recover_until: int = 0
    """End of the operators' recovery window in Unix seconds; 0 for none."""


def first_state(server_id: str) -> RatchetAdvanced:
    """Return the state of a server that was never unlocked."""
    return RatchetAdvanced(server_id=server_id, committed=0)


def incarnation_of(state: RatchetAdvanced) -> int:
    """Return how many generations were ever committed."""
    return state.committed if state.incarnation is None else state.incarnation


def next_incarnation(state: RatchetAdvanced, told: int) -> int:
    """Return the number of the start that comes; *told* is the highest the ledger tells of."""
    return max(incarnation_of(state), told) + 1


def instead(
    server_id: str, remembered: RatchetAdvanced | None, about: Circumstances
) -> RatchetAdvanced:
    """Return what a recovery window puts in place of a stored state that is not the evaluator's.

    That is the last one it *remembered* in its folder, else a first one. Nothing is believed of
    what is stored: who forged it may be waiting for the window. An approval from before is void,
    since it may have been used. Raises Refused(`ratchet_forged`).
    """
    if about.now >= about.recover_until:
        detail = f"the stored state of {server_id} is not the evaluator's; see the runbook"
        raise Refused(FORGED, detail)
    state = remembered or first_state(server_id).model_copy(
        update={"incarnation": about.incarnation}
    )
    return state.model_copy(update={"approved_code": None, "approved_at": about.now})


def current(state: RatchetAdvanced, about: Circumstances) -> RatchetAdvanced:
    """Return *state*, begun anew at generation 0 if the server was enrolled again since.

    The incarnation goes on: it orders the server's facts across its machines. Raises
    Refused(`server_reenrolled`) when it is *we* who have not heard of it yet.
    """
    enrolment = state.enrolment or 1
    if enrolment == about.enrolment:
        return state
    if enrolment > about.enrolment:
        detail = f"{state.server_id} was enrolled again, which the ledger has yet to tell"
        raise Refused("server_reenrolled", detail)
    return RatchetAdvanced(
        server_id=state.server_id,
        committed=0,
        unlocks=state.unlocks,
        incarnation=incarnation_of(state),
        enrolment=about.enrolment,
        approved_at=state.approved_at,
    )


def unlock(state: RatchetAdvanced, request: UnlockRequest, about: Circumstances) -> RatchetAdvanced:
    """Return the state after serving *request*, which announces the next generation.

    Raises Refused: `stale_generation` (a second or an older copy asks), `generation_ahead` (the
    evaluator itself was restored from a backup), `too_many_unlocks`.
    """
    found = _where_it_stands(state, request, about)
    recent = tuple(at for at in state.unlocks if at > about.now - _HOUR)
    if len(recent) >= UNLOCKS_PER_HOUR:
        detail = f"{state.server_id} was unlocked {len(recent)} times within the hour"
        raise Refused("too_many_unlocks", detail)
    announced = unlock_check(request.next_preimage)
    return found.model_copy(update={"pending_check": announced, "unlocks": (*recent, about.now)})


def commit(state: RatchetAdvanced, request: CommitRequest, about: Circumstances) -> RatchetAdvanced:
    """Return the state with the pending generation committed, or as it is on a repeat.

    Either way it holds the owner keys that the server obeys now, and no approval any more: that
    was of a key that the server may just have given up. Raises Refused: `stale_generation`,
    `generation_ahead`.
    """
    check = unlock_check(request.preimage)
    if request.g == state.committed and check == state.committed_check:
        done = state  # the answer got lost, or only the pins have changed
    elif request.g == state.committed + 1 and check == state.pending_check:
        done = _committed(state, about)
    else:
        raise _wrong_generation(state, request.g)
    return done.model_copy(update={"owner_pins": request.owner_pins, "approved_code": None})


def approve(state: RatchetAdvanced, approval: Approval, about: Circumstances) -> RatchetAdvanced:
    """Return the state with the copy that *approval* names let in once.

    Its signature was checked. The same approval again changes nothing as long as the copy has
    not come. Raises Refused: `not_an_owner_key`, `approval_expired`, `approval_replayed`.
    """
    server_id, signer = state.server_id, owner_fingerprint(approval.public_key)
    if signer not in (state.owner_pins or ()):
        detail = f"{server_id} has not pinned {signer}; an owner key it obeys must approve"
        raise Refused("not_an_owner_key", detail)
    if not about.now - APPROVAL_SECONDS < approval.issued_at <= about.now + CLOCK_SECONDS:
        detail = f"the approval of {server_id} is not of this hour; look at your clock, sign anew"
        raise Refused("approval_expired", detail)
    if (approval.code, approval.issued_at) == (state.approved_code, state.approved_at):
        return state  # the answer got lost
    if approval.issued_at <= (state.approved_at or 0):
        detail = f"{server_id} has had this approval, or a later one; sign anew"
        raise Refused("approval_replayed", detail)
    return state.model_copy(
        update={"approved_code": approval.code, "approved_at": approval.issued_at}
    )


def check_allowance(spent: int, wanted: int, server_id: str) -> None:
    """Raise Refused(`too_many_evaluations`) when *wanted* more would exceed today's allowance."""
    if spent + wanted > EVALUATIONS_PER_DAY:
        detail = f"{server_id} had {spent} of {EVALUATIONS_PER_DAY} evaluations today"
        raise Refused("too_many_evaluations", detail)


def _where_it_stands(
    state: RatchetAdvanced, request: UnlockRequest, about: Circumstances
) -> RatchetAdvanced:
    """Return the state moved to the generation of the disk that asks, if that disk may ask."""
    g, check = request.g, unlock_check(request.preimage)
    # An own state, and the ledger tells of later commits: it was put back. Who fits it is old.
    lost = about.incarnation - incarnation_of(state)
    if g == state.committed + 1 and check == state.pending_check and lost <= 1:
        return _committed(state, about)  # it is on the disk; only the commit got lost
    if g == state.committed and state.committed_check is None:
        return state  # no root key exists yet that a copy could open: anything fits
    if (
        g == state.committed
        and lost <= 0
        and check == state.committed_check
        # A start was begun: the disk that began it has the next share, an older copy has not.
        and state.pending_check in {None, unlock_check(request.next_preimage)}
    ):
        return state
    let_in = _let_in(state, g, check, about)
    if let_in is None:
        raise _wrong_generation(state, g)
    return let_in


def _let_in(
    state: RatchetAdvanced, g: int, check: bytes, about: Circumstances
) -> RatchetAdvanced | None:
    """Return the state moved to an unexpected disk that a person has vouched for, else None."""
    moved = {
        "committed": g,
        "committed_check": check,
        "pending_check": None,
        # Commits that we lost count too: what the server said after them must stay older.
        "incarnation": max(incarnation_of(state) + max(0, g - state.committed), about.incarnation),
    }
    if g > state.committed + LONGEST_LEAP:
        return None
    approved = state.approved_at is not None and about.now < state.approved_at + APPROVAL_SECONDS
    if approved and state.approved_code == copy_code(state.server_id, g, check):
        return state.model_copy(update=moved | {"approved_code": None})
    until = about.recover_until
    if about.now < until and g > state.committed and state.recovered_until != until:
        return state.model_copy(update=moved | {"recovered_until": until})
    return None


def _committed(state: RatchetAdvanced, about: Circumstances) -> RatchetAdvanced:
    return state.model_copy(
        update={
            "committed": state.committed + 1,
            "committed_check": state.pending_check,
            "pending_check": None,
            "incarnation": next_incarnation(state, about.incarnation),
        }
    )


def _wrong_generation(state: RatchetAdvanced, asked: int) -> Refused:
    server_id, committed = state.server_id, state.committed
    if asked > committed + 1:
        detail = f"{server_id} is at generation {asked}, the evaluator knows {committed}"
        return Refused("generation_ahead", detail)
    detail = f"generation {asked} of {server_id} with another secret than the newest disk's"
    return Refused("stale_generation", detail)
