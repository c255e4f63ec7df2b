"""What a fact does to the book of holders, before anything is changed. Pure."""

from collections.abc import Iterable
from dataclasses import dataclass, replace

from bus_schemas.events import FingerprintObserved, FingerprintRenewed, FingerprintRetired
from platform_handlers.fingerprint.holders import Holders, Holding, SlotKey, Standing, TagKey

_DAY = 24 * 60
"""Ticks; one is a minute that some handler saw."""

MAX_SLOTS = 64
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
    held = holders.of_slot(slot)
    known = held.get(key)
    if known is None and _is_full(holders, slot):
        raise OverLimit
    if known and event.revision < known.revision:
        return []  # a late word about an older revision must not bring it back
    holding = Holding(
        slot,
        by.owner_id,
        key,
        event.provider,
        event.basis,
        event.strength,
        event.revision,
        Standing.CURRENT,
        known.joined if known else by.sequence,
        by.tick,
    )
    earlier = [
        other
        for other in held.values()
        if other.key != key
        and (other.basis, other.revision, other.key.epoch)
        == (event.basis, event.revision, event.epoch)
    ]
    edits = [Edit(holding, keep=True)]
    edits += [
        Edit(replace(other, standing=Standing.RETIRED, seen_tick=by.tick), keep=True)
        for other in earlier
        if other.standing is Standing.CURRENT
    ]
    oldest = sorted(earlier, key=lambda other: other.joined)
    return edits + _drops(oldest[: max(0, len(earlier) - MAX_RETIRED)])


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


def expire(holders: Holders, renewed: dict[str, int], tick: int) -> list[Edit]:
    """Drop what was not renewed in time; *renewed* tells each server's last tick."""
    return _drops(
        holding
        for holding in holders
        if tick - renewed[holding.slot.server_id] > SERVER_LIFE_TICKS
        or (holding.standing is Standing.RETIRED and tick - holding.seen_tick > RETIRED_LIFE_TICKS)
    )


def _drops(gone: Iterable[Holding]) -> list[Edit]:
    return [Edit(holding, keep=False) for holding in gone]


def _is_full(holders: Holders, slot: SlotKey) -> bool:
    slots = holders.by_server.get(slot.server_id, {})
    tags = sum(len(held) for held in slots.values())
    return tags >= MAX_TAGS or (slot.slot_id not in slots and len(slots) >= MAX_SLOTS)
