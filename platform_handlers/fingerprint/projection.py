"""The fingerprint handler's whole state, folded from the ledger fact by fact. Pure.

A deterministic function of the ledger: it reads no clock (time moves by `clock` facts), draws no
random numbers, and sorts what it says of one fact. So two handlers may run at once, a rebuilt one
emits the same bytes, and a replay can be compared with what was published.
What differs from the last commit is noted in `dirty`, for the store to write.
"""

from collections.abc import Iterable
from dataclasses import dataclass, field, replace

from bus_schemas.event import Event, ServerFact
from bus_schemas.events import (
    ClockTicked,
    ConfigRequested,
    DismissalRequested,
    DismissalUndone,
    EpochClosed,
    FingerprintObserved,
    FingerprintRenewed,
    FingerprintRetired,
    PinsChanged,
    ServerDeprovisioned,
    ServerProvisioned,
    ServerReenrolled,
    ServerRevoked,
    ServerUnlocked,
)
from bus_schemas.events.banner import BannerCode, BannerState
from bus_schemas.events.fingerprint import MAX_SLOTS
from platform_handlers.banner import lifecycle
from platform_handlers.banner.lifecycle import Banner, BannerKey, Cause, Content, Wanted
from platform_handlers.fingerprint import copies, edits, pins, rotations
from platform_handlers.fingerprint.banners import Banners
from platform_handlers.fingerprint.conditions import ended, wishes
from platform_handlers.fingerprint.edits import Edit, Observer
from platform_handlers.fingerprint.holders import Holders, Holding, SlotKey, TagKey
from platform_handlers.fingerprint.pins import Pins
from platform_handlers.fingerprint.reach import Place, Trace, reached, trace
from platform_handlers.fingerprint.rotation_book import Rotations
from platform_handlers.fingerprint.rotations import ROTATION_CODES
from platform_handlers.fingerprint.rules import CODE_OF, REUSE_CODES, partners, sharing

_SWEEP_EVERY_TICKS = 24 * 60
MAX_BANNERS = 6 * MAX_SLOTS
"""Of one server; one that invents slots gets no more of those that follow from its word."""


@dataclass(frozen=True)
class Server:
    """What the handler knows of one server."""

    owner_id: str
    stamp: tuple[int, int]
    """(incarnation, n) of its newest fact; one not above it is a repeat and ignored."""
    renewed_tick: int
    nkey: str
    """Of the machine that enrolled last; a word that names it again is a repeat."""
    active: bool = True
    pins: Pins | None = None
    """None before the machine has told them."""


@dataclass
class Dirty:
    """Keys of rows that differ from the database."""

    servers: set[str] = field(default_factory=set)
    holdings: set[tuple[SlotKey, TagKey]] = field(default_factory=set)
    banners: set[BannerKey] = field(default_factory=set)
    rotations: set[SlotKey] = field(default_factory=set)


