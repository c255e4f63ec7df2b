"""The projection against brute force: after any history, banners say what the holdings say.

The steps in which banners count, and all caps, are made small, so that a handful of servers
crosses them.
"""

import hashlib
from collections import defaultdict
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from random import Random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bus_schemas.event import Event
from bus_schemas.events import BannerEvent
from bus_schemas.events.banner import BannerCode, BannerState, Sharing
from bus_schemas.events.health import Transition
from bus_schemas.fields import Basis, Strength
from platform_handlers.banner.lifecycle import Banner, BannerKey, Cause, announcement
from platform_handlers.fingerprint import edits, projection, reach, rules
from platform_handlers.fingerprint.holders import Holding, SlotKey
from platform_handlers.fingerprint.projection import Projection
from tests.facts import Ledger, fold

OWNER_OF = {
    **{f"acme-{i}": "acme" for i in range(5)},
    **{f"globex-{i}": "globex" for i in range(2)},
    "hooli-0": "hooli",
    "initech-0": "initech",
}
SERVERS = sorted(OWNER_OF)
TAGS = {
    "k1": (Basis.API_KEY, Strength.SECRET),
    "k2": (Basis.API_KEY, Strength.SECRET),
    "r1": (Basis.OAUTH_GRANT, Strength.SECRET),
    "r2": (Basis.OAUTH_GRANT, Strength.SECRET),
    "a1": (Basis.OAUTH_ACCOUNT, Strength.OPAQUE),
    "a2": (Basis.OAUTH_ACCOUNT, Strength.GUESSABLE),
}
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


@dataclass
class World:
    """A ledger, the projection that folds it, and everything that was announced."""

    ledger: Ledger = field(default_factory=Ledger)
    state: Projection = field(default_factory=Projection)
    told: dict[BannerKey, list[BannerEvent]] = field(default_factory=lambda: defaultdict(list))

    def check(self) -> None:
        """Compare what stands with brute force."""
        book = list(self.state.holders)
        for banner in self.state.banners:
            server = self.state.servers[banner.key.server_id]
            assert server.active or not banner.stands or banner.key.code in rules.REUSE_CODES
        for key in {BannerKey(*h.slot, rules.CODE_OF[h.basis]) for h in book} | set(self.told):
            if key.code not in rules.REUSE_CODES:
                continue
            slot = SlotKey(key.server_id, key.slot_id)
            mine = [h for h in book if h.slot == slot and rules.CODE_OF[h.basis] is key.code]
            partners = {p.slot.server_id for h in mine for p in naive_partners(book, h)}
            assert set(rules.partners(self.state.holders, slot, key.code)) == partners
            wanted = naive_sharing(book, slot, key.code)
            banner = self.state.banners.get(key)
            standing = banner if banner and banner.stands else None
            assert (standing.sharing if standing else None) == wanted
            if standing and standing.state is BannerState.DISMISSED:
                assert standing.dismissal is not None
                assert partners <= standing.dismissal.covered.keys()

    def say(self, told: list[tuple[Banner, Cause]]) -> None:
        """Check each event against the one before it on its banner."""
        for banner, cause in told:
            event = announcement(banner, cause).data
            assert isinstance(event, BannerEvent)
            assert event.owner_id == OWNER_OF[event.server_id]
            others = {s for s, owner in OWNER_OF.items() if owner != event.owner_id}
            assert not others & set(event.sharing.own_servers)
            assert not any(other in event.model_dump_json() for other in others)
            earlier = self.told[banner.key]
            if earlier:
                assert event.revision > earlier[-1].revision
                assert (event.state, event.sharing) != (earlier[-1].state, earlier[-1].sharing)
            else:
                assert event.state is BannerState.RAISED
            earlier.append(event)

    def stands_as_told(self) -> None:
        """Check that the newest event of each banner is how it stands."""
        for key, events in self.told.items():
            banner = self.state.banners.get(key)
            assert banner is not None
            assert banner.state is events[-1].state
            assert banner.sharing == events[-1].sharing


def observe(world: World, dice: Random) -> None:
    """Somebody tells of a credential; now and then with a lie about its kind."""
    name = dice.choice(sorted(TAGS))
    basis, strength = TAGS[name]
    if dice.random() < 0.1:
        strength = dice.choice(list(Strength))
    if dice.random() < 0.05:
        basis = dice.choice(list(Basis))
    world.ledger.observed(
        dice.choice(SERVERS),
        name,
        slot=dice.choice(["one", "two"]),
        revision=dice.choice([1, 1, 1, 2]),
        basis=basis,
        strength=strength,
        epoch=dice.choice(["e1", "e1", "e2"]),
    )


def retire(world: World, dice: Random) -> None:
    """A revision goes."""
    slot = dice.choice(["one", "two"])
    world.ledger.retired(dice.choice(SERVERS), dice.choice([1, 1, 2]), slot=slot)


