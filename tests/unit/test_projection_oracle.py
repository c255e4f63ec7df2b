"""The projection against brute force: after any history, banners say what the holdings say.

The steps in which banners count, and all caps, are made small, so that a handful of servers
crosses them.
"""

import hashlib
from collections.abc import Iterator
from random import Random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bus_schemas.events import BannerEvent
from bus_schemas.events.banner import BannerCode, BannerState, Sharing
from bus_schemas.fields import Basis, Strength
from platform_handlers.banner.lifecycle import BannerKey, announcement
from platform_handlers.fingerprint import edits, projection, reach, rules
from platform_handlers.fingerprint.holders import Holding, SlotKey
from platform_handlers.fingerprint.projection import Projection
from tests.facts import fold
from tests.histories import HAPPENINGS, OWNER_OF, Happening, World, dismiss, refresh

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
        assert (standing.sharing if standing else None) == naive_sharing(book, slot, key.code)
        if standing and standing.state is BannerState.DISMISSED:
            assert standing.dismissal is not None
            assert partners <= standing.dismissal.covered.keys()


def check_said(event: BannerEvent, earlier: BannerEvent | None) -> None:
    """Check an event against the one before it on its banner, and for other owners' servers."""
    others = {s for s, owner in OWNER_OF.items() if owner != event.owner_id}
    assert event.owner_id == OWNER_OF[event.server_id]
    assert not any(other in event.model_dump_json() for other in others)
    if earlier:
        assert event.revision > earlier.revision
        assert (event.state, event.sharing) != (earlier.state, earlier.sharing)
    else:
        assert event.state is BannerState.RAISED


def check_newest(world: World) -> None:
    """Check that the newest event of each banner is how it stands."""
    for key, events in world.told.items():
        banner = world.state.banners.get(key)
        if banner is None:  # cleared, and no dismissal to remember
            assert events[-1].state is BannerState.CLEARED
            continue
        assert (banner.state, banner.sharing) == (events[-1].state, events[-1].sharing)


@pytest.mark.parametrize("happenings", [HAPPENINGS, [refresh] * 9 + [dismiss]])
@settings(max_examples=100, deadline=None)
@given(st.randoms(use_true_random=False), st.integers(1, 100))
def test_banners_say_what_the_surviving_holdings_say(
    happenings: list[Happening], dice: Random, length: int
) -> None:
    """After every single fact of any history, brute force comes to the same banners.

    And on the way: revisions grow, nothing is said twice, and nobody reads of another's servers.
    """
    world = World()
    for _ in range(length):
        dice.choice(happenings)(world, dice)
        for event, earlier in world.catch_up():
            check_said(event, earlier)
        check_standing(world)
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
