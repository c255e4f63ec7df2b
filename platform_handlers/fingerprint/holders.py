"""Who holds a tag. Pure: a book that is written to fact by fact and asked by the rules.

Indexed by tag, owner and server, with the counts the rules need, so that one fact about a tag
that ten thousand servers hold does not walk them all.
"""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any, NamedTuple

from bus_schemas.fields import Basis, Strength
from platform_handlers.fingerprint.ring import Ring


class TagKey(NamedTuple):
    """A tag within its epoch."""

    epoch: str
    tag: str


class SlotKey(NamedTuple):
    """One slot of one server."""

    server_id: str
    slot_id: str


class Standing(StrEnum):
    """Whether a tag is of the credential in use or of an earlier token of the same grant."""

    CURRENT = "current"
    RETIRED = "retired"


@dataclass(frozen=True, slots=True)
class Holding:
    """One slot holds one tag."""

    slot: SlotKey
    owner_id: str
    key: TagKey
    provider: str
    basis: Basis
    strength: Strength
    revision: int
    standing: Standing
    joined: int
    """Ledger sequence of the fact that made it current, the last time that happened."""
    seen_tick: int
    """Tick at which it was current last."""

    @property
    def is_current(self) -> bool:
        """Whether it is of the credential in use."""
        return self.standing is Standing.CURRENT

    @property
    def crosses(self) -> bool:
        """Whether it may match another owner's: what can be guessed may not."""
        return self.strength is not Strength.GUESSABLE


@dataclass(slots=True)
class OwnerHolders:
    """One owner's servers that hold a tag."""

    servers: dict[str, dict[str, Holding]] = field(default_factory=dict)
    """By server, then by slot."""
    everyone: Ring = field(default_factory=Ring)
    """All of them, each at its place."""
    current: Ring = field(default_factory=Ring)
    """Those that hold it in a slot where it is current."""
    crossing: int = 0
    """Holdings that may match another owner's."""
    crossing_current: int = 0
    """Of these, the current ones."""


@dataclass(slots=True)
class TagHolders:
    """Everybody who holds one tag."""

    owners: dict[str, OwnerHolders] = field(default_factory=dict)
    crossing: set[str] = field(default_factory=set)
    """Owners with a holding that may match another owner's."""
    crossing_current: set[str] = field(default_factory=set)
    """Owners with such a holding that is current."""

    def is_only_at(self, owner_id: str, server_id: str) -> bool:
        """Whether nobody but this one server holds it: then it matches nothing, as most tags do."""
        if not self.owners:
            return True
        mine = self.owners.get(owner_id)
        return (
            mine is not None
            and len(self.owners) == 1
            and len(mine.servers) == 1
            and server_id in mine.servers
        )


@dataclass
class Holders:
    """The whole book, indexed by tag and by server."""

    by_tag: dict[TagKey, TagHolders] = field(default_factory=dict)
    by_server: dict[str, dict[str, dict[TagKey, Holding]]] = field(default_factory=dict)
    """By server, then by slot, then by tag."""

    def __iter__(self) -> Iterator[Holding]:
        """Yield every holding."""
        for server_id in self.by_server:
            yield from self.of_server(server_id)

    def of_slot(self, slot: SlotKey) -> Mapping[TagKey, Holding]:
        """Return what *slot* holds, by tag."""
        return self.by_server.get(slot.server_id, {}).get(slot.slot_id, {})

    def of_server(self, server_id: str) -> list[Holding]:
        """Return everything *server_id* holds."""
        slots = self.by_server.get(server_id, {})
        return [holding for held in slots.values() for holding in held.values()]

    def of_tag(self, key: TagKey) -> TagHolders:
        """Return everybody who holds *key*."""
        return self.by_tag.get(key, TagHolders())

    def put(self, holding: Holding) -> None:
        """Add *holding*, or replace the same slot's holding of the same tag."""
        server_id, slot_id = holding.slot
        known = self.of_slot(holding.slot).get(holding.key)
        tag = self.by_tag.setdefault(holding.key, TagHolders())
        mine = tag.owners.setdefault(holding.owner_id, OwnerHolders())
        mine.servers.setdefault(server_id, {})[slot_id] = holding
        self.by_server.setdefault(server_id, {}).setdefault(slot_id, {})[holding.key] = holding
        _count(tag, gone=known, come=holding)

    def drop(self, slot: SlotKey, key: TagKey) -> None:
        """Remove what *slot* holds of *key*; it must be in the book."""
        server_id, slot_id = slot
        known = self.by_server[server_id][slot_id].pop(key)
        _prune(self.by_server[server_id], slot_id)
        _prune(self.by_server, server_id)
        tag = self.by_tag[key]
        mine = tag.owners[known.owner_id]
        del mine.servers[server_id][slot_id]
        _prune(mine.servers, server_id)
        _count(tag, gone=known, come=None)
        if not mine.servers:
            del tag.owners[known.owner_id]
        if not tag.owners:
            del self.by_tag[key]


def first_joined(slots: Iterable[Holding]) -> int:
    """Return the ledger sequence at which the first of a server's slots joined."""
    return min(holding.joined for holding in slots)


def _count(tag: TagHolders, *, gone: Holding | None, come: Holding | None) -> None:
    """Make the counts of *tag* agree with one holding having been put, replaced or removed."""
    for holding, by in ((gone, -1), (come, 1)):
        if holding:
            mine = tag.owners[holding.owner_id]
            mine.crossing += by * holding.crosses
            mine.crossing_current += by * (holding.crosses and holding.is_current)
            server_id = holding.slot.server_id
            slots = mine.servers.get(server_id, {}).values()
            mine.everyone.keep(server_id, inside=bool(slots))
            mine.current.keep(server_id, inside=any(slot.is_current for slot in slots))
            _keep(tag.crossing, holding.owner_id, mine.crossing)
            _keep(tag.crossing_current, holding.owner_id, mine.crossing_current)


def _prune(outer: dict[str, Any], key: str) -> None:
    if not outer[key]:
        del outer[key]


def _keep(members: set[str], member: str, count: int) -> None:
    (members.add if count else members.discard)(member)
