"""How far a fact about a tag reaches."""

from dataclasses import replace

from bus_schemas.fields import Basis, Strength
from platform_handlers.fingerprint.holders import Holders, Holding, SlotKey, Standing, TagKey
from platform_handlers.fingerprint.reach import Place, reached, trace

KEY = TagKey("e1", "t")


def holding(
    owner_id: str, server_id: str, joined: int, *, standing: Standing = Standing.CURRENT
) -> Holding:
    """One server's holding of the tag."""
    slot = SlotKey(server_id, "main")
    strength = Strength.SECRET
    return Holding(
        slot, owner_id, KEY, "x", Basis.OAUTH_GRANT, strength, 1, standing, joined, joined
    )


def asked(holders: Holders, change: Holding, *, keep: bool = True) -> set[str]:
    """Carry out a change and return the servers whose banners it may reach."""
    places: list[Place] = [(change.owner_id, change.slot.server_id)]
    before = trace(holders.of_tag(KEY), places)
    if keep:
        holders.put(change)
    else:
        holders.drop(change.slot, change.key)
    tag = holders.of_tag(KEY)
    return {h.slot.server_id for h in reached(tag, before, trace(tag, places))}


def group(size: int, **kind: Standing) -> Holders:
    """Many servers of one owner, all with the tag."""
    holders = Holders()
    for i in range(size):
        holders.put(holding("acme", f"web-{i}", i + 1, **kind))
    return holders


def test_a_repeated_word_reaches_nobody() -> None:
    """Renewing a tag costs nothing, however many servers hold it."""
    again = holding("acme", "web-7", 8)
    assert asked(group(50), again) == set()


def test_in_a_small_group_everybody_hears_of_a_newcomer() -> None:
    """Up to twenty partners are all named, so each banner changes."""
    assert asked(group(5), holding("acme", "new", 9)) == {*(f"web-{i}" for i in range(5)), "new"}


def test_in_a_large_group_few_hear_of_one_that_leaves() -> None:
    """Only those that name it; the others' lists and the step of the total stay."""
    holders = group(60)
    assert len(asked(holders, holding("acme", "web-0", 1), keep=False)) == 20


def test_a_new_owner_is_heard_of_by_all() -> None:
    """Other owners are counted, not named, so every banner of the tag counts anew."""
    assert len(asked(group(60), holding("globex", "globex-1", 99))) == 61


def test_the_last_of_an_owner_leaves_nobody_to_ask() -> None:
    """Where no holder is left, no banner is either."""
    assert asked(group(1), holding("acme", "web-0", 1), keep=False) == set()


def test_old_tokens_name_those_in_use_only() -> None:
    """When one in use retires, whoever named it hears of it, also from among the old ones."""
    holders = group(60, standing=Standing.RETIRED)
    for i in range(30):
        holders.put(holding("acme", f"live-{i}", 100 + i))
    lost = "live-3"
    naming = {
        server_id
        for server_id in holders.of_tag(KEY).owners["acme"].everyone
        if lost in holders.of_tag(KEY).owners["acme"].current.after(server_id, 20)
    }
    assert any(server_id.startswith("web") for server_id in naming)
    heard = asked(holders, holding("acme", lost, 103, standing=Standing.RETIRED))
    assert naming <= heard


def test_standing_since_another_moment_is_seen() -> None:
    """Banners list the longest-standing first, so they may read in another order."""
    assert asked(group(5), holding("acme", "web-0", 99)) == {f"web-{i}" for i in range(1, 5)}


def test_each_way_of_holding_it_leaves_another_trace() -> None:
    """A dismissed banner is asked again after any of them."""
    one = holding("acme", "web-0", 1)
    ways = [
        one,
        replace(one, joined=2),
        replace(one, strength=Strength.GUESSABLE),
        replace(one, standing=Standing.RETIRED),
    ]
    traces = []
    for way in ways:
        holders = Holders()
        holders.put(way)
        traces.append(trace(holders.of_tag(KEY), [("acme", "web-0")]).places)
    assert all(a != b for i, a in enumerate(traces) for b in traces[:i])
