"""The catalogue: every event class of this build, found by its type, with a dated history."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import date
from functools import cache
from types import MappingProxyType
from typing import TypeVar

from bus_schemas import events
from bus_schemas.event import Event

EventClass = type[Event]
_E = TypeVar("_E", bound=Event)


@dataclass(frozen=True)
class Change:
    """One dated line of the catalogue's history."""

    on: date
    what: str
    types: tuple[str, ...]
    """Types that entered; `*` stands for all that carry the date in `since`."""


HISTORY = (Change(date(2026, 11, 23), "First catalogue: every event of the loop.", ("*",)),)


@cache
def catalog() -> Mapping[str, EventClass]:
    """Return all event classes by `type`, in the order of the events package."""
    found = (getattr(events, name) for name in events.__all__)
    return MappingProxyType({cls.type: cls for cls in found if hasattr(cls, "type")})


def is_newer_major(type_: str) -> bool:
    """Whether *type_* is a known event in a major this build does not know."""
    stem, _, _ = type_.rpartition(".v")
    return type_ not in catalog() and any(t.rpartition(".v")[0] == stem for t in catalog())
