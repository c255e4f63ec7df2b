"""When the provider is asked about which revision."""

import pytest

from bus_schemas.events.health import Validity
from vps_runtime.rotation.plan import AGAIN_SECONDS, Asked, due_at
from vps_runtime.rotation.rules import SlotRotation

BOTH = SlotRotation(current=3, pending=4, newest=4, validity=Validity.VALID)


def test_what_was_never_asked_is_asked_now() -> None:
    """After a start, too: nothing else wakes a rotation that hangs."""
    assert due_at(BOTH, 4, None) == 0
    assert due_at(BOTH, 3, None) == 0
    assert due_at(BOTH, 2, None) is None


@pytest.mark.parametrize(("times", "wait"), [(1, 5), (2, 10), (4, 40), (5, 60), (9999, 60)])
def test_a_pending_one_is_asked_for_ever_with_growing_pauses(times: int, wait: float) -> None:
    """Five seconds to a minute, until there is a verdict."""
    assert due_at(BOTH, 4, Asked(100, times)) == 100 + wait


def test_the_one_in_use_is_asked_every_six_hours() -> None:
    """And sooner after a call that contradicts its verdict, though never again and again."""
    assert due_at(BOTH, 3, Asked(100, 0)) == 100 + AGAIN_SECONDS
    assert due_at(BOTH, 3, Asked(100, 3)) == 100 + AGAIN_SECONDS
    assert due_at(BOTH, 3, Asked(100, 0, refused=True)) == 130


def test_a_forced_one_is_asked_until_there_is_a_verdict() -> None:
    """Its owner would like to know whether it was right."""
    forced = SlotRotation(current=4, newest=4)
    assert due_at(forced, 4, Asked(100, 1)) == 160
    assert due_at(forced, 4, Asked(100, 30)) == 100 + AGAIN_SECONDS


def test_servers_wait_a_little_longer_or_shorter_than_each_other() -> None:
    """A fleet that was started together does not ask in step for ever."""
    assert due_at(BOTH, 3, Asked(100, 0, spread=1.1)) == 100 + 1.1 * AGAIN_SECONDS


def test_an_order_does_not_wait() -> None:
    """Verify means now."""
    ordered = BOTH.model_copy(update={"asked": 3})
    assert due_at(ordered, 3, Asked(100, 0)) == 0
    assert due_at(ordered, 4, Asked(100, 1)) == 105
