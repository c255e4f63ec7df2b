"""Which revision each call to a provider was made with, and what the provider answered. In memory.

The gateway notes every call here, and whoever sends a credential in another way its own. From it
follow the applied receipt, `drained`, and that a key is refused.
"""

import time
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from http import HTTPStatus
from typing import Protocol

_STATUSES = range(100, 600)
"""Any other is none, and stands for 500 (RFC 9110 section 15)."""


class KeyUser(Protocol):
    """Somebody who may still use a credential that is no longer the newest."""

    def uses_older(self, slot_id: str, revision: int) -> bool:
        """Whether something below *revision* of *slot_id* may still be on its way or in a hand."""
        ...


@dataclass(frozen=True, slots=True)
class Answer:
    """The head of a provider's answer to one call."""

    slot_id: str
    revision: int
    status: int
    at: float
    """Unix seconds."""


class Calls:
    """Calls that wait for the head of their answer, and the last answer of each slot."""

    def __init__(self, clock: Callable[[], float] = time.time) -> None:
        self._clock = clock
        self._waiting: Counter[tuple[str, int]] = Counter()
        self._last: dict[str, Answer] = {}
        self._on_answer: list[Callable[[Answer], None]] = []
        self._on_settled: list[Callable[[], None]] = []
        self._on_began: list[Callable[[], None]] = []
        self._on_reach: list[Callable[[str, bool], None]] = []

    def on_began(self, callback: Callable[[], None]) -> None:
        """Call *callback* at each call of the agent; it must not block."""
        self._on_began.append(callback)

    def on_answer(self, callback: Callable[[Answer], None]) -> None:
        """Call *callback* with the head of each answer; it must not block."""
        self._on_answer.append(callback)

    def on_settled(self, callback: Callable[[], None]) -> None:
        """Call *callback* when no call of some revision waits any more."""
        self._on_settled.append(callback)

    def on_reach(self, callback: Callable[[str, bool], None]) -> None:
        """Call *callback* with a slot, and whether its provider answered a call at all."""
        self._on_reach.append(callback)

    @property
    def last(self) -> Mapping[str, Answer]:
        """The newest answer of each slot, since the start."""
        return self._last

    def began(self, slot_id: str, revision: int) -> None:
        """Note a call; in the same step of the loop in which its key was asked for."""
        self._waiting[slot_id, revision] += 1
        for callback in self._on_began:
            callback()

    def answered(self, slot_id: str, revision: int, status: int) -> None:
        """Note the head of an answer; the call waits no more."""
        status = status if status in _STATUSES else HTTPStatus.INTERNAL_SERVER_ERROR
        self._last[slot_id] = answer = Answer(slot_id, revision, int(status), self._clock())
        self._settle(slot_id, revision)
        self.reached(slot_id, answered=True)
        for callback in self._on_answer:
            callback(answer)

    def failed(self, slot_id: str, revision: int) -> None:
        """Note that a call ended without an answer."""
        self._settle(slot_id, revision)

    def reached(self, slot_id: str, *, answered: bool) -> None:
        """Note whether a slot's provider answers, whoever asked it; an outage of ours is no sign.

        After `failed`, that is: only if the provider, and not the caller, broke the call off.
        """
        for callback in self._on_reach:
            callback(slot_id, answered)

    def uses_older(self, slot_id: str, revision: int) -> bool:
        """Whether a call with a revision below *revision* waits for the head of its answer."""
        return any(slot == slot_id and used < revision for slot, used in self._waiting)

    def _settle(self, slot_id: str, revision: int) -> None:
        self._waiting[slot_id, revision] -= 1
        if self._waiting[slot_id, revision] <= 0:
            del self._waiting[slot_id, revision]
            for callback in self._on_settled:
                callback()
