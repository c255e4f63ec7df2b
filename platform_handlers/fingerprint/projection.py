"""The fingerprint handler's whole state, folded from the ledger fact by fact. Pure.

A deterministic function of the ledger: it reads no clock (time moves by `clock` facts), draws no
random numbers, and iterates only over things whose order the ledger gave. So two handlers may run
at once, a rebuilt one emits the same bytes, and a replay can be compared with what was published.
What differs from the last commit is noted in `dirty`, for the store to write.
"""

from collections.abc import Iterable
from dataclasses import dataclass, field, replace

from bus_schemas.event import Event, ServerFact
from bus_schemas.events import (
    ClockTicked,
    DismissalRequested,
    DismissalUndone,
    EpochClosed,
    FingerprintObserved,
    FingerprintRenewed,
    FingerprintRetired,
    ServerDeprovisioned,
    ServerProvisioned,
    ServerRevoked,
)
from platform_handlers.banner import lifecycle
from platform_handlers.banner.lifecycle import Banner, BannerKey, Cause, Wanted
from platform_handlers.fingerprint import edits
from platform_handlers.fingerprint.conditions import wishes
from platform_handlers.fingerprint.edits import Edit, Observer
from platform_handlers.fingerprint.holders import Holders, SlotKey, TagKey
from platform_handlers.fingerprint.rules import CODE_OF, REUSE_CODES, View, partners, sharing, view

_SWEEP_EVERY_TICKS = 24 * 60


@dataclass(frozen=True)
class Server:
    """What the handler knows of one server."""

    owner_id: str
    stamp: tuple[int, int]
    """(incarnation, n) of its newest fact; one not above it is a repeat and ignored."""
    renewed_tick: int
    active: bool = True


@dataclass
class Dirty:
    """Keys of rows that differ from the database."""

    servers: set[str] = field(default_factory=set)
    holdings: set[tuple[SlotKey, TagKey]] = field(default_factory=set)
    banners: set[BannerKey] = field(default_factory=set)

    def clear(self) -> None:
        """Everything is written."""
        self.servers.clear()
        self.holdings.clear()
        self.banners.clear()


