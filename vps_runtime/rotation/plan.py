"""When the provider is asked about which revision. Pure.

Left to others: asking, the clock, and spreading the moments of many servers.
"""

from dataclasses import dataclass
from typing import Final

from bus_schemas.events.health import Validity
from vps_runtime.rotation.rules import SlotRotation

_PENDING_FIRST: Final = 5.0
_PENDING_LONGEST: Final = 60.0
_CURRENT_FIRST: Final = 60.0
AGAIN_SECONDS: Final = 6 * 3600.0
"""How often the provider is asked about the revision in use."""
_REFUSED_SECONDS: Final = 30.0
"""How soon after one verdict a refused call asks for another."""


@dataclass(frozen=True, slots=True)
class Asked:
    """What this process has asked about one revision."""

    at: float
    """When the last answer, or its absence, was there; seconds of a clock that never goes back."""
    unknown: int
    """How many times in a row the provider gave no verdict."""
    refused: bool = False
    """Whether a call has told since that the verdict may have changed."""
    spread: float = 1.0
    """Makes this server's waits longer or shorter than those of others."""


def due_at(rotation: SlotRotation, revision: int, asked: Asked | None) -> float | None:
    """Return when to ask about *revision*, on the clock of `Asked.at`; None for never."""
    if revision not in {rotation.pending, rotation.current}:
        return None
    if asked is None or rotation.asked == revision:
        return 0.0
    return asked.at + asked.spread * _wait(rotation, revision, asked)


def _wait(rotation: SlotRotation, revision: int, asked: Asked) -> float:
    if revision == rotation.pending:
        return _longer(_PENDING_FIRST, asked.unknown, _PENDING_LONGEST)
    if asked.refused:
        return _REFUSED_SECONDS
    if rotation.validity is Validity.UNKNOWN and asked.unknown:
        return _longer(_CURRENT_FIRST, asked.unknown, AGAIN_SECONDS)
    return AGAIN_SECONDS


def _longer(first: float, times: int, longest: float) -> float:
    return min(longest, first * 2.0 ** max(0, min(times, 32) - 1))
