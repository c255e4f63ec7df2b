"""Which revisions a key's taker may still have in hand. Pure.

One key of the memory (`Facts.told`) for each slot that goes this way: `exec/<slot>`, as JSON.
"""

from collections.abc import Mapping
from typing import Annotated, Final

from pydantic import Field

from bus_schemas.event import Contract
from bus_schemas.fields import Counter

_KEY: Final = "exec/"


class InHand(Contract, extra="forbid"):
    """One revision that was given out."""

    revision: Counter
    until: Annotated[float, Field(ge=0)] | None = None
    """Unix seconds after which it is used no more; None while nothing has replaced it."""


class Handed(Contract, extra="forbid"):
    """All that was given out of one slot and may still be used."""

    hands: tuple[InHand, ...] = ()


def handed_of(slot_id: str, told: Mapping[str, str]) -> Handed | None:
    """Return what was given out of *slot_id*; None if its key does not go this way."""
    value = told.get(handed_key(slot_id))
    return Handed.model_validate_json(value) if value else None


def handed_key(slot_id: str) -> str:
    """Return where the memory keeps it."""
    return f"{_KEY}{slot_id}"


def handed_slots(told: Mapping[str, str]) -> list[str]:
    """Return the slots whose keys go this way."""
    return sorted(key.removeprefix(_KEY) for key in told if key.startswith(_KEY))


def given(before: Handed, revision: int) -> Handed:
    """Note *revision*, before it is given out."""
    others = tuple(one for one in before.hands if one.revision != revision)
    return Handed(hands=(*others, InHand(revision=revision)))


def replaced(before: Handed, revision: int | None, *, at: float, grace: float) -> Handed:
    """Note that the taker now has *revision* and nothing else; None stands for no key at all.

    What it had before is used for *grace* seconds more: a turn keeps the key it began with.
    """
    return Handed(
        hands=tuple(
            one
            if one.revision == revision or one.until is not None
            else InHand(revision=one.revision, until=at + grace)
            for one in before.hands
        )
    )


def still(before: Handed, now: float) -> Handed:
    """Return what of *before* may still be used at *now*, Unix seconds."""
    return Handed(hands=tuple(one for one in before.hands if one.until is None or one.until > now))


def uses_older(handed: Handed | None, revision: int, now: float) -> bool:
    """Whether something below *revision* may still be used at *now*."""
    return handed is not None and any(one.revision < revision for one in still(handed, now).hands)
