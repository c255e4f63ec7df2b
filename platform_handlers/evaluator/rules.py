"""The ratchet that tells the newest disk from a stale copy. Pure (docs/protocol.md, "Unlock").

Left to others: that the request is the server's and fresh, compare-and-set on the state, the
evaluation itself. Two copies of one disk hold the same share until either unlocks; from then on
only that one's preimage fits. A request with the right preimage is always served, so that an
old backup, refused for its wrong one, cannot lock the live server out.
"""

from dataclasses import dataclass, field
from typing import Final

from bus_schemas.errors import Refused
from bus_schemas.evaluation import CommitRequest, UnlockRequest
from bus_schemas.events import RatchetAdvanced
from bus_schemas.unlock import unlock_check

UNLOCKS_PER_HOUR: Final = 30
EVALUATIONS_PER_DAY: Final = 400
NONCE_SECONDS: Final = 60
_NONCES_PER_SERVER = 16
_HOUR = 3600


def first_state(server_id: str) -> RatchetAdvanced:
    """Return the state of a server that was never unlocked."""
    return RatchetAdvanced(
        server_id=server_id, committed=0, committed_check=None, pending_check=None
    )


def unlock(state: RatchetAdvanced, request: UnlockRequest, *, now: int) -> RatchetAdvanced:
    """Return the state after serving *request*, which announces the next generation.

    Raises Refused: `stale_generation` (a second or an older copy asks), `generation_ahead` (the
    evaluator itself was restored from a backup), `too_many_unlocks`.
    """
    check = unlock_check(request.preimage)
    committed = state.committed
    # Before the first commit no root key exists that a copy could open: anything fits.
    if request.g == committed and (committed == 0 or check == state.committed_check):
        advanced = state
    elif request.g == committed + 1 and check == state.pending_check:
        advanced = _committed(state)  # it is on the disk; only the commit got lost
    else:
        raise _wrong_generation(state, request.g)
    recent = tuple(at for at in state.unlocks if at > now - _HOUR)
    if len(recent) >= UNLOCKS_PER_HOUR:
        detail = f"{state.server_id} was unlocked {len(recent)} times within the hour"
        raise Refused("too_many_unlocks", detail)
    return advanced.model_copy(
        update={"pending_check": request.next_check, "unlocks": (*recent, now)}
    )


def commit(state: RatchetAdvanced, request: CommitRequest) -> RatchetAdvanced:
    """Return the state with the pending generation committed; *state* itself on a repeat.

    Raises Refused: `stale_generation`, `generation_ahead`.
    """
    check = unlock_check(request.preimage)
    if request.g == state.committed and check == state.committed_check:
        return state  # the answer got lost
    if request.g == state.committed + 1 and check == state.pending_check:
        return _committed(state)
    raise _wrong_generation(state, request.g)


def _committed(state: RatchetAdvanced) -> RatchetAdvanced:
    return state.model_copy(
        update={
            "committed": state.committed + 1,
            "committed_check": state.pending_check,
            "pending_check": None,
        }
    )


def _wrong_generation(state: RatchetAdvanced, asked: int) -> Refused:
    server_id, committed = state.server_id, state.committed
    if asked > committed + 1:
        detail = f"{server_id} is at generation {asked}, the evaluator knows {committed}"
        return Refused("generation_ahead", detail)
    detail = f"generation {asked} of {server_id} with another secret than the newest disk's"
    return Refused("stale_generation", detail)


@dataclass
class Nonces:
    """Nonces in the memory of one evaluator: each good for one request of one server, a minute.

    A restart forgets them and servers ask for new ones. A server's oldest gives way to a new one,
    so nobody can fill the memory, and nobody can take another server's.
    """

    _issued: dict[str, dict[bytes, float]] = field(default_factory=dict)

    def issue(self, server_id: str, nonce: bytes, *, now: float) -> None:
        """Remember a fresh random *nonce*; *now* on any clock that never goes back."""
        mine = self._issued.setdefault(server_id, {})
        while len(mine) >= _NONCES_PER_SERVER:
            del mine[next(iter(mine))]
        mine[nonce] = now

    def use(self, server_id: str, nonce: bytes, *, now: float) -> None:
        """Spend *nonce*. Raises Refused(`stale_nonce`) for a used, old, foreign or made-up one."""
        issued_at = self._issued.get(server_id, {}).pop(nonce, None)
        if issued_at is None or now > issued_at + NONCE_SECONDS:
            raise Refused("stale_nonce", f"{server_id} must ask for a new nonce and sign again")


def check_allowance(spent: int, wanted: int, server_id: str) -> None:
    """Raise Refused(`too_many_evaluations`) when *wanted* more would exceed today's allowance."""
    if spent + wanted > EVALUATIONS_PER_DAY:
        detail = f"{server_id} had {spent} of {EVALUATIONS_PER_DAY} evaluations today"
        raise Refused("too_many_evaluations", detail)
