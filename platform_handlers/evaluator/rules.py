"""The ratchet that tells the newest disk from a stale copy. Pure (docs/protocol.md, "Unlock").

Left to others: that the request is the server's and fresh, compare-and-set on the state, the
evaluation itself. Two copies of one disk hold the same shares until either unlocks; from then on
only that one's preimages fit (ADR-15). A refusal changes nothing, so an old backup that is
refused for its wrong ones cannot lock the live server out.
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
from platform_handlers.evaluator.approvers import ToldPins, approvers

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
    told_pins: ToldPins | None = None
    """What the server told of its pins, if it did."""
    remembered: int | None = None
    """Incarnation of the state that the evaluator's folder remembers; None if it has none."""
    refused_copies: frozenset[str] | None = None
    """Codes of the copies that were refused lately; None: unknown, or too many to remember."""


def first_state(server_id: str) -> RatchetAdvanced:
    """Return the state of a server that was never unlocked."""
    return RatchetAdvanced(server_id=server_id, committed=0)


def incarnation_of(state: RatchetAdvanced) -> int:
    """Return how many generations were ever committed."""
    return state.committed if state.incarnation is None else state.incarnation


def next_incarnation(state: RatchetAdvanced, told: int) -> int:
    """Return the number of the start that comes; *told* is the highest the ledger tells of."""
    return max(incarnation_of(state), told) + 1


def never_started(about: Circumstances) -> bool:
    """Return whether nothing tells of a start, so that a server without a state is a new one."""
    return about.incarnation == 0 and about.remembered is None


def came_by_window(state: RatchetAdvanced, *, now: int) -> bool:
    """Return whether the recovery window that is open at *now* (Unix seconds) let this disk in."""
    return state.recovered_until is not None and now < state.recovered_until


def instead(
    server_id: str, remembered: RatchetAdvanced | None, about: Circumstances
) -> RatchetAdvanced:
    """Return what a recovery window puts in place of a state that is gone or not the evaluator's.

    That is the last one it *remembered* in its folder, else a first one. Nothing is believed of
    what is stored: who forged it may be waiting for the window. An approval from before is void,
    since it may have been used. Raises Refused(`ratchet_forged`).
    """
    if about.now >= about.recover_until:
        detail = f"the state of {server_id} is gone or not the evaluator's; see the runbook"
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
    # A stamp of a clock that was ahead would count until then: the count goes without it.
    recent = tuple(at for at in state.unlocks if about.now - _HOUR < at <= about.now)
    if len(recent) >= UNLOCKS_PER_HOUR:
        detail = f"{state.server_id} was unlocked {len(recent)} times within the hour"
        raise Refused("too_many_unlocks", detail)
    announced = unlock_check(request.next_preimage)
    return found.model_copy(update={"pending_check": announced, "unlocks": (*recent, about.now)})


def commit(state: RatchetAdvanced, request: CommitRequest, about: Circumstances) -> RatchetAdvanced:
    """Return the state with the pending generation committed, or as it is on a repeat.

    Either way it holds the owner keys that the server obeys now, if it could say, and no approval
    any more: that was of a key that the server may just have given up. Raises Refused:
    `stale_generation`, `generation_ahead`.
    """
    check = unlock_check(request.preimage)
    if request.g == state.committed and check == state.committed_check:
        done = state  # the answer got lost, or only the pins have changed
    elif request.g == state.committed + 1 and check == state.pending_check:
        done = _committed(state, about)
    else:
        raise _wrong_generation(state, request.g)
    pins = done.owner_pins if request.owner_pins is None else request.owner_pins
    return done.model_copy(update={"owner_pins": pins, "approved_code": None})


def approve(state: RatchetAdvanced, approval: Approval, about: Circumstances) -> RatchetAdvanced:
    """Return the state with the copy that *approval* names let in once.

    Its signature was checked. The same approval again changes nothing as long as the copy has
    not come. Raises Refused: `not_an_owner_key`, `approval_expired`, `approval_replayed`,
    `unknown_copy`. The last catches slips and comes last: only an approver may learn of copies.
    """
    server_id, signer = state.server_id, owner_fingerprint(approval.public_key)
    if signer not in approvers(state.owner_pins or (), incarnation_of(state), about.told_pins):
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
    if about.refused_copies is not None and approval.code not in about.refused_copies:
        detail = f"no disk of {server_id} with the code {approval.code} was refused within a day"
        todo = "start byok-vps on the restored machine, compare the code on its console, sign anew"
        raise Refused("unknown_copy", f"{detail}: {todo}")
    return state.model_copy(
        update={"approved_code": approval.code, "approved_at": approval.issued_at}
    )


def check_new_key(state: RatchetAdvanced, about: Circumstances) -> None:
    """Raise Refused(`unlock_key_missing`) if a server that has started would get a new key.

    That opens nothing of its disk, and hides that the key file is not the newest. In a recovery
    window the operators have said that the old key is gone for good.
    """
    told = about.enrolment == 1 and about.incarnation > 0
    if (told or state.committed_check is not None) and about.now >= about.recover_until:
        detail = f"unlock-keys.db has no key of {state.server_id}, which has started with one"
        todo = "restore a later back-up of it; if there is none, see the runbook"
        raise Refused("unlock_key_missing", f"{detail}: {todo}")


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
        "owner_pins": _kept(state, about),
    }
    if g > state.committed + LONGEST_LEAP:
        return None
    approved = state.approved_at is not None and about.now < state.approved_at + APPROVAL_SECONDS
    if approved and state.approved_code == copy_code(state.server_id, g, check):
        return state.model_copy(update=moved | {"approved_code": None})
    until, newer = about.recover_until, g > state.committed
    if about.now < until and newer and state.recovered_until != until and _behind(state, about):
        return state.model_copy(update=moved | {"recovered_until": until})
    return None


def _behind(state: RatchetAdvanced, about: Circumstances) -> bool:
    """Return whether *state* may lack commits: something tells of them, or nothing can tell.

    A window is not for servers that lost nothing: whoever claims a higher one there is no server.
    """
    if about.remembered is None:
        return True
    return max(about.remembered, about.incarnation) > incarnation_of(state)


def _committed(state: RatchetAdvanced, about: Circumstances) -> RatchetAdvanced:
    return state.model_copy(
        update={
            "committed": state.committed + 1,
            "committed_check": state.pending_check,
            "pending_check": None,
            "incarnation": next_incarnation(state, about.incarnation),
            "owner_pins": _kept(state, about),
        }
    )


def _kept(state: RatchetAdvanced, about: Circumstances) -> tuple[str, ...] | None:
    """Return the owner keys without those given up: what was told of them ends with the start."""
    if state.owner_pins is None:
        return None
    kept = approvers(state.owner_pins, incarnation_of(state), about.told_pins)
    return tuple(pin for pin in state.owner_pins if pin in kept)


def _wrong_generation(state: RatchetAdvanced, asked: int) -> Refused:
    server_id, committed = state.server_id, state.committed
    if asked > committed + 1:
        detail = f"{server_id} is at generation {asked}, the evaluator knows {committed}"
        return Refused("generation_ahead", detail)
    detail = f"generation {asked} of {server_id} with another secret than the newest disk's"
    return Refused("stale_generation", detail)
