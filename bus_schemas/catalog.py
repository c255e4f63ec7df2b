"""The catalogue: every event class of this build, found by its type, with a dated history."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import date
from functools import cache
from types import MappingProxyType

from bus_schemas import events
from bus_schemas.event import Event

EventClass = type[Event]


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
    """Whether *type_* (`….v<number>`) is a known event in a later major than this build knows."""
    stem, _, major = type_.rpartition(".v")
    split = (known.rpartition(".v") for known in catalog())
    majors = [int(number) for known, _, number in split if known == stem]
    return bool(majors) and int(major) > max(majors)
