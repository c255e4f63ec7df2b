"""Whose request is let in."""

from hypothesis import given
from hypothesis import strategies as st

from platform_handlers.doors.rules import Allowance, Door

ALLOWANCE = Allowance(burst=3, per_second=0.5, at_once=2)


def test_what_was_saved_up_is_let_in_and_then_what_grows_back() -> None:
    """Three at once after a quiet time, then one every two seconds."""
    door = Door(ALLOWANCE)
    for _ in range(3):
        assert door.enter("a", now=100) is None
        door.leave("a")
    away = door.enter("a", now=100)
    assert away is not None
    assert away.seconds == 2
    assert door.enter("a", now=102) is None
    door.leave("a")
    assert door.enter("a", now=103) is not None


def test_a_dear_request_costs_more_and_says_how_long_to_wait() -> None:
    """The wait is for the whole of its cost."""
    door = Door(ALLOWANCE)
    assert door.enter("a", now=0, cost=2) is None
    door.leave("a")
    away = door.enter("a", now=0, cost=3)
    assert away is not None
    assert away.seconds == 4


def test_one_too_many_at_once_spends_nothing() -> None:
    """It is let in as soon as another one left."""
    door = Door(ALLOWANCE)
    assert door.enter("a", now=0) is None
    assert door.enter("a", now=0) is None
    away = door.enter("a", now=0)
    assert away is not None
    assert away.seconds == 0
    door.leave("a")
    assert door.enter("a", now=0) is None


def test_what_takes_no_time_takes_no_place() -> None:
    """It only spends."""
    door = Door(ALLOWANCE)
    assert [door.spend("a", now=0) is None for _ in range(4)] == [True, True, True, False]


def test_one_server_empties_no_other_ones_bucket() -> None:
    """However often it is turned away."""
    door = Door(ALLOWANCE)
    for _ in range(100):
        door.enter("hostile", now=0)
    assert door.enter("honest", now=0) is None


def test_a_flood_is_told_less_and_less_often() -> None:
    """A thousand refusals are ten lines in the log."""
    door = Door(Allowance(burst=1, per_second=0.001, at_once=1))
    door.enter("a", now=0)
    aways = [door.enter("a", now=0) for _ in range(1000)]
    assert [away.count for away in aways if away and away.worth_telling] == [
        2**i for i in range(10)
    ]


@given(st.lists(st.tuples(st.floats(0, 1000), st.sampled_from([1, 2, 5])), max_size=60))
def test_nobody_ever_gets_more_than_the_allowance(steps: list[tuple[float, int]]) -> None:
    """In any stretch of time: the burst, and what grew back in it. A clock never goes back."""
    door, now, spent = Door(Allowance(burst=10, per_second=0.1, at_once=1)), 0.0, 0
    for pause, cost in steps:
        now += pause
        if door.enter("a", now=now, cost=cost) is None:
            spent += cost
            door.leave("a")
    assert spent <= 10 + 0.1 * now + 1e-6