@dataclass
class Projection:
    """State in, one fact, changed banners out."""

    servers: dict[str, Server] = field(default_factory=dict)
    holders: Holders = field(default_factory=Holders)
    banners: dict[BannerKey, Banner] = field(default_factory=dict)
    dismissed: dict[BannerKey, None] = field(default_factory=dict)
    """Standing banners that remember accepted partners, as an ordered set."""
    ticks: int = 0
    minute: int = 0
    dropped: int = 0
    """Facts that were repeats, over a cap or of no known server, since the start."""
    dirty: Dirty = field(default_factory=Dirty)

    def apply(self, event: Event, cause: Cause) -> list[Banner]:
        """Fold *event* in; return the banners whose revision it moved, each at most once."""
        if isinstance(event, ServerFact) and not self._accept(event):
            return []
        changed = self._correlate(self._edits(event, cause), cause)
        changed += self._answer(event, cause)
        for wish in wishes(event):
            if server := self.servers.get(wish.key.server_id):
                changed += self._settle(wish.key, server.owner_id, wish.wanted, cause)
        if isinstance(event, ServerDeprovisioned):
            for key in [key for key in self.banners if key.server_id == event.server_id]:
                changed += self._settle(key, event.owner_id, None, cause)
        return sorted(changed, key=lambda banner: banner.key.banner_id)

    def keep_banner(self, banner: Banner) -> None:
        """Take *banner* as it stands, from a decision or from the database."""
        self.banners[banner.key] = banner
        if banner.stands and banner.dismissal:
            self.dismissed[banner.key] = None
        else:
            self.dismissed.pop(banner.key, None)

    def _accept(self, event: ServerFact) -> bool:
        """Take note of a server's stamp; False for repeats and for servers without a say."""
        server = self.servers.get(event.server_id)
        stamp = (event.incarnation, event.n)
        if server is None or not server.active or stamp <= server.stamp:
            self.dropped += 1
            return False
        self._keep_server(event.server_id, replace(server, stamp=stamp))
        return True

    def _keep_server(self, server_id: str, server: Server) -> None:
        self.servers[server_id] = server
        self.dirty.servers.add(server_id)

    def _edits(self, event: Event, cause: Cause) -> list[Edit]:
        """Note what *event* says of servers and time; return what it does to the book."""
        done: list[Edit] = []
        match event:
            case FingerprintObserved():
                done = self._observed(event, cause)
            case FingerprintRenewed():
                self._renewed(event.server_id)
                done = edits.renew(self.holders, event)
            case FingerprintRetired():
                done = edits.retire(self.holders, event)
            case ServerProvisioned():
                self._provisioned(event)
            case ServerRevoked() | ServerDeprovisioned():
                done = self._ended(event)
            case EpochClosed():
                done = edits.close_epoch(self.holders, event.epoch)
            case ClockTicked():
                done = self._ticked(event)
        return done

    def _observed(self, event: FingerprintObserved, cause: Cause) -> list[Edit]:
        server = self._renewed(event.server_id)
        try:
            by = Observer(server.owner_id, cause.sequence, self.ticks)
            return edits.observe(self.holders, event, by)
        except edits.OverLimit:
            self.dropped += 1
            return []

    def _renewed(self, server_id: str) -> Server:
        server = replace(self.servers[server_id], renewed_tick=self.ticks)
        self._keep_server(server_id, server)
        return server

    def _provisioned(self, event: ServerProvisioned) -> None:
        known = self.servers.get(event.server_id)
        stamp = known.stamp if known else (0, 0)
        self._keep_server(event.server_id, Server(event.owner_id, stamp, self.ticks))

    def _ended(self, event: ServerRevoked | ServerDeprovisioned) -> list[Edit]:
        """End a server. A revoked one's holdings stay: whoever took it has the credentials."""
        if server := self.servers.get(event.server_id):
            self._keep_server(event.server_id, replace(server, active=False))
        if isinstance(event, ServerRevoked):
            return []
        return edits.leave(self.holders, event.server_id)

    def _ticked(self, event: ClockTicked) -> list[Edit]:
        """Time passes by ticks seen, so an outage of the handlers ages nothing."""
        if event.minute <= self.minute:
            return []
        self.minute = event.minute
        self.ticks += 1
        if self.ticks % _SWEEP_EVERY_TICKS:
            return []
        renewed = {server_id: server.renewed_tick for server_id, server in self.servers.items()}
        return edits.expire(self.holders, renewed, self.ticks)

    def _correlate(self, changes: list[Edit], cause: Cause) -> list[Banner]:
        """Carry out *changes* and settle the banners of everybody who is to be told otherwise."""
        if not changes:
            return []
        tags = dict.fromkeys(edit.holding.key for edit in changes)
        before = {key: self._views(key) for key in tags}
        for edit in changes:
            (self.holders.put if edit.keep else self.holders.drop)(edit.holding)
            self.dirty.holdings.add((edit.holding.slot, edit.holding.key))
        touched = dict.fromkeys(
            BannerKey(*edit.holding.slot, CODE_OF[edit.holding.basis]) for edit in changes
        )
        for key, views in before.items():
            touched |= dict.fromkeys(self._told_otherwise(key, views))
        return [banner for key in touched for banner in self._settle_reuse(key, cause)]

    def _views(self, key: TagKey) -> dict[str, View]:
        tag = self.holders.of_tag(key)
        return {owner_id: view(tag, owner_id) for owner_id in tag.owners}

    def _told_otherwise(self, key: TagKey, before: dict[str, View]) -> Iterable[BannerKey]:
        """Yield the banners of *key*'s holders whose view changed, and all dismissed ones.

        A dismissed banner must notice a new partner even where its content, in buckets, stays.
        """
        tag = self.holders.of_tag(key)
        for owner_id, owned in tag.owners.items():
            if view(tag, owner_id) == before.get(owner_id):
                continue
            for server_id, slots in owned.servers.items():
                for slot_id, holding in slots.items():
                    yield BannerKey(server_id, slot_id, CODE_OF[holding.basis])
        for dismissed in self.dismissed:
            if key in self.holders.of_slot(SlotKey(dismissed.server_id, dismissed.slot_id)):
                yield dismissed

    def _settle_reuse(self, key: BannerKey, cause: Cause) -> list[Banner]:
        slot = SlotKey(key.server_id, key.slot_id)
        told = sharing(self.holders, slot, key.code)
        old = self.banners.get(key)
        wanted = None
        if told is not None:
            remembers = old is not None and old.dismissal is not None
            matching = partners(self.holders, slot, key.code) if remembers else {}
            wanted = Wanted(told, frozenset(matching))
        return self._settle(key, self.servers[key.server_id].owner_id, wanted, cause)

    def _settle(
        self, key: BannerKey, owner_id: str, wanted: Wanted | None, cause: Cause
    ) -> list[Banner]:
        old = self.banners.get(key)
        return self._moved(old, lifecycle.settle(old, wanted, key, owner_id, cause))

    def _moved(self, old: Banner | None, new: Banner | None) -> list[Banner]:
        if new is None or new is old:
            return []
        self.keep_banner(new)
        self.dirty.banners.add(new.key)
        return [new] if old is None or new.revision != old.revision else []

    def _answer(self, event: Event, cause: Cause) -> list[Banner]:
        """Carry out an owner's dismissal or its undoing."""
        if not isinstance(event, DismissalRequested | DismissalUndone):
            return []
        old = next((b for b in self.banners.values() if b.key.banner_id == event.banner_id), None)
        if old is None or old.owner_id != event.owner_id:  # another owner's banner is no banner
            return []
        if isinstance(event, DismissalUndone):
            return self._moved(old, lifecycle.undo_dismissal(old, cause))
        slot = SlotKey(old.key.server_id, old.key.slot_id)
        reuse = old.key.code in REUSE_CODES
        joined = partners(self.holders, slot, old.key.code) if reuse else {}
        request = lifecycle.Request(event.banner_revision, event.who, event.why, joined)
        return self._moved(old, lifecycle.dismiss(old, request, cause))
