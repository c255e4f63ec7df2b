"""A replay before it runs: which part of the ledger, and what it can promise. Pure."""

from dataclasses import dataclass

from bus_schemas.errors import Refused
from bus_schemas.transport.jetstream import StreamState


@dataclass(frozen=True)
class ReplayPlan:
    """Both ends are fixed before the first message is read."""

    first: int
    last: int

    @property
    def messages(self) -> int:
        """How many sequences lie in the range, at the most."""
        return max(0, self.last - self.first + 1)


def plan_replay(state: StreamState, first: int | None, last: int | None) -> ReplayPlan:
    """Return the range to replay, both ends inclusive and inside the ledger as it is now.

    Raises Refused(`range_outside_ledger`) for a range that the ledger does not hold.
    """
    start = state.first if first is None else first
    end = state.last if last is None else last
    if start < state.first or end > state.last or start > end + 1:
        detail = f"the ledger holds {state.first} to {state.last}, asked for {start} to {end}"
        raise Refused("range_outside_ledger", detail)
    return ReplayPlan(max(start, 1), end)


def is_whole(plan: ReplayPlan, state: StreamState) -> bool:
    """Whether the range begins with the first fact ever, so the fold misses nothing."""
    return plan.first == 1 and state.first <= 1  # an empty ledger begins at 0
