"""Link, agent and providers: what it takes until something else is said of them."""

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bus_schemas.events.health import LinkHealth, Presence
from vps_runtime.health.rules import (
    AGENT,
    FLAPPING_LOSSES,
    FLAPPING_SECONDS,
    PROVIDER,
    Hysteresis,
    Losses,
    Sensor,
    link_health,
    lost,
    presence,
    sign,
    worst,
)
from vps_runtime.health.signs import Signs, Summary

UP, DOWN, UNKNOWN = Presence.UP, Presence.DOWN, Presence.UNKNOWN
RULE = Hysteresis(signs=3, span=10, hold=100, fresh=1000)

each_rule = pytest.mark.parametrize("rule", [RULE, PROVIDER, AGENT])


def told(signs: list[tuple[float, bool]], rule: Hysteresis = RULE) -> Sensor:
    """Return what is known after *signs*, each with its time."""
    sensor = Sensor()
    for at, up in signs:
        sensor = sign(sensor, up=up, at=at, rule=rule)
    return sensor


def test_one_good_sign_is_enough_where_nothing_was_known() -> None:
    """A fresh server's first answered call must not leave its owner in doubt."""
    assert told([]).said is UNKNOWN
    assert told([(1, True)]).said is UP


def test_bad_news_always_takes_several_signs() -> None:
    """One call that fails is a hiccup, at the start too."""
    assert told([(1, False), (20, False)]).said is UNKNOWN
    assert told([(1, False), (20, False), (21, False)]).said is DOWN
    assert told([(1, True), (200, False), (220, False)]).said is UP
    assert told([(1, True), (200, False), (205, False), (210, False)]).said is DOWN


def test_a_burst_is_one_sign() -> None:
    """An agent that tries ten times within one bad second has met one outage."""
    burst = [(200 + n / 10, False) for n in range(10)]
    assert told([(1, True), *burst]).said is UP
    assert told([(1, True), *burst, (210, False)]).said is DOWN


def test_a_sign_for_it_ends_the_count_against_it() -> None:
    """The signs against must come in a row."""
    assert told([(1, True), (200, False), (210, False), (215, True), (220, False)]).said is UP


def test_thousands_of_signs_in_a_second_are_not_each_taken_down() -> None:
    """The gateway tells of every call; the newest second is as good as the last of its calls."""
    sensor = told([(1, True)])
    assert sign(sensor, up=True, at=1.9, rule=RULE) is sensor
    assert sign(sensor, up=True, at=2.1, rule=RULE).last == 2.1
    doubted = sign(sensor, up=False, at=1.5, rule=RULE)
    assert sign(doubted, up=True, at=1.6, rule=RULE).against == 0


def test_what_was_said_stands_for_a_while() -> None:
    """Whatever comes, `up` and `down` do not follow each other sooner than the rule holds them."""
    bad = [(10.0 * n, False) for n in range(1, 12)]
    assert told([(0, True), *bad[:9]]).said is UP
    assert told([(0, True), *bad]).said is DOWN


def test_after_a_long_silence_nothing_is_known() -> None:
    """An old sign says nothing of now, and does not count with a new one."""
    sensor = told([(1, True), (500, True)])
    assert presence(sensor, 1500, RULE) is UP
    assert presence(sensor, 1501, RULE) is UNKNOWN
    again = told([(1, False), (20, False), (2000, False)])
    assert (again.said, again.against) == (UNKNOWN, 1)


@each_rule
@given(st.lists(st.floats(0.01, 200), max_size=300))
def test_an_alternating_signal_never_changes_what_is_said(
    rule: Hysteresis, gaps: list[float]
) -> None:
    """Good, bad, good, bad: whoever looks sees one steady word."""
    sensor, at, said = Sensor(), 0.0, set()
    for number, gap in enumerate(gaps):
        at += gap
        sensor = sign(sensor, up=number % 2 == 0, at=at, rule=rule)
        said.add(sensor.said)
    assert said <= {UP}


