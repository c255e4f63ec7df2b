"""How long to wait before trying again: longer each time, and never all at the same moment."""

import random


def jittered(seconds: float) -> float:
    """Return *seconds* give or take a half, so that a fleet does not act in step."""
    return seconds * random.uniform(0.5, 1.5)  # noqa: S311 (spreads a load, keeps no secret)


class BackOff:
    """The pauses between attempts at one thing, in seconds."""

    def __init__(self, *, first: float, longest: float) -> None:
        self._first = first
        self._longest = longest
        self._next = first

    def pause(self) -> float:
        """Return how long to wait now, jittered; the next one is twice as long, up to *longest*."""
        now, self._next = self._next, min(2 * self._next, self._longest)
        return jittered(now)

    def over(self) -> None:
        """Begin anew: it worked."""
        self._next = self._first
