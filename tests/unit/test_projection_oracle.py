"""The projection against brute force: after any history, banners say what the holdings say.

The steps in which banners count, and all caps, are made small, so that a handful of servers
crosses them.
"""

import hashlib
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass, field
from random import Random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bus_schemas.event import Event, ServerFact
from bus_schemas.events import (
    BannerEvent,
    PinsChanged,
    ServerDeprovisioned,
    ServerReenrolled,
    ServerRevoked,
    StatusChanged,
    UnlockApproved,
    UnlockRefused,
)
from bus_schemas.events.banner import BannerCode, BannerState, CopySign, KeyChanges, Sharing
from bus_schemas.events.health import Transition
from bus_schemas.fields import Basis, Strength
from platform_handlers.banner.lifecycle import Banner, BannerKey, announcement
from platform_handlers.fingerprint import edits, projection, reach, rules
from platform_handlers.fingerprint.holders import Holding, SlotKey
from platform_handlers.fingerprint.projection import Projection
from tests.facts import NKEY, fold
from tests.histories import (
    ABOUT_MACHINES,
    HAPPENINGS,
    OWNER_OF,
    SERVERS,
    Happening,
    World,
    dismiss,
    refresh,
)

LISTED, COUNTED = 2, 2
OWN_STEPS = (5, 3)
OTHER_STEPS = (2, 1)


@pytest.fixture(autouse=True, scope="module")
def small() -> Iterator[None]:
    """Make every limit small."""
    with pytest.MonkeyPatch.context() as patch:
        for module in (rules, reach):
            patch.setattr(module, "LISTED", LISTED)
            patch.setattr(module, "COUNTED", COUNTED)
        patch.setattr(rules, "_OWN_BUCKETS", OWN_STEPS)
        patch.setattr(rules, "_OTHER_BUCKETS", OTHER_STEPS)
        patch.setattr(edits, "MAX_TAGS", 6)
        patch.setattr(edits, "MAX_RETIRED", 2)
        patch.setattr(edits, "SERVER_LIFE_TICKS", 4)
        patch.setattr(edits, "RETIRED_LIFE_TICKS", 3)
        patch.setattr(projection, "_SWEEP_EVERY_TICKS", 2)
        yield


def step(count: int, steps: tuple[int, ...]) -> int:
    """Return the lower end of *count*'s bucket."""
    return max([low for low in steps if low <= count], default=count)


def seat(server_id: str) -> tuple[bytes, str]:
    """Return a server's place on the circle."""
    return hashlib.sha256(server_id.encode()).digest()[:8], server_id


def naive_partners(book: list[Holding], mine: Holding) -> list[Holding]:
    """Return every holding on another server that matches *mine*."""
    return [
        other
        for other in book
        if other.key == mine.key
        and other.slot.server_id != mine.slot.server_id
        and (mine.is_current or other.is_current)
        and (
            other.owner_id == mine.owner_id
            or Strength.GUESSABLE not in {mine.strength, other.strength}
        )
    ]


def naive_sharing(book: list[Holding], slot: SlotKey, code: BannerCode) -> Sharing | None:
    """Say what a banner should say, by comparing everything with everything."""
    named: dict[str, int] = {}
    own_total = 0
    owners: set[str] = set()
    bases: set[Basis] = set()
    for mine in book:
        if mine.slot != slot or rules.CODE_OF[mine.basis] is not code:
            continue
        partners = naive_partners(book, mine)
        if partners:
            bases.add(mine.basis)
        owners |= {p.owner_id for p in partners} - {mine.owner_id}
        own = {p.slot.server_id for p in partners if p.owner_id == mine.owner_id}
        own_total = max(own_total, len(own))
        ahead = sorted(own, key=lambda s: (seat(s) < seat(slot.server_id), seat(s)))
        for server_id in ahead[:LISTED]:
            joined = min(
                h.joined for h in book if h.key == mine.key and h.slot.server_id == server_id
            )
            named[server_id] = min(joined, named.get(server_id, joined))
    if not bases:
        return None
    return Sharing(
        own_servers=tuple(sorted(named, key=lambda s: (named[s], s))[:LISTED]),
        own_servers_total=step(max(own_total, len(named)), OWN_STEPS),
        other_owners=step(len(owners), OTHER_STEPS),
        bases=tuple(sorted(bases)),
    )


