"""Whether the link, the agent and the providers are well, from signs that come and go. Pure.

Three facts, because one word for all of them is wrong about two. Times are arguments: seconds on a
clock that never goes back. ADR-26 gives the numbers' reasons.
"""

from collections.abc import Iterable
from dataclasses import dataclass, replace

from bus_schemas.events.health import LinkHealth, Presence


@dataclass(frozen=True, slots=True)
class Hysteresis:
    """How much it takes until something else is said than before."""

    signs: int
    """Against what is said, in a row."""
    span: float
    """Seconds from the first of these to the last: a burst in one bad moment is one sign."""
    hold: float
    """Seconds that `up` or `down` stands at least, before it is the other."""
    fresh: float
    """Seconds after the last sign, of either kind; then nothing tells any more."""


PROVIDER = Hysteresis(signs=3, span=10.0, hold=120.0, fresh=30 * 60.0)
AGENT = Hysteresis(signs=2, span=5.0, hold=120.0, fresh=30 * 60.0)

_SAME_MOMENT = 1.0

FLAPPING_LOSSES = 3
FLAPPING_SECONDS = 600.0
"""So many losses of the link within this are flapping; it is steady again after none in it."""


@dataclass(frozen=True, slots=True)
class Sensor:
    """What is said of one thing, and the signs against it."""

    said: Presence = Presence.UNKNOWN
    since: float = 0.0
    last: float = 0.0
    """When the last sign came."""
    against: int = 0
    against_since: float = 0.0


def sign(before: Sensor, *, up: bool, at: float, rule: Hysteresis) -> Sensor:
    """Return *before* after a sign that the thing is *up*, or is not.

    Where nothing was known, one good sign is enough; bad news always takes several.
    """
    claim = Presence.UP if up else Presence.DOWN
    if claim is before.said and not before.against and at - before.last < _SAME_MOMENT:
        return before  # nothing new: calls may come by the thousand
    stale = at - before.last > rule.fresh
    known = Sensor(last=at) if stale else replace(before, last=at)
    if claim is known.said:
        return replace(known, against=0)
    if known.said is Presence.UNKNOWN and up:
        return Sensor(claim, since=at, last=at)
    first = at if not known.against else known.against_since
    told = replace(known, against=known.against + 1, against_since=first)
    held = known.said is Presence.UNKNOWN or at - known.since >= rule.hold
    if held and told.against >= rule.signs and at - first >= rule.span:
        return Sensor(claim, since=at, last=at)
    return told


def presence(sensor: Sensor, now: float, rule: Hysteresis) -> Presence:
    """Return what is to be said at *now*."""
    return sensor.said if now - sensor.last <= rule.fresh else Presence.UNKNOWN


def worst(found: Iterable[Presence]) -> Presence:
    """Return `down` if one is, else `up` if one is."""
    said = set(found)
    return next((one for one in (Presence.DOWN, Presence.UP) if one in said), Presence.UNKNOWN)


@dataclass(frozen=True, slots=True)
class Losses:
    """The newest losses of the link, and whether it was flapping after the last."""

    at: tuple[float, ...] = ()
    flapping: bool = False


def lost(before: Losses, at: float) -> Losses:
    """Return *before* after one more loss."""
    recent = tuple(time for time in before.at if at - time < FLAPPING_SECONDS)
    recent = (*recent, at)[-FLAPPING_LOSSES:]
    still = before.flapping and len(recent) > 1
    return Losses(recent, still or len(recent) >= FLAPPING_LOSSES)


def link_health(losses: Losses, now: float) -> LinkHealth:
    """Return how the link has been: one loss and its return are no news."""
    quiet = not losses.at or now - losses.at[-1] >= FLAPPING_SECONDS
    return LinkHealth.FLAPPING if losses.flapping and not quiet else LinkHealth.STEADY
