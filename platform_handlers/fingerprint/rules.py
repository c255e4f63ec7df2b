"""OAUTH_REUSE and API_KEY_REUSE: which slots share a credential, and what each may be told. Pure.

Left to others: reading the ledger, the book of holders (`holders.py`), the banners' lifecycle.
A tag is a match between two slots on different servers if it is *current* in at least one of
them: retired with retired is none, so signing in anew clears it. A guessable tag (an email
address) matches only within one owner: across owners anybody could type an address to frame
another, or to probe who uses it.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from itertools import islice

from bus_schemas.events.banner import BannerCode, Sharing
from bus_schemas.fields import Basis, Strength
from platform_handlers.fingerprint.holders import (
    Holders,
    Holding,
    OwnerHolders,
    SlotKey,
    Standing,
    TagHolders,
    first_joined,
)

RULES_VERSION = 1
"""What a `byok.v1.rules` fact may ask of this code."""

LISTED = 20
"""How many of the owner's own servers a banner names."""

_OWN_BUCKETS = (1001, 101, 21)
_OTHER_BUCKETS = (101, 21, 6, 2, 1)

CODE_OF = {
    Basis.API_KEY: BannerCode.API_KEY_REUSE,
    Basis.OAUTH_GRANT: BannerCode.OAUTH_REUSE,
    Basis.OAUTH_ACCOUNT: BannerCode.OAUTH_REUSE,
}
REUSE_CODES = (BannerCode.API_KEY_REUSE, BannerCode.OAUTH_REUSE)


def own_bucket(count: int) -> int:
    """Return *count* up to 20, above that the lower end of its bucket."""
    return next((low for low in _OWN_BUCKETS if count >= low), count)


def other_bucket(count: int) -> int:
    """Return the lower end of *count*'s bucket: 0, 1, 2, 6, 21 or 101 owners."""
    return next((low for low in _OTHER_BUCKETS if count >= low), 0)


def sharing(holders: Holders, slot: SlotKey, code: BannerCode) -> Sharing | None:
    """Return what *slot*'s owner is told under *code*; None when nothing matches."""
    own: dict[str, int] = {}
    own_total = 0
    others: set[str] = set()
    others_total = 0
    bases: set[Basis] = set()
    for holding in holders.of_slot(slot).values():
        if CODE_OF[holding.basis] is not code:
            continue
        tag = holders.of_tag(holding.key)
        mine = tag.owners[holding.owner_id]
        first, total = _own_partners(mine, holding)
        foreign, foreign_total = _other_owners(tag, holding)
        for server_id, joined in first:
            own[server_id] = min(joined, own.get(server_id, joined))
        own_total = max(own_total, total)
        others.update(foreign)
        others_total = max(others_total, foreign_total)
        if total or foreign_total:
            bases.add(holding.basis)
    if not bases:
        return None
    return Sharing(
        own_servers=tuple(sorted(own, key=lambda server: (own[server], server))[:LISTED]),
        own_servers_total=own_bucket(max(own_total, len(own))),
        other_owners=other_bucket(max(others_total, len(others))),
        bases=tuple(sorted(bases)),
    )


def partners(holders: Holders, slot: SlotKey, code: BannerCode) -> dict[str, int]:
    """Return every other server that *slot* matches under *code*, with when it joined.

    Foreign servers included: this is for dismissals only and never leaves the handler. The
    value is the ledger sequence of the earliest matching fact.
    """
    joined: dict[str, int] = {}
    for holding in holders.of_slot(slot).values():
        if CODE_OF[holding.basis] is not code:
            continue
        for owner_id, owned in holders.of_tag(holding.key).owners.items():
            if owner_id != holding.owner_id and holding.strength is Strength.GUESSABLE:
                continue
            for server_id in _partner_servers(owned, holding):
                first = first_joined(owned.servers[server_id])
                joined[server_id] = min(first, joined.get(server_id, first))
    return joined


@dataclass(frozen=True)
class View:
    """All of a tag that one owner's banners can show."""

    first: tuple[tuple[str, bool], ...]
    own: int
    own_current: int
    others: int
    others_current: int


def view(tag: TagHolders, owner_id: str) -> View:
    """Return what *owner_id*'s banners can show of *tag*, in buckets, without walking it all."""
    mine = tag.owners.get(owner_id, OwnerHolders())
    return View(
        tuple((server, server in mine.current) for server in islice(mine.servers, LISTED + 2)),
        own_bucket(len(mine.servers)),
        own_bucket(len(mine.current)),
        other_bucket(len(tag.owners) - (owner_id in tag.owners)),
        other_bucket(len(tag.current) - (owner_id in tag.current)),
    )


def _partner_servers(owned: OwnerHolders, holding: Holding) -> Iterable[str]:
    """Yield the other servers of one owner that match *holding*, in the order they joined."""
    pool = owned.servers if holding.standing is Standing.CURRENT else owned.current
    return (s for s in owned.servers if s in pool and s != holding.slot.server_id)


def _own_partners(mine: OwnerHolders, holding: Holding) -> tuple[list[tuple[str, int]], int]:
    """Return the first partners with the sequence they joined at, and how many there are."""
    first = [
        (server_id, first_joined(mine.servers[server_id]))
        for server_id in islice(_partner_servers(mine, holding), LISTED)
    ]
    if holding.standing is Standing.CURRENT:
        return first, len(mine.servers) - 1
    return first, len(mine.current) - (holding.slot.server_id in mine.current)


def _other_owners(tag: TagHolders, holding: Holding) -> tuple[list[str], int]:
    """Return a few other owners that match *holding*, and how many there are."""
    if holding.strength is Strength.GUESSABLE:
        return [], 0
    pool = tag.owners if holding.standing is Standing.CURRENT else tag.current
    few = [o for o in islice(tag.owners, _OTHER_BUCKETS[0]) if o in pool and o != holding.owner_id]
    return few, len(pool) - (holding.owner_id in pool)
