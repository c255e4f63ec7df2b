"""What a fact does to the book of holders, before anything is changed. Pure."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace

from bus_schemas.events import FingerprintObserved, FingerprintRenewed, FingerprintRetired
from bus_schemas.events.fingerprint import MAX_SLOTS
from platform_handlers.fingerprint.holders import Holders, Holding, SlotKey, Standing, TagKey

_DAY = 24 * 60
"""Ticks; one is a minute that some handler saw."""

MAX_TAGS = 200
MAX_RETIRED = 96
RETIRED_LIFE_TICKS = 90 * _DAY
SERVER_LIFE_TICKS = 30 * _DAY
"""A server that said nothing for so many ticks is taken to hold nothing any more."""


@dataclass(frozen=True)
class Edit:
    """One holding is written or goes."""

    holding: Holding
    keep: bool


class OverLimit(Exception):
    """The server has more slots or tags than a server may have; the fact is dropped."""


@dataclass(frozen=True)
class Observer:
    """Who saw a tag, and when."""

    owner_id: str
    sequence: int
    """Ledger sequence of the fact."""
    tick: int


def observe(holders: Holders, event: FingerprintObserved, by: Observer) -> list[Edit]:
    """Hold the tag as current; the slot's earlier tokens of the same grant become retired.

    Raises OverLimit.
    """
    slot = SlotKey(event.server_id, event.slot_id)
    key = TagKey(event.epoch, event.tag)
    known = holders.of_slot(slot).get(key)
    if known and event.revision < known.revision:
        return []  # a late word about an older revision must not bring it back
    evicted = () if known else _make_room(holders, slot)
    holding = Holding(
        slot,
        by.owner_id,
        key,
        event.provider,
        known.basis if known else event.basis,  # part of what was hashed: it cannot have changed
        event.strength,
        event.revision,
        Standing.CURRENT,
        known.joined if known and known.is_current else by.sequence,
        by.tick,
    )
    earlier = [
        other
        for other in holders.of_slot(slot).values()
        if other.key != key and _same_grant(other, holding) and other not in evicted
    ]
    retiring = [
        replace(other, standing=Standing.RETIRED, seen_tick=by.tick)
        for other in earlier
        if other.is_current
    ]
    too_old = sorted(earlier, key=_age)[: max(0, len(earlier) - MAX_RETIRED)]
    written = [Edit(written, keep=True) for written in (holding, *retiring)]
    return _drops(evicted) + written + _drops(too_old)


def retire(holders: Holders, event: FingerprintRetired) -> list[Edit]:
    """Drop a revision of a slot and every lower one."""
    held = holders.of_slot(SlotKey(event.server_id, event.slot_id))
    return _drops(h for h in held.values() if h.revision <= event.revision)


def renew(holders: Holders, event: FingerprintRenewed) -> list[Edit]:
    """Drop what the server does not list: a lost retirement heals within a day."""
    kept = {(entry.slot_id, entry.revision) for entry in event.held}
    return _drops(
        holding
        for holding in holders.of_server(event.server_id)
        if (holding.slot.slot_id, holding.revision) not in kept
    )


def leave(holders: Holders, server_id: str) -> list[Edit]:
    """Drop everything a server holds."""
    return _drops(holders.of_server(server_id))


def close_epoch(holders: Holders, epoch: str) -> list[Edit]:
    """Drop every tag of *epoch*."""
    return _drops(holding for holding in holders if holding.key.epoch == epoch)


def expire(holders: Holders, renewed: Mapping[str, int], tick: int) -> list[Edit]:
    """Drop what was not renewed in time; *renewed* tells the last tick of servers that may speak.

    A revoked server is silenced by us, so its silence says nothing: what it held stays.
    """
    return _drops(
        holding
        for holding in holders
        if tick - renewed.get(holding.slot.server_id, tick) > SERVER_LIFE_TICKS
        or (not holding.is_current and tick - holding.seen_tick > RETIRED_LIFE_TICKS)
    )


def _drops(gone: Iterable[Holding]) -> list[Edit]:
    return [Edit(holding, keep=False) for holding in gone]


def _make_room(holders: Holders, slot: SlotKey) -> tuple[Holding, ...]:
    """Return what must go before *slot* may hold one tag more. Raises OverLimit.

    A token out of use makes way for one in use: else a server with many logins would, once full,
    never be seen to share a new one.
    """
    slots = holders.by_server.get(slot.server_id, {})
    if slot.slot_id not in slots and len(slots) >= MAX_SLOTS:
        raise OverLimit
    held = holders.of_server(slot.server_id)
    if len(held) < MAX_TAGS:
        return ()
    retired = [holding for holding in held if not holding.is_current]
    if not retired:
        raise OverLimit
    return (min(retired, key=_age),)


def _same_grant(one: Holding, other: Holding) -> bool:
    return (one.basis, one.revision, one.key.epoch) == (
        other.basis,
        other.revision,
        other.key.epoch,
    )


def _age(holding: Holding) -> int:
    return holding.joined