def check_standing(world: World) -> None:
    """Compare what stands with brute force."""
    book = list(world.state.holders)
    for banner in world.state.banners:
        server = world.state.servers[banner.key.server_id]
        assert server.active or not banner.stands or banner.key.code in rules.REUSE_CODES
    for key in {BannerKey(*h.slot, rules.CODE_OF[h.basis]) for h in book} | set(world.told):
        if key.code not in rules.REUSE_CODES:
            continue
        slot = SlotKey(key.server_id, key.slot_id)
        mine = [h for h in book if h.slot == slot and rules.CODE_OF[h.basis] is key.code]
        partners = {p.slot.server_id for h in mine for p in naive_partners(book, h)}
        assert set(rules.partners(world.state.holders, slot, key.code)) == partners
        there = world.state.banners.get(key)
        standing = there if there and there.stands else None
        assert (standing.content.sharing if standing else None) == naive_sharing(
            book, slot, key.code
        )
        if standing and standing.state is BannerState.DISMISSED:
            assert standing.dismissal is not None
            assert partners <= standing.dismissal.covered.keys()


def said(event: BannerEvent) -> tuple[object, ...]:
    """Return what a person reads."""
    return (event.state, event.sharing, event.copies, event.keys, event.rotation)


def check_said(event: BannerEvent, earlier: BannerEvent | None) -> None:
    """Check an event against the one before it on its banner, and for other owners' servers."""
    others = {s for s, owner in OWNER_OF.items() if owner != event.owner_id}
    assert event.owner_id == OWNER_OF[event.server_id]
    assert not any(other in event.model_dump_json() for other in others)
    if earlier:
        assert event.revision > earlier.revision
        assert said(event) != said(earlier)
    else:
        assert event.state is BannerState.RAISED


def check_newest(world: World) -> None:
    """Check that the newest event of each banner is how it stands."""
    for key, events in world.told.items():
        banner = world.state.banners.get(key)
        if banner is None:  # cleared, and no dismissal to remember
            assert events[-1].state is BannerState.CLEARED
            continue
        content = banner.content
        shown = (content.sharing, content.copies, content.keys, content.rotation)
        assert (banner.state, *shown) == said(events[-1])


