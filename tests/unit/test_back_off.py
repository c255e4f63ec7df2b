"""Pauses between attempts."""

from urllib.parse import urlparse

from nats.aio.client import Server

from bus_schemas.transport import nats_manners
from bus_schemas.transport.back_off import BackOff, jittered


def test_pauses_double_up_to_the_longest() -> None:
    """A long outage is asked about less and less often, but never given up."""
    back_off = BackOff(first=1, longest=5)
    for middle in (1, 2, 4, 5, 5):
        assert 0.5 * middle <= back_off.pause() <= 1.5 * middle


def test_success_begins_anew() -> None:
    """The trouble before last does not slow down the next recovery."""
    back_off = BackOff(first=1, longest=60)
    for _ in range(6):
        back_off.pause()
    back_off.over()
    assert back_off.pause() <= 1.5


def test_a_fleet_is_spread() -> None:
    """Many servers that lost the same bus do not come back in the same moment."""
    pauses = [jittered(10) for _ in range(200)]
    assert len(set(pauses)) > 150
    assert min(pauses) >= 5
    assert max(pauses) <= 15


def test_reconnects_are_spread_from_the_first_one_on() -> None:
    """A bus that restarts meets its fleet over a while: nats-py alone would bring it at once."""
    for reconnects, longest in ((0, 0.1), (3, 0.8), (5, 3.2), (99, nats_manners.LONGEST_DELAY)):
        server = Server(urlparse("tls://127.0.0.1:4222"), reconnects=reconnects)
        pauses = [nats_manners.jittered([server], {})[1] for _ in range(200)]
        assert len(set(pauses)) > 150
        assert 0 <= min(pauses) < 0.2 * longest
        assert 0.8 * longest < max(pauses) <= longest
