"""How far a fact about a tag reaches: whose banners may read otherwise after it. Pure.

What others can see of a tag is noted before and after the fact; where nothing differs, nobody
has to be asked. Asking too many is only slow (a banner whose content stays is not announced),
asking too few would leave a banner wrong.
"""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass

from platform_handlers.fingerprint.holders import Holding, OwnerHolders, TagHolders
from platform_handlers.fingerprint.rules import COUNTED, LISTED, own_bucket

Place = tuple[str, str]
"""An owner and one of its servers."""


@dataclass(frozen=True)
class Trace:
    """What of one tag can be seen from elsewhere, as far as a fact may change it."""

    owners: tuple[int, int]
    """How many owners hold it, and hold it as current, each up to where a banner stops to tell."""
    own: Mapping[str, tuple[int, ...]]
    """By owner: how many of their servers, in the steps in which a banner counts."""
    places: Mapping[Place, frozenset[tuple[bool, bool, int]]]
    """How each server concerned holds it: current, crossing, and since when."""


def trace(tag: TagHolders, places: Iterable[Place]) -> Trace:
    """Note what can be seen of *tag*, in particular at *places*."""
    owned = {place: tag.owners.get(place[0], OwnerHolders()) for place in places}
    return Trace(
        (min(len(tag.crossing), COUNTED + 1), min(len(tag.crossing_current), COUNTED + 1)),
        {owner_id: _steps(mine) for (owner_id, _), mine in owned.items()},
        {place: _held(mine.servers.get(place[1], {})) for place, mine in owned.items()},
    )


def reached(tag: TagHolders, before: Trace, after: Trace) -> Iterator[Holding]:
    """Yield the holdings of *tag* whose banners may read otherwise.

    The servers that the fact itself is about are the caller's: they may hold it no longer.
    """
    if before.owners != after.owners:
        for mine in tag.owners.values():
            yield from _holdings(mine, mine.servers)
        return
    for owner_id, steps in after.own.items():
        mine = tag.owners.get(owner_id, OwnerHolders())
        if steps != before.own[owner_id]:
            yield from _holdings(mine, mine.servers)
        else:
            moved = [
                server_id
                for (owner, server_id), held in after.places.items()
                if owner == owner_id and held != before.places[owner, server_id]
            ]
            yield from _holdings(mine, _naming(mine, moved))


def _naming(mine: OwnerHolders, moved: Iterable[str]) -> Iterable[str]:
    """Return the servers whose banners name, or named, one of *moved*."""
    return dict.fromkeys(
        name
        for server_id in moved
        for pool in (mine.everyone, mine.current)
        for name in mine.everyone.naming(server_id, pool, LISTED)
    )


def _holdings(mine: OwnerHolders, server_ids: Iterable[str]) -> Iterator[Holding]:
    return (holding for server_id in server_ids for holding in mine.servers[server_id].values())


def _steps(mine: OwnerHolders) -> tuple[int, ...]:
    """Count as banners do: a holder among them sees one less than one outside."""
    return tuple(
        own_bucket(len(pool) - seen_by_member)
        for pool in (mine.everyone, mine.current)
        for seen_by_member in (0, 1)
    )


def _held(slots: Mapping[str, Holding]) -> frozenset[tuple[bool, bool, int]]:
    return frozenset((h.is_current, h.crosses, h.joined) for h in slots.values())
