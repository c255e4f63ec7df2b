"""The circle on which servers find the others they name."""

import hashlib

from hypothesis import given
from hypothesis import strategies as st

from platform_handlers.fingerprint.ring import Ring

NAMES = st.sets(st.sampled_from([f"s{i}" for i in range(12)]))
NAME = st.sampled_from([f"s{i}" for i in range(12)])


def naive_after(members: set[str], member: str, count: int) -> list[str]:
    """Walk the circle from *member*'s place, one seat at a time."""

    def seat(name: str) -> tuple[bytes, str]:
        return hashlib.sha256(name.encode()).digest()[:8], name

    others = sorted(members - {member}, key=seat)
    ahead = [name for name in others if seat(name) > seat(member)]
    return (ahead + [name for name in others if name not in ahead])[:count]


@given(NAMES, st.lists(st.tuples(NAME, st.booleans())))
def test_a_ring_is_a_set(start: set[str], changes: list[tuple[str, bool]]) -> None:
    """Adding twice or removing what is not there changes nothing; nobody is lost."""
    ring, members = Ring(start), set(start)
    for name, inside in changes:
        ring.keep(name, inside=inside)
        (members.add if inside else members.discard)(name)
        assert set(ring) == members
        assert len(ring) == len(members)
        assert (name in ring) == inside
        assert ring.others(name) == len(members - {name})


@given(NAMES, NAME, st.integers(0, 14))
def test_those_after_a_place_are_the_next_ones_round_the_circle(
    members: set[str], member: str, count: int
) -> None:
    """Nobody finds themselves, nobody twice, and all are found when there are few."""
    assert Ring(members).after(member, count) == naive_after(members, member, count)


@given(NAMES, NAMES, NAME, st.integers(1, 5))
def test_naming_is_the_inverse_of_after(
    everyone: set[str], some: set[str], member: str, count: int
) -> None:
    """Whoever finds *member* in a pool among the next ones is told when it comes or goes."""
    ring, pool = Ring(everyone), Ring(everyone & some)
    named_by = {
        name
        for name in everyone - {member}
        if member in naive_after(set(pool) | {member}, name, count)
    }
    assert set(ring.naming(member, pool, count)) == named_by


def test_one_that_leaves_a_large_ring_is_named_by_few() -> None:
    """In a group where all match all, exactly as many name one as one names."""
    ring = Ring(f"web-{i}" for i in range(500))
    assert len(ring.naming("web-0", ring, 20)) == 20
