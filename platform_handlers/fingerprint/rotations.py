"""ROTATION_STUCK and ROTATION_DUE: how far each slot's newest rotation has come. Pure.

Left to others: which slots there are (`rotation_book.py`), the banners' lifecycle. Time is ticks,
so an outage of the handlers makes nothing old (ADR-29). Both only tell: nothing is ever cut off.
"""

from collections.abc import Collection
from typing import Final, NamedTuple

from bus_schemas.event import Event
from bus_schemas.events import (
    ConfigRequested,
    CredentialAborted,
    CredentialInUse,
    CredentialNeedsKey,
    CredentialRejected,
    CredentialRetired,
    CredentialStored,
    CredentialVerified,
)
from bus_schemas.events.banner import NOTICE_DAYS, BannerCode, RotationNote
from bus_schemas.events.reported import RotationStep
from bus_schemas.fields import CredentialKind
from platform_handlers.banner.lifecycle import Banner, Content, Wanted
from platform_handlers.fingerprint.holders import SlotKey

_DAY: Final = 24 * 60
"""Ticks; one is a minute that some handler saw."""

STUCK_TICKS: Final = 15

ROTATION_CODES: Final = (BannerCode.ROTATION_STUCK, BannerCode.ROTATION_DUE)


class Mark(NamedTuple):
    """A revision, and since when it is what it is marked as."""

    revision: int = 0
    """0 for none."""
    tick: int = 0
    ages: bool = False
    """Whether it is an API key, as far as the platform was asked for one: a login renews itself."""


NONE: Final = Mark()


class Rotation(NamedTuple):
    """What matters of one slot."""

    asked: Mark = NONE
    """The newest revision that its owner has sent."""
    stored: Mark = NONE
    """The newest that the server told it has stored."""
    used: Mark = NONE
    """The one in use, with the tick at which it was *stored*."""
    ended: int = 0
    """Of this revision and all below it, the rotation is over: promoted, or given up."""


NOTHING: Final = Rotation()


def slot_of(event: Event) -> SlotKey | None:
    """Return the slot whose rotation *event* may move on; None for most events."""
    match event:
        case ConfigRequested():
            return SlotKey(event.server_id, event.slot.slot_id)
        case RotationStep() | CredentialNeedsKey():
            return SlotKey(event.server_id, event.slot_id)
        case _:
            return None


def after(old: Rotation, event: Event, tick: int) -> Rotation:
    """Return the rotation after *event*, which is about its slot; *old* if it says nothing new."""
    new = old
    match event:
        case ConfigRequested():
            ages = event.slot.kind is CredentialKind.API_KEY
            asked = _asked(old, Mark(event.slot.revision, tick, ages))
            # What was retired on its way no server took, so none will tell that it is over.
            new = _ended(asked, event.slot.min_revision - 1)
        case CredentialStored():
            new = _stored(old, event.revision, tick)
        case CredentialVerified(promoted=True) | CredentialInUse():
            new = _promoted(old, event.revision, tick)
        case CredentialRejected() | CredentialAborted():
            new = _ended(old, event.revision)
        case CredentialRetired():
            new = _retired(old, event.revision)
        case CredentialNeedsKey():
            new = old._replace(used=NONE)
    return new


def listed(old: Rotation, held: Collection[int]) -> Rotation:
    """Return the rotation after the server listed the revisions it holds in the slot."""
    return old if old.used.revision in held else old._replace(used=NONE)


def notes(rotation: Rotation, tick: int) -> dict[BannerCode, RotationNote | None]:
    """Return what is to be said of *rotation* at *tick*, under each code."""
    return {
        BannerCode.ROTATION_STUCK: _stuck(rotation, tick),
        BannerCode.ROTATION_DUE: _due(rotation, tick),
    }


def noted(old: Banner | None, note: RotationNote | None) -> Wanted | None:
    """Return what the banner should say; a new revision or age is a case of its own.

    Whom a stuck rotation waits for is not: it is told, but it reopens nothing.
    """
    if note is None:
        return None
    content = Content(rotation=note)
    before = old.content.rotation if old and old.stands else None
    if old is None or before is None:
        return Wanted(content, times=1)
    known = (before.revision, before.age_days) == (note.revision, note.age_days)
    return Wanted(content, times=old.times + (not known))


def next_look(rotation: Rotation, tick: int) -> int | None:
    """Return the first tick after *tick* at which `notes` may say something else by itself."""
    asked, used = rotation.asked, rotation.used
    looks = [asked.tick + STUCK_TICKS] if asked.revision > rotation.ended else []
    if used.ages:
        looks += [used.tick + days * _DAY for days in NOTICE_DAYS]
    return min((look for look in looks if look > tick), default=None)


def _stuck(rotation: Rotation, tick: int) -> RotationNote | None:
    revision = rotation.asked.revision
    if revision <= rotation.ended or tick - rotation.asked.tick < STUCK_TICKS:
        return None
    waits_for = "provider" if rotation.stored.revision >= revision else "server"
    return RotationNote(revision=revision, waits_for=waits_for)


def _due(rotation: Rotation, tick: int) -> RotationNote | None:
    used = rotation.used
    age = (tick - used.tick) // _DAY
    if not used.ages or age < NOTICE_DAYS[0]:
        return None
    return RotationNote(revision=used.revision, age_days=max(d for d in NOTICE_DAYS if d <= age))


def _asked(old: Rotation, asked: Mark) -> Rotation:
    """Return *old* with a newer revision asked for; told again it is no newer.

    The server may have been faster than this word, or than the first one ever: then it was not
    known what it stored.
    """
    if asked.revision <= old.asked.revision:
        return old
    stored, used = (
        mark._replace(ages=asked.ages)
        if mark.revision == asked.revision or (mark.revision and old.asked == NONE)
        else mark
        for mark in (old.stored, old.used)
    )
    return Rotation(asked, stored, used, old.ended)


def _stored(old: Rotation, revision: int, tick: int) -> Rotation:
    if revision <= old.stored.revision:
        return old
    return old._replace(stored=Mark(revision, tick, old.asked.ages))


def _promoted(old: Rotation, revision: int, tick: int) -> Rotation:
    over = _ended(old, revision)
    if revision <= old.used.revision:
        return over
    if old.stored.revision == revision:
        return over._replace(used=old.stored)
    return over._replace(used=Mark(revision, tick, old.asked.ages))


def _retired(old: Rotation, revision: int) -> Rotation:
    over = _ended(old, revision)
    return over._replace(used=NONE) if old.used.revision <= revision else over


def _ended(old: Rotation, revision: int) -> Rotation:
    return old if revision <= old.ended else old._replace(ended=revision)
