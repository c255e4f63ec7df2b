"""OAUTH_REUSE and API_KEY_REUSE: which slots share a credential, and what each may be told. Pure.

Left to others: reading the ledger, the book of holders (`holders.py`), the banners' lifecycle.
A tag is a match between two slots on different servers if it is *current* in at least one of
them: retired with retired is none, so signing in anew clears it. A guessable tag (an email
address) matches only within one owner: across owners anybody could type an address to frame
another, or to probe who uses it. Both sides must be more than guessable: a prober says of its
own tag what it likes.
"""

from collections.abc import Iterator
from itertools import islice

from bus_schemas.events.banner import BannerCode, Sharing
from bus_schemas.fields import Basis
from platform_handlers.fingerprint.holders import (
    Holders,
    Holding,
    OwnerHolders,
    SlotKey,
    TagHolders,
    first_joined,
)
from platform_handlers.fingerprint.ring import Ring

RULES_VERSION = 1
"""What a `byok.v1.rules` fact may ask of this code."""

LISTED = 20
"""How many of the owner's own servers a banner names."""

_OWN_BUCKETS = (1001, 101, LISTED + 1)
_OTHER_BUCKETS = (101, 21, 6, 2, 1)
COUNTED = _OTHER_BUCKETS[0]
"""Of other owners, more than these are not told apart."""

CODE_OF = {
    Basis.API_KEY: BannerCode.API_KEY_REUSE,
    Basis.OAUTH_GRANT: BannerCode.OAUTH_REUSE,
    Basis.OAUTH_ACCOUNT: BannerCode.OAUTH_REUSE,
}
REUSE_CODES = (BannerCode.API_KEY_REUSE, BannerCode.OAUTH_REUSE)


def own_bucket(count: int) -> int:
    """Return *count* up to `LISTED`, above that the lower end of its bucket."""
    return next((low for low in _OWN_BUCKETS if count >= low), count)


def other_bucket(count: int) -> int:
    """Return the lower end of *count*'s bucket: 0, 1, 2, 6, 21 or 101 owners."""
    return next((low for low in _OTHER_BUCKETS if count >= low), 0)


def sharing(holders: Holders, slot: SlotKey, code: BannerCode) -> Sharing | None:
    """Return what *slot*'s owner is told under *code*; None when nothing matches.

    Up to twenty own servers are all named, the longest-standing first. Of more, each banner names
    a few of its own (`ring.py`), and the total is that of the most shared tag.
    """
    own: dict[str, int] = {}
    own_total = 0
    others: set[str] = set()
    bases: set[Basis] = set()
    for holding in _under(holders, slot, code):
        tag = holders.of_tag(holding.key)
        if tag.is_only_at(holding.owner_id, slot.server_id):
            continue
        mine = tag.owners[holding.owner_id]
        pool = _own_pool(mine, holding)
        for server_id in pool.after(slot.server_id, LISTED):
            joined = first_joined(mine.servers[server_id].values())
            own[server_id] = min(joined, own.get(server_id, joined))
        total, foreign = pool.others(slot.server_id), _other_owners(tag, holding)
        own_total = max(own_total, total)
        others |= foreign
        if total or foreign:
            bases.add(holding.basis)
    if not bases:
        return None
    return Sharing(
        own_servers=tuple(sorted(own, key=lambda server: (own[server], server))[:LISTED]),
        own_servers_total=own_bucket(max(own_total, len(own))),
        other_owners=other_bucket(len(others)),
        bases=tuple(sorted(bases)),
    )


def matches(one: Holding, other: Holding) -> bool:
    """Whether two holdings of one tag, on different servers, are a match."""
    mine = one.owner_id == other.owner_id
    return (one.is_current or other.is_current) and (mine or (one.crosses and other.crosses))


def partners(holders: Holders, slot: SlotKey, code: BannerCode) -> dict[str, int]:
    """Return every other server that *slot* matches under *code*, with when that began.

    Foreign servers included: this is for dismissals only and never leaves the handler. The
    value is the ledger sequence from which on the two matched.
    """
    began: dict[str, int] = {}
    for holding in _under(holders, slot, code):
        for owned in holders.of_tag(holding.key).owners.values():
            for server_id, slots in owned.servers.items():
                if server_id == slot.server_id:
                    continue
                for other in slots.values():
                    if matches(holding, other):
                        both = max(holding.joined, other.joined)
                        began[server_id] = min(both, began.get(server_id, both))
    return began


def _under(holders: Holders, slot: SlotKey, code: BannerCode) -> Iterator[Holding]:
    """Yield what *slot* holds that *code* speaks of."""
    return (h for h in holders.of_slot(slot).values() if CODE_OF[h.basis] is code)


def _own_pool(mine: OwnerHolders, holding: Holding) -> Ring:
    """Return the owner's servers that match *holding* (its own may be among them)."""
    return mine.everyone if holding.is_current else mine.current


def _other_owners(tag: TagHolders, holding: Holding) -> set[str]:
    """Return the other owners that match *holding*; of very many, enough for the last bucket."""
    if not holding.crosses:
        return set()
    pool = tag.crossing if holding.is_current else tag.crossing_current
    return set(islice((owner for owner in pool if owner != holding.owner_id), COUNTED))