@each_rule
@given(st.lists(st.tuples(st.floats(0, 400), st.booleans()), max_size=400))
def test_nothing_flaps_faster_than_the_rule_allows(
    rule: Hysteresis, signs: list[tuple[float, bool]]
) -> None:
    """Whatever signs come, and when: two opposite words are at least the hold apart."""
    sensor, at, changes = Sensor(), 0.0, []
    for gap, up in signs:
        at += gap
        before = presence(sensor, at, rule)
        sensor = sign(sensor, up=up, at=at, rule=rule)
        if sensor.said is not before:
            changes.append((at, sensor.said))
        assert sensor.said is before or sensor.against == 0
    for (earlier, was), (later, now) in pairwise(changes):
        assert was is now or later - earlier >= rule.hold


def test_one_provider_that_does_not_answer_is_told() -> None:
    """Three that do must not hide it; and none at all is no news."""
    assert worst([UP, DOWN, UNKNOWN]) is DOWN
    assert worst([UNKNOWN, UP]) is UP
    assert worst([UNKNOWN]) is UNKNOWN
    assert worst([]) is UNKNOWN


def losses(*at: float) -> Losses:
    """Return what is known after losses of the link at these times."""
    found = Losses()
    for time in at:
        found = lost(found, time)
    return found


def test_a_link_flaps_after_several_losses_and_is_steady_after_a_quiet_while() -> None:
    """A token's renewal, or one outage, is no news; coming and going is."""
    assert link_health(losses(), 0) is LinkHealth.STEADY
    assert link_health(losses(1, 2), 2) is LinkHealth.STEADY
    assert link_health(losses(1, 2, 3), 3) is LinkHealth.FLAPPING
    assert link_health(losses(1, 2, 3), 602) is LinkHealth.FLAPPING
    assert link_health(losses(1, 2, 3), 603) is LinkHealth.STEADY
    assert link_health(losses(1, 300, 700, 900), 900) is LinkHealth.STEADY
    assert link_health(losses(1, 2, 3, 500, 900), 1499) is LinkHealth.FLAPPING
    assert link_health(losses(1, 2, 3, 603), 603) is LinkHealth.STEADY


@given(st.lists(st.floats(0, 1000), max_size=200))
def test_a_link_is_not_called_steady_and_flapping_in_turns(gaps: list[float]) -> None:
    """From flapping to steady takes the whole quiet while, back again several losses."""
    found, at, said = Losses(), 0.0, [LinkHealth.STEADY]
    begun: list[int] = []
    for number, gap in enumerate(gaps):
        at += gap
        if link_health(found, at) is LinkHealth.STEADY and said[-1] is LinkHealth.FLAPPING:
            assert gap >= FLAPPING_SECONDS
            said.append(LinkHealth.STEADY)
        found = lost(found, at)
        if link_health(found, at) is not said[-1]:
            said.append(link_health(found, at))
            begun.append(number)
    assert all(later - earlier >= FLAPPING_LOSSES for earlier, later in pairwise(begun))


def test_signs_are_gathered_for_each_slot_and_forgotten_with_it() -> None:
    """A provider that no slot in use needs any more is nobody's trouble."""
    now, online = [0.0], [True]
    signs = Signs(clock=lambda: now[0], online=lambda: online[0])
    assert signs.summary([]) == Summary(LinkHealth.STEADY, None, UNKNOWN)
    signs.agent(up=True)
    signs.provider("main", answered=True)
    for now[0] in (200.0, 205.0, 215.0):
        signs.provider("other", answered=False)
        signs.link_lost()
    assert signs.summary(["main", "other"]) == Summary(LinkHealth.FLAPPING, UP, DOWN)
    assert signs.summary(["main"]).provider is UP
    assert signs.summary([]).provider is UNKNOWN


def test_an_outage_of_our_own_is_no_sign_against_a_provider() -> None:
    """A server without a network reaches nobody; that is the link's trouble, not theirs."""
    now = [0.0]
    signs = Signs(clock=lambda: now[0], online=lambda: False)
    for now[0] in (1.0, 100.0, 200.0, 300.0):
        signs.provider("main", answered=False)
    assert signs.summary(["main"]).provider is UNKNOWN
    signs.provider("main", answered=True)
    assert signs.summary(["main"]).provider is UP
