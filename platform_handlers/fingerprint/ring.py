"""Servers on a circle: whom each names when there are too many to name them all. Pure.

A banner names at most twenty others. Were it the same twenty for a whole group, each of them that
leaves would change every banner: ten thousand servers that rotate one after the other would cause
fifty million events. So each server names those that follow it on a circle, and is itself named
by about as many. Seats are hashes of the ids: whatever the order in which servers come, leave or
refresh, it does not meet the circle in a row.
"""

import hashlib
from bisect import bisect_left, bisect_right
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

_Seat = tuple[bytes, str]


@dataclass(slots=True, init=False)
class Ring:
    """A set of server ids, each with a fixed place on the circle."""

    _seats: list[_Seat]

    def __init__(self, members: Iterable[str] = ()) -> None:
        self._seats = sorted(map(_seat, members))

    def __len__(self) -> int:
        return len(self._seats)

    def __iter__(self) -> Iterator[str]:
        return (member for _, member in self._seats)

    def __contains__(self, member: str) -> bool:
        at = bisect_left(self._seats, _seat(member))
        return self._seats[at : at + 1] == [_seat(member)]

    def keep(self, member: str, *, inside: bool) -> None:
        """Add *member*, or take it out; either may be so already."""
        seat = _seat(member)
        at = bisect_left(self._seats, seat)
        there = self._seats[at : at + 1] == [seat]
        if inside and not there:
            self._seats.insert(at, seat)
        elif there and not inside:
            del self._seats[at]

    def others(self, member: str) -> int:
        """Return how many there are besides *member*, who may be outside."""
        return len(self) - (member in self)

    def after(self, member: str, count: int) -> list[str]:
        """Return the next *count* others after *member*'s place, or all there are."""
        count = min(count, self.others(member))
        at = bisect_right(self._seats, _seat(member))
        ahead = self._seats[at : at + count]
        return [name for _, name in ahead + self._seats[: count - len(ahead)]]

    def naming(self, member: str, pool: "Ring", count: int) -> list[str]:
        """Return our members that find *member* among the next *count* of *pool*."""
        if pool.others(member) < count:
            return [name for name in self if name != member]
        first, end = _seat(pool.before(member, count)), _seat(member)
        begin, stop = bisect_left(self._seats, first), bisect_left(self._seats, end)
        if first < end:
            return [name for _, name in self._seats[begin:stop]]
        return [name for _, name in self._seats[begin:] + self._seats[:stop]]

    def before(self, member: str, count: int) -> str:
        """Return who sits *count* places before *member*'s; there must be so many others."""
        at = bisect_left(self._seats, _seat(member)) - count
        return self._seats[at][1]  # a negative place counts from the end: the circle is closed


def _seat(member: str) -> _Seat:
    return hashlib.sha256(member.encode()).digest()[:8], member
