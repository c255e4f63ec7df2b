"""Whose request is let in: a bucket and a few places for each server. Pure: time comes in.

Asked before anything is done for a request, in particular before any cryptography. Keys are the
subjects requests came on: NATS vouches for them, so a server can empty no bucket but its own, and
there are no more buckets than servers and join tokens. They live in memory: a restart fills them.
"""

from collections import Counter
from dataclasses import dataclass


@dataclass(frozen=True)
class Allowance:
    """What each server may ask."""

    burst: float
    """Requests, or other units, at once after a quiet time."""
    per_second: float
    """What grows back."""
    at_once: int
    """Requests of one server that are worked on at the same time."""


@dataclass(frozen=True)
class TurnedAway:
    """A request that is not let in."""

    seconds: float
    """When it would be, if no other comes; 0 when it was only one too many at the same time."""
    count: int
    """How many of this server's requests were turned away by now."""

    @property
    def worth_telling(self) -> bool:
        """Whether to log it: the first, the second, the fourth and so on, or a flood fills logs."""
        return self.count.bit_count() == 1


class Door:
    """The door of one handler."""

    def __init__(self, allowance: Allowance) -> None:
        self._allowance = allowance
        self._levels: dict[str, tuple[float, float]] = {}
        """What was left, and when that was."""
        self._inside: Counter[str] = Counter()
        self._turned_away: Counter[str] = Counter()

    def enter(self, key: str, *, now: float, cost: float = 1.0) -> TurnedAway | None:
        """Let a request in, to be followed by one `leave`; or say why not. *now* in seconds."""
        if self._inside[key] >= self._allowance.at_once:
            return self._away(key, 0.0)
        away = self.spend(key, now=now, cost=cost)
        if away is None:
            self._inside[key] += 1
        return away

    def spend(self, key: str, *, now: float, cost: float = 1.0) -> TurnedAway | None:
        """Like `enter`, for what takes no time and needs no `leave`."""
        level = self._level(key, now)
        if level < cost:
            return self._away(key, (cost - level) / self._allowance.per_second)
        self._levels[key] = (level - cost, now)
        return None

    def leave(self, key: str) -> None:
        """Say that a request that was let in is done with."""
        self._inside[key] -= 1
        if not self._inside[key]:
            del self._inside[key]

    def _level(self, key: str, now: float) -> float:
        level, since = self._levels.get(key, (self._allowance.burst, now))
        return min(self._allowance.burst, level + (now - since) * self._allowance.per_second)

    def _away(self, key: str, seconds: float) -> TurnedAway:
        self._turned_away[key] += 1
        return TurnedAway(seconds, self._turned_away[key])
