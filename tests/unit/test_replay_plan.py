"""A replay before it runs, and what a line of it says."""

import pytest

from bus_schemas.codec import encode
from bus_schemas.errors import Refused
from bus_schemas.transport.jetstream import StoredMessage, StreamState
from platform_handlers.banner.lifecycle import announcement
from platform_handlers.fingerprint.projection import Projection
from platform_handlers.replay.lines import line_of, talkers
from platform_handlers.replay.plan import ReplayPlan, is_whole, plan_replay
from tests.facts import Ledger, fold

WHOLE, AGED, EMPTY = StreamState("t", 1, 9), StreamState("t", 5, 9), StreamState("t", 0, 0)


@pytest.mark.parametrize(
    ("state", "first", "last", "plan", "whole"),
    [
        (WHOLE, None, None, ReplayPlan(1, 9), True),
        (WHOLE, 3, None, ReplayPlan(3, 9), False),
        (WHOLE, 1, 4, ReplayPlan(1, 4), True),
        (AGED, None, None, ReplayPlan(5, 9), False),
        (EMPTY, None, None, ReplayPlan(1, 0), True),
    ],
)
def test_both_ends_are_fixed_before_the_first_message(
    state: StreamState, first: int | None, last: int | None, plan: ReplayPlan, whole: bool
) -> None:
    """And it is said whether the fold misses earlier facts."""
    assert plan_replay(state, first, last) == plan
    assert is_whole(plan, state) == whole
    assert plan.messages == plan.last - plan.first + 1


@pytest.mark.parametrize(("first", "last"), [(4, 9), (5, 10), (9, 7)])
def test_a_range_the_ledger_does_not_hold_is_refused(first: int, last: int) -> None:
    """Replaying less than was asked for would look like agreement."""
    with pytest.raises(Refused, match="range_outside_ledger: the ledger holds 5 to 9"):
        plan_replay(AGED, first, last)


def stored(body: bytes, subject: str) -> StoredMessage:
    """A message as it lies in a stream."""
    return StoredMessage(subject, 7, "2026-11-23T10:00:00.123456789Z", body)


def test_a_line_tells_who_and_what() -> None:
    """Ids that stand in the subject are not repeated, and long values are cut."""
    envelope = Ledger().observed("acme-1", "k1").envelope
    line = line_of(stored(encode(envelope), envelope.data.subject))
    assert line.startswith("      7  2026-11-23T10:00:00Z  byok.fingerprint.observed.v1")
    assert "byok.v1.fingerprint.acme-1" in line
    assert "slot_id=main" in line
    assert "tag=6b3100000000…" in line
    assert "server_id=" not in line


def test_a_banners_line_tells_with_whom() -> None:
    """Own servers by name, other owners as a number."""
    ledger = Ledger()
    for server_id in ("acme-1", "acme-2"):
        ledger.provisioned(server_id, "acme")
        ledger.observed(server_id, "k1")
    told = fold(Projection(), *ledger.facts)
    envelope = announcement(*told[0])
    line = line_of(stored(encode(envelope), envelope.data.subject))
    assert line.endswith("API_KEY_REUSE low/blue own: acme-2 others: 0")


def test_an_unusable_message_gives_a_reason_and_no_payload() -> None:
    """What cannot be read is not printed."""
    line = line_of(stored(b"{secret", "byok.v1.fingerprint.acme-1"))
    assert "unusable" in line
    assert line.endswith("malformed")
    assert "secret" not in line


def test_the_top_talkers_come_first_with_their_share() -> None:
    """All subjects of a server count together."""
    counts = {"byok.v1.fingerprint.a": 1, "byok.v1.fingerprint.b": 2, "byok.v1.reported.b": 1}
    lines = [line.split() for line in talkers(counts, 5)]
    assert lines == [["3", "75%", "b"], ["1", "25%", "a"]]
    assert len(talkers(counts, 1)) == 1
    assert talkers({}, 5) == []