@dataclass
class Projection:
    """State in, one fact, changed banners out."""

    servers: dict[str, Server] = field(default_factory=dict)
    holders: Holders = field(default_factory=Holders)
    banners: Banners = field(default_factory=Banners)
    rotations: Rotations = field(default_factory=Rotations)
    ticks: int = 0
    minute: int = 0
    dropped: int = 0
    """Facts that were repeats, over a cap or of no known server, since the start."""
    dirty: Dirty = field(default_factory=Dirty)

    def apply(self, event: Event, cause: Cause) -> list[Banner]:
        """Fold *event* in; return the banners whose revision it moved, each at most once."""
        if isinstance(event, ServerFact) and not self._accept(event):
            return []
        if isinstance(event, ServerReenrolled) and self._is_enrolled(event):
            return []
        changed = self._correlate(self._edits(event, cause), cause)
        changed += self._answer(event, cause)
        changed += self._note_condition(event, cause)
        return sorted(changed, key=lambda banner: banner.key.banner_id)

    def _accept(self, event: ServerFact) -> bool:
        """Take note of a server's stamp; False for repeats and for servers without a say."""
        server = self.servers.get(event.server_id)
        stamp = (event.incarnation, event.n)
        if server is None or not server.active or stamp <= server.stamp:
            self.dropped += 1
            return False
        self._keep_server(event.server_id, replace(server, stamp=stamp))
        return True

    def _is_enrolled(self, event: ServerReenrolled) -> bool:
        """Whether this was told: again it would take away what the new machine has told since."""
        known = self.servers.get(event.server_id)
        return known is not None and known.nkey == event.nkey

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
            case ServerReenrolled():
                done = self._reenrolled(event)
            case ServerUnlocked():
                self._unlocked(event)
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
        if event.server_id not in self.servers:  # ids are never issued twice: else a repeat
            server = Server(event.owner_id, (0, 0), self.ticks, event.nkey)
            self._keep_server(event.server_id, server)

    def _reenrolled(self, event: ServerReenrolled) -> list[Edit]:
        """Put another machine in the place of one that may have been revoked; its vault is empty.

        The numbers of its facts go on, so what the old one said late still is late.
        """
        if server := self.servers.get(event.server_id):
            stamp, tick = server.stamp, self.ticks
            self._keep_server(event.server_id, Server(server.owner_id, stamp, tick, event.nkey))
        return edits.leave(self.holders, event.server_id)

    def _unlocked(self, event: ServerUnlocked) -> None:
        """Hear a server from this start on, whatever number was invented in its name before.

        No intake stores such a fact. One that got into the ledger all the same must not silence the
        server for good.
        """
        server = self.servers.get(event.server_id)
        if server is not None and server.stamp[0] > event.incarnation:
            self._keep_server(event.server_id, replace(server, stamp=(event.incarnation, 0)))

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
        renewed = {name: known.renewed_tick for name, known in self.servers.items() if known.active}
        return edits.expire(self.holders, renewed, self.ticks)

    def _correlate(self, changes: list[Edit], cause: Cause) -> list[Banner]:
        """Carry out *changes* and settle the banners of everybody who is to be told otherwise."""
        places: dict[TagKey, dict[Place, None]] = {}
        for held in (edit.holding for edit in changes):
            places.setdefault(held.key, {})[held.owner_id, held.slot.server_id] = None
        before = {
            key: trace(tag, at)
            for key, at in places.items()
            for tag in [self.holders.of_tag(key)]
            if len(at) > 1 or not tag.is_only_at(*next(iter(at)))  # else there is nobody to tell
        }
        for edit in changes:
            held = edit.holding
            if edit.keep:
                self.holders.put(held)
            else:
                self.holders.drop(held.slot, held.key)
            self.dirty.holdings.add((held.slot, held.key))
        touched = {_banner_of(edit.holding) for edit in changes}
        for key, earlier in before.items():
            touched |= self._told_otherwise(key, earlier, places[key])
        return [banner for key in touched for banner in self._settle_reuse(key, cause)]

    def _told_otherwise(
        self, key: TagKey, before: Trace, places: Iterable[Place]
    ) -> set[BannerKey]:
        """Return the banners that *key* may change, and all dismissed ones it concerns.

        A dismissed banner must notice a new partner even where its content, in buckets, stays.
        """
        tag = self.holders.of_tag(key)
        after = trace(tag, places)
        touched = {_banner_of(holding) for holding in reached(tag, before, after)}
        if before.places != after.places:
            for owned in tag.owners.values():
                for server_id in owned.servers.keys() & self.banners.dismissed.keys():
                    touched |= self.banners.dismissed[server_id]
        return touched

    def _settle_reuse(self, key: BannerKey, cause: Cause) -> list[Banner]:
        slot = SlotKey(key.server_id, key.slot_id)
        told = sharing(self.holders, slot, key.code)
        old = self.banners.get(key)
        wanted = None
        if told is not None:
            remembers = old is not None and old.dismissal is not None
            matching = partners(self.holders, slot, key.code) if remembers else {}
            wanted = Wanted(Content(sharing=told), frozenset(matching))
        return self._settle(key, self.servers[key.server_id].owner_id, wanted, cause)

    def _note_condition(self, event: Event, cause: Cause) -> list[Banner]:
        """Raise and clear what is no comparison of servers; of one that is gone only clear."""
        wanted = {wish.key: wish.wanted for wish in wishes(event)}
        wanted |= self._second_copy(event, cause) | self._owner_keys(event)
        wanted |= self._rotating(event)
        if isinstance(event, ServerRevoked | ServerDeprovisioned | ServerReenrolled):
            mine = self.banners.of_server(event.server_id)
            wanted = dict.fromkeys(key for key in mine if ended(event, key.code))
            # Another machine begins with none; of one that is gone nothing goes on.
            self.dirty.rotations.update(self.rotations.forget(event.server_id, self.ticks))
        return [
            banner
            for key, want in wanted.items()
            if (server := self.servers.get(key.server_id)) and (server.active or want is None)
            if want is None or self._has_room(key)
            for banner in self._settle(key, server.owner_id, want, cause)
        ]

    def _second_copy(self, event: Event, cause: Cause) -> dict[BannerKey, Wanted | None]:
        found = copies.sign_in(event)
        if found is None:
            return {}
        server_id, sign = found
        key = BannerKey(server_id, "", BannerCode.CLONE_SUSPECTED)
        return {key: copies.noticed(self.banners.get(key), sign, cause.at.date())}

    def _owner_keys(self, event: Event) -> dict[BannerKey, Wanted | None]:
        """Take note of the keys a server obeys, and say what its owner does not know of."""
        if not isinstance(event, PinsChanged):
            return {}
        key = BannerKey(event.server_id, "", BannerCode.OWNER_KEY_CHANGED)
        server, banner = self.servers[event.server_id], self.banners.get(key)
        dismissed = banner is not None and banner.state is BannerState.DISMISSED
        now = pins.after(server.pins, event.pinned, dismissed=dismissed)
        if now == server.pins:
            return {}
        self._keep_server(event.server_id, replace(server, pins=now))
        return {key: pins.wanted(banner, now)}

    def _rotating(self, event: Event) -> dict[BannerKey, Wanted | None]:
        """Take note of how rotations go on; return what to say of those that *event* concerns."""
        wanted: dict[BannerKey, Wanted | None] = {}
        for slot in self._rotated(event):
            told = rotations.notes(self.rotations.get(slot), self.ticks)
            for code, note in told.items():
                key = BannerKey(*slot, code)
                wanted[key] = rotations.noted(self.banners.get(key), note)
        return wanted

    def _rotated(self, event: Event) -> Iterable[SlotKey]:
        """Fold *event* into the book of rotations; return the slots of which to speak anew."""
        if isinstance(event, ClockTicked):
            return self.rotations.due(self.ticks)
        if isinstance(event, ConfigRequested):
            server = self.servers.get(event.server_id)
            if server is None or not server.active or server.owner_id != event.owner_id:
                return ()
        moved = self.rotations.follow(event, self.ticks)
        self.dirty.rotations.update(moved)
        return moved

    def _has_room(self, key: BannerKey) -> bool:
        """Whether another condition of this server may be told: it may have invented the slot.

        Not asked of what concerns the server itself: else a copy of it could, by inventing slots,
        keep its own discovery from being told. Nor of rotations that the platform was asked for.
        """
        if key.code in ROTATION_CODES:
            return True
        mine = self.banners.of_server(key.server_id)
        room = not key.slot_id or key in mine or len(mine) < MAX_BANNERS
        self.dropped += not room
        return room

    def _settle(
        self, key: BannerKey, owner_id: str, wanted: Wanted | None, cause: Cause
    ) -> list[Banner]:
        old = self.banners.get(key)
        return self._moved(old, lifecycle.settle(old, wanted, key, owner_id, cause))

    def _moved(self, old: Banner | None, new: Banner | None) -> list[Banner]:
        if new is None or new is old:
            return []
        self.banners.keep(new)
        self.dirty.banners.add(new.key)
        return [new] if old is None or new.revision != old.revision else []

    def _answer(self, event: Event, cause: Cause) -> list[Banner]:
        """Carry out an owner's dismissal or its undoing."""
        if not isinstance(event, DismissalRequested | DismissalUndone):
            return []
        key = BannerKey.parse(event.banner_id)
        old = self.banners.get(key) if key else None
        if old is None or old.owner_id != event.owner_id:  # another owner's banner is no banner
            return []
        if isinstance(event, DismissalUndone):
            return self._moved(old, lifecycle.undo_dismissal(old, cause))
        slot = SlotKey(old.key.server_id, old.key.slot_id)
        reuse = old.key.code in REUSE_CODES
        joined = partners(self.holders, slot, old.key.code) if reuse else {}
        request = lifecycle.Request(event.banner_revision, event.who, event.why, joined)
        return self._moved(old, lifecycle.dismiss(old, request, cause))


def _banner_of(holding: Holding) -> BannerKey:
    """Return the banner that tells whom *holding* is shared with."""
    return BannerKey(*holding.slot, CODE_OF[holding.basis])