def renew(world: World, dice: Random) -> None:
    """A server lists some of what it may hold."""
    all_of_it = [(slot, revision) for slot in ("one", "two") for revision in (1, 2)]
    world.ledger.renewed(dice.choice(SERVERS), *dice.sample(all_of_it, dice.choice([2, 4, 4])))


def tick(world: World, dice: Random) -> None:
    """A minute passes, or one is told again."""
    world.ledger.ticked(dice.choice([0, 1, 1, 1]))


def end(world: World, dice: Random) -> None:
    """A server is revoked or goes for good, or an epoch is closed."""
    server_id = dice.choice(SERVERS)
    what: Callable[[], object] = dice.choice(
        [
            lambda: world.ledger.revoked(server_id, OWNER_OF[server_id]),
            lambda: world.ledger.deprovisioned(server_id, OWNER_OF[server_id]),
            lambda: world.ledger.provisioned(server_id, OWNER_OF[server_id]),
            lambda: world.ledger.epoch_closed(dice.choice(["e1", "e2"])),
        ]
    )
    what()


def condition(world: World, dice: Random) -> None:
    """Something that concerns one server only."""
    server_id = dice.choice(SERVERS)
    owner_id = OWNER_OF[server_id]
    what: Callable[[], object] = dice.choice(
        [
            lambda: world.ledger.status(server_id, owner_id, Transition.REJECTED, "one"),
            lambda: world.ledger.status(server_id, owner_id, Transition.ACCEPTED, "one"),
            lambda: world.ledger.status(server_id, owner_id, Transition.SILENT),
            lambda: world.ledger.status(server_id, owner_id, Transition.RETURNED),
            lambda: world.ledger.needs_key(server_id, slot="one"),
            lambda: world.ledger.stored(server_id, slot="one"),
        ]
    )
    what()


def dismiss(world: World, dice: Random) -> None:
    """Somebody dismisses a banner, perhaps as it was, perhaps not theirs."""
    if world.told:
        event = dice.choice(world.told[dice.choice(sorted(world.told, key=str))])
        owner_id = event.owner_id if dice.random() < 0.95 else "globex"
        world.ledger.dismissed(owner_id, event.banner_id, event.revision)


def undo(world: World, dice: Random) -> None:
    """Somebody wants to see a banner again."""
    if world.told:
        key = dice.choice(sorted(world.told, key=str))
        world.ledger.undone(OWNER_OF[key.server_id], key.banner_id)


def repeat(world: World, dice: Random) -> None:
    """A fact comes a second time."""
    again: Event = dice.choice(world.ledger.facts).envelope.data
    world.ledger.add(again)


def refresh(world: World, dice: Random) -> None:
    """A login that was copied to many servers is refreshed on one of them."""
    world.ledger.observed(
        dice.choice(SERVERS), dice.choice(["r1", "r2", "r3"]), basis=Basis.OAUTH_GRANT
    )


HAPPENINGS = (
    [observe] * 12 + [retire] * 2 + [renew, tick, end, condition, undo, repeat] + ([dismiss] * 3)
)


@pytest.mark.parametrize("happenings", [HAPPENINGS, [refresh] * 9 + [dismiss]])
@settings(max_examples=100, deadline=None)
@given(st.randoms(use_true_random=False), st.integers(1, 100))
def test_banners_say_what_the_surviving_holdings_say(
    happenings: list[Callable[[World, Random], None]], dice: Random, length: int
) -> None:
    """After every single fact of any history, brute force comes to the same banners.

    And on the way: revisions grow, nothing is said twice, and nobody reads of another's servers.
    """
    world = World()
    for server_id in SERVERS:
        world.ledger.provisioned(server_id, OWNER_OF[server_id])
    folded = 0
    for _ in range(length):
        dice.choice(happenings)(world, dice)
        for fact in world.ledger.facts[folded:]:
            world.say(fold(world.state, fact))
            world.check()
        folded = len(world.ledger.facts)
    world.stands_as_told()


@settings(max_examples=30, deadline=None)
@given(st.randoms(use_true_random=False))
def test_a_replay_says_the_same_bytes(dice: Random) -> None:
    """Two projections that fold one ledger announce the same events, byte for byte."""
    world = World()
    for server_id in SERVERS:
        world.ledger.provisioned(server_id, OWNER_OF[server_id])
    for _ in range(60):
        observe(world, dice)
        dice.choice([retire, renew, tick, end, condition])(world, dice)

    def bytes_of(told: list[tuple[Banner, Cause]]) -> list[str]:
        return [announcement(*each).model_dump_json() for each in told]

    first, second = (bytes_of(fold(Projection(), *world.ledger.facts)) for _ in range(2))
    assert first == second
