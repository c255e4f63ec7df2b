"""Who holds a tag. Pure: a book that is written to fact by fact and asked by the rules.

Holders are kept per owner and server in the order in which they joined, so the rules can look at
the first few and at counts without walking ten thousand servers for each fact.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any, NamedTuple

from bus_schemas.fields import Basis, Strength


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


@dataclass(frozen=True)
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
    """Ledger sequence of the fact that first told of it."""
    seen_tick: int
    """Tick at which it was current last."""


@dataclass
class OwnerHolders:
    """One owner's servers that hold a tag, in the order in which they joined."""

    servers: dict[str, dict[str, Holding]] = field(default_factory=dict)
    """By server, then by slot."""
    current: set[str] = field(default_factory=set)
    """Servers that hold it in a slot where it is current."""


@dataclass
class TagHolders:
    """Everybody who holds one tag."""

    owners: dict[str, OwnerHolders] = field(default_factory=dict)
    current: set[str] = field(default_factory=set)
    """Owners with a server where it is current."""


@dataclass
class Holders:
    """The whole book, indexed by tag and by server."""

    by_tag: dict[TagKey, TagHolders] = field(default_factory=dict)
    by_server: dict[str, dict[str, dict[TagKey, Holding]]] = field(default_factory=dict)
    """By server, then by slot, then by tag."""

    def __iter__(self) -> Iterator[Holding]:
        """Yield every holding, servers in the order in which they first held anything."""
        for server_id in self.by_server:
            yield from self.of_server(server_id)

    def of_slot(self, slot: SlotKey) -> dict[TagKey, Holding]:
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
        """Add *holding*, or replace the same slot's holding of the same tag in its place."""
        server_id, slot_id = holding.slot
        tag = self.by_tag.setdefault(holding.key, TagHolders())
        mine = tag.owners.setdefault(holding.owner_id, OwnerHolders())
        mine.servers.setdefault(server_id, {})[slot_id] = holding
        self.by_server.setdefault(server_id, {}).setdefault(slot_id, {})[holding.key] = holding
        self._count(holding)

    def drop(self, holding: Holding) -> None:
        """Remove *holding*; it must be in the book."""
        server_id, slot_id = holding.slot
        mine = self.by_tag[holding.key].owners[holding.owner_id]
        del mine.servers[server_id][slot_id]
        del self.by_server[server_id][slot_id][holding.key]
        self._count(holding)
        _prune(mine.servers, server_id)
        _prune(self.by_server[server_id], slot_id)
        _prune(self.by_server, server_id)
        tag = self.by_tag[holding.key]
        if server_id in mine.servers:  # another slot there: its place is that slot's own
            mine.servers = dict(sorted(mine.servers.items(), key=lambda s: first_joined(s[1])))
        if not mine.servers:
            del tag.owners[holding.owner_id]
        if not tag.owners:
            del self.by_tag[holding.key]

    def _count(self, changed: Holding) -> None:
        tag = self.by_tag[changed.key]
        mine = tag.owners[changed.owner_id]
        server_id = changed.slot.server_id
        slots = mine.servers[server_id].values()
        _keep(mine.current, server_id, any(h.standing is Standing.CURRENT for h in slots))
        _keep(tag.current, changed.owner_id, bool(mine.current))


def first_joined(slots: Mapping[str, Holding]) -> int:
    """Return the ledger sequence at which the first of a server's *slots* joined."""
    return min(holding.joined for holding in slots.values())


def _prune(outer: dict[str, Any], key: str) -> None:
    if not outer[key]:
        del outer[key]


def _keep(members: set[str], member: str, belongs: bool) -> None:  # noqa: FBT001 (a set's one bit)
    (members.add if belongs else members.discard)(member)