@dataclass
class Watch:
    """Keeps each server's story of keys and copies in lists, and says what banners must say."""

    machine: dict[str, str] = field(default_factory=lambda: dict.fromkeys(SERVERS, NKEY))
    newest: dict[str, int] = field(default_factory=lambda: dict.fromkeys(SERVERS, 0))
    ended: set[str] = field(default_factory=set)
    obeyed: dict[str, list[set[str]]] = field(default_factory=lambda: defaultdict(list))
    """Every list of pins since the one that its owner knows of."""
    signs: dict[str, list[CopySign]] = field(default_factory=lambda: defaultdict(list))
    """Since the banner was raised."""
    _seen: int = len(SERVERS)

    def look(self, world: World) -> None:
        """Take in what is new on the ledger, before the projection does."""
        for fact in world.ledger.facts[self._seen :]:
            self._take(world, fact.envelope.data)
        self._seen = len(world.ledger.facts)

    def _take(self, world: World, event: Event) -> None:
        server_id = getattr(event, "server_id", "")
        if isinstance(event, ServerFact):
            if server_id in self.ended or event.n <= self.newest[server_id]:
                return
            self.newest[server_id] = event.n
        match event:
            case ServerReenrolled() if event.nkey != self.machine[server_id]:
                self.machine[server_id] = event.nkey
                self.ended.discard(server_id)
                self._forget(server_id, pins=True)
            case ServerRevoked() | ServerDeprovisioned():
                self.ended.add(server_id)
                self._forget(server_id)
            case UnlockApproved():
                self.signs.pop(server_id, None)
            case UnlockRefused(reason="stale_generation") if server_id not in self.ended:
                self.signs[server_id].append(CopySign.STALE_DISK)
            case StatusChanged(transition=Transition.CLONED) if server_id not in self.ended:
                self.signs[server_id].append(CopySign.TWO_RUNNING)
            case PinsChanged():
                self._obeys(world, server_id, set(event.pinned))

    def _forget(self, server_id: str, *, pins: bool = False) -> None:
        self.signs.pop(server_id, None)
        if pins:
            self.obeyed.pop(server_id, None)

    def _obeys(self, world: World, server_id: str, pinned: set[str]) -> None:
        story = self.obeyed[server_id]
        told = world.told.get(BannerKey(server_id, "", BannerCode.OWNER_KEY_CHANGED), [])
        if story and pinned != story[-1] and told and told[-1].state is BannerState.DISMISSED:
            del story[:-1]  # the owner knows of what is obeyed up to now
        story.append(pinned)

    def check(self, world: World) -> None:
        """Compare what stands with the stories."""
        for server_id in SERVERS:
            copies = standing_of(world, BannerKey(server_id, "", BannerCode.CLONE_SUSPECTED))
            signs = self.signs.get(server_id, [])
            assert (copies is not None) == bool(signs)
            if copies and copies.content.copies:
                assert copies.times == len(signs)
                assert copies.content.copies.signs == tuple(sorted(set(signs)))
                assert copies.content.copies.times == step(len(signs), (10, 2))
            if server_id in self.ended:
                continue
            keys = standing_of(world, BannerKey(server_id, "", BannerCode.OWNER_KEY_CHANGED))
            shown = keys.content.keys if keys else KeyChanges()
            assert shown == naive_changes(self.obeyed.get(server_id, [set()]))


def standing_of(world: World, key: BannerKey) -> Banner | None:
    """Return a banner that stands."""
    banner = world.state.banners.get(key)
    return banner if banner and banner.stands else None


def naive_changes(story: list[set[str]]) -> KeyChanges:
    """Compare the keys that the owner knows of with those of now, and with all between."""
    known, now = story[0], story[-1]
    return KeyChanges(
        added=tuple(sorted(now - known)),
        removed=tuple(sorted(known - now)),
        passing=tuple(sorted(set().union(*story) - known - now)),
    )


@pytest.mark.parametrize("happenings", [HAPPENINGS, [refresh] * 9 + [dismiss], ABOUT_MACHINES])
@settings(max_examples=100, deadline=None)
@given(st.randoms(use_true_random=False), st.integers(1, 100))
def test_banners_say_what_the_surviving_holdings_say(
    happenings: list[Happening], dice: Random, length: int
) -> None:
    """After every single fact of any history, brute force comes to the same banners.

    And on the way: revisions grow, nothing is said twice, and nobody reads of another's servers.
    """
    world, watch = World(), Watch()
    for _ in range(length):
        dice.choice(happenings)(world, dice)
        watch.look(world)
        for event, earlier in world.catch_up():
            check_said(event, earlier)
        check_standing(world)
        watch.check(world)
    check_newest(world)


@settings(max_examples=30, deadline=None)
@given(st.randoms(use_true_random=False))
def test_a_replay_says_the_same_bytes(dice: Random) -> None:
    """Two projections that fold one ledger announce the same events, byte for byte."""
    world = World()
    for _ in range(100):
        dice.choice(HAPPENINGS)(world, dice)
        world.catch_up()
    first, second = (
        [announcement(*each).model_dump_json() for each in told]
        for told in (world.said, fold(Projection(), *world.ledger.facts))
    )
    assert first == second
