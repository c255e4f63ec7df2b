"""OWNER_KEY_CHANGED: which owner keys a server obeys, against those its owner knows of. Pure.

The owner knows of the keys the server told first, since one of them was typed at its console, and
of those they have seen in a banner and dismissed. Each change is a case of its own. A key that
came and went is told as well: whoever held it may have sealed a credential meanwhile.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final

from bus_schemas.events.banner import KeyChanges
from platform_handlers.banner.lifecycle import Banner, Content, Wanted

_MAX_PASSING: Final = 64
"""Of keys that came and went, so many are remembered."""


@dataclass(frozen=True)
class Pins:
    """Fingerprints of owner keys."""

    known: frozenset[str]
    """What the owner knows of."""
    now: frozenset[str]
    """What the server says that it obeys."""
    passing: frozenset[str] = frozenset()
    """What it obeyed in between."""


def after(old: Pins | None, pinned: Iterable[str], *, dismissed: bool) -> Pins:
    """Return the pins after a server told *pinned*; *old* itself when nothing changed.

    *dismissed* says whether the owner has dismissed what was told up to now: then they know it.
    """
    now = frozenset(pinned)
    if old is None:
        return Pins(now, now)
    if now == old.now:
        return old
    if dismissed:
        return Pins(old.now, now)
    passing = (old.passing | old.now) - old.known - now
    return Pins(old.known, now, frozenset(sorted(passing)[:_MAX_PASSING]))


def wanted(old: Banner | None, pins: Pins) -> Wanted | None:
    """Return what the banner should say of *pins*, which just changed; None for nothing."""
    changes = KeyChanges(
        added=tuple(sorted(pins.now - pins.known)),
        removed=tuple(sorted(pins.known - pins.now)),
        passing=tuple(sorted(pins.passing)),
    )
    if changes == KeyChanges():
        return None
    return Wanted(Content(keys=changes), times=old.times + 1 if old and old.stands else 1)
