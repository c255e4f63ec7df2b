"""How far `byok key set` waits, and whether a credential has come so far. Pure."""

from enum import StrEnum

from bus_schemas.api import SlotView
from platform_handlers.owner.keys.rules import Course, Phase, course, told_revision


class Goal(StrEnum):
    """How far `byok key set` waits."""

    STORED = "stored"
    VERIFIED = "verified"
    IN_USE = "in-use"
    DRAINED = "drained"


class Result(StrEnum):
    """What can be said of a credential that was sent."""

    REACHED = "reached"
    WAITING = "waiting"
    UNCLEAR = "unclear"
    """It waits, and the provider's answer did not say whether it is good."""
    REFUSED = "refused"
    OVERTAKEN = "overtaken"
    """A newer one was sent in the meantime."""


def result(slot: SlotView, revision: int, goal: Goal) -> Result:
    """Say how *revision* of *slot* stands to *goal*."""
    told = told_revision(slot)
    if told != revision:  # below it: an answer from before it was sent
        return Result.OVERTAKEN if told > revision else Result.WAITING
    found = course(slot.steps)
    if found.phase in {Phase.REFUSED, Phase.ABORTED, Phase.RETIRED}:
        return Result.REFUSED
    if _reached(found, goal):
        return Result.REACHED
    unclear = found.phase is Phase.PENDING and found.verdict is not None
    return Result.UNCLEAR if unclear else Result.WAITING


def _reached(found: Course, goal: Goal) -> bool:
    match goal:
        case Goal.STORED:
            return found.stored_at is not None or found.was_current
        case Goal.VERIFIED:
            return found.phase is Phase.CURRENT
        case Goal.IN_USE:
            return found.answered
    return found.drained
