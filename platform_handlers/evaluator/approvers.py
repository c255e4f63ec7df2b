"""Which owner keys may approve a copy: the last commit's, less those given up since. Pure.

Only a commit, which the server sealed and signed, adds a key. A locked server commits nothing, so
what it tells of its pins counts as well, and can only take away: whoever holds a server's token
could tell it, too.
"""

from collections.abc import Iterable
from dataclasses import dataclass


@dataclass(frozen=True)
class ToldPins:
    """What a server told of its pins, in the ledger's order."""

    incarnation: int
    """The start that told it: a later one's commit knows better."""
    pinned: frozenset[str]
    """The last list."""
    dropped: frozenset[str]
    """Keys that this start gave up; trusted again they approve from the next start on."""


def fold_pins(
    before: ToldPins | None, committed: Iterable[str], told: Iterable[str], incarnation: int
) -> ToldPins:
    """Return what is known once a server's start *incarnation* has *told* its pins.

    *committed* are those of its last commit.
    """
    pinned = frozenset(told)
    known, dropped = frozenset(committed), frozenset[str]()
    if before is not None:
        if incarnation < before.incarnation:
            return before  # late, or a copy's
        known |= before.pinned
        if incarnation == before.incarnation:
            dropped = before.dropped
    return ToldPins(incarnation, pinned, dropped | (known - pinned))


def approvers(committed: Iterable[str], incarnation: int, told: ToldPins | None) -> frozenset[str]:
    """Return who may approve: *committed* by the start *incarnation*, less what it gave up."""
    if told is None or told.incarnation < incarnation:
        return frozenset(committed)
    return frozenset(committed) - told.dropped
