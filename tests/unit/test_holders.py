"""The book of who holds which tag."""

from collections import defaultdict
from dataclasses import replace

from hypothesis import given
from hypothesis import strategies as st

from bus_schemas.fields import Basis, Strength
from platform_handlers.fingerprint.holders import (
    Holders,
    Holding,
    SlotKey,
    Standing,
    TagKey,
    first_joined,
)

OWNERS = {"a1": "acme", "a2": "acme", "a3": "acme", "g1": "globex", "g2": "globex"}

HOLDINGS = st.builds(
    lambda server, slot, tag, strength, standing, joined: Holding(
        SlotKey(server, slot),
        OWNERS[server],
        TagKey("e1", tag),
        "anthropic",
        Basis.API_KEY,
        strength,
        1,
        standing,
        joined,
        0,
    ),
    st.sampled_from(sorted(OWNERS)),
    st.sampled_from(["one", "two"]),
    st.sampled_from(["t1", "t2"]),
    st.sampled_from(Strength),
    st.sampled_from(Standing),
    st.integers(1, 99),
)


def check(book: Holders, kept: dict[tuple[SlotKey, TagKey], Holding]) -> None:
    """Compare every index of *book* with a walk over all that is *kept*."""
    assert {(h.slot, h.key): h for h in book} == kept
    assert {key for _, key in kept} == set(book.by_tag)
    assert {slot.server_id for slot, _ in kept} == set(book.by_server)
    for key, tag in book.by_tag.items():
        here = [h for h in kept.values() if h.key == key]
        assert set(tag.owners) == {h.owner_id for h in here}
        assert tag.crossing == {h.owner_id for h in here if h.crosses}
        assert tag.crossing_current == {h.owner_id for h in here if h.crosses and h.is_current}
        for owner_id, mine in tag.owners.items():
            theirs = [h for h in here if h.owner_id == owner_id]
            servers: dict[str, dict[str, Holding]] = defaultdict(dict)
            for holding in theirs:
                servers[holding.slot.server_id][holding.slot.slot_id] = holding
            assert mine.servers == servers
            assert set(mine.everyone) == set(servers)
            assert set(mine.current) == {h.slot.server_id for h in theirs if h.is_current}
            assert mine.crossing == sum(h.crosses for h in theirs)
            assert mine.crossing_current == sum(h.crosses and h.is_current for h in theirs)


@given(st.lists(st.tuples(HOLDINGS, st.booleans()), max_size=30))
def test_the_indexes_agree_with_a_walk_over_everything(
    changes: list[tuple[Holding, bool]],
) -> None:
    """After any sequence of puts and drops every index says what a naive count says."""
    book, kept = Holders(), dict[tuple[SlotKey, TagKey], Holding]()
    for holding, keep in changes:
        at = (holding.slot, holding.key)
        if keep:
            book.put(holding)
            kept[at] = holding
        elif at in kept:
            book.drop(*at)
            del kept[at]
        check(book, kept)


def test_a_server_that_holds_nothing_leaves_no_trace() -> None:
    """What is empty is removed: a book of rotated keys does not grow for ever."""
    book = Holders()
    holding = Holding(
        SlotKey("a1", "one"),
        "acme",
        TagKey("e1", "t1"),
        "anthropic",
        Basis.API_KEY,
        Strength.SECRET,
        1,
        Standing.CURRENT,
        7,
        0,
    )
    book.put(holding)
    book.drop(holding.slot, holding.key)
    assert book == Holders()
    assert not book.of_tag(holding.key).owners
    assert not book.of_slot(holding.slot)
    assert not book.of_server("a1")
    assert first_joined([holding, replace(holding, joined=3)]) == 3
