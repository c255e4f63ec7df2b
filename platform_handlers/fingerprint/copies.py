"""CLONE_SUSPECTED: what gave a second copy of a server away, how often, on which day last. Pure.

Left to others: to notice. The evaluator refuses an older disk, the health handler hears two
machines (ADR-19). Each sign is a case of its own and reopens what was dismissed. But thirty
refusals an hour must not be thirty events: the count is told in steps, and the day, not the hour.
"""

from datetime import date
from typing import Final

from bus_schemas.event import Event
from bus_schemas.events import StatusChanged, UnlockRefused
from bus_schemas.events.banner import Copies, CopySign
from bus_schemas.events.health import Transition
from platform_handlers.banner.lifecycle import Banner, Content, Wanted

_STEPS: Final = (1000, 100, 10, 2, 1)


def sign_in(event: Event) -> tuple[str, CopySign] | None:
    """Return the server of which *event* shows a second copy, and how; None for most events."""
    match event:
        case UnlockRefused(reason="stale_generation"):
            return event.server_id, CopySign.STALE_DISK
        case StatusChanged(transition=Transition.CLONED):
            return event.server_id, CopySign.TWO_RUNNING
        case _:
            return None


def noticed(old: Banner | None, sign: CopySign, on: date) -> Wanted:
    """Return what the banner should say after one *sign* more, on the day *on* in UTC."""
    before = old.content.copies if old and old.stands else None
    times = old.times + 1 if old and before else 1
    copies = Copies(
        signs=tuple(sorted({sign, *(before.signs if before else ())})),
        times=next(low for low in _STEPS if times >= low),
        last_on=on,
    )
    return Wanted(Content(copies=copies), times=times)
