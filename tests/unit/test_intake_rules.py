"""What the intake makes of a fact."""

import pytest

from bus_schemas.codec import encode
from bus_schemas.events import FingerprintRenewed, RatchetAdvanced
from bus_schemas.events.fingerprint import MAX_SLOTS, HeldRevision
from bus_schemas.intake import (
    MAX_FACT_BYTES,
    OVER_QUOTA,
    TOO_EARLY,
    UNITS_A_DAY,
    UNUSABLE,
    FactDeclined,
    admitted,
)
from bus_schemas.transport.fresh import fresh
from platform_handlers.intake import rules

SUBJECT = "byok.v1.fingerprint.acme-1"


def renewed(held: int = 0, server_id: str = "acme-1") -> bytes:
    """A renewal with so many revisions, each as long as they get."""
    revisions = tuple(
        HeldRevision(slot_id=f"{i:063d}", revision=2**53 - 1 - i) for i in range(held)
    )
    fact = FingerprintRenewed(
        server_id=server_id, incarnation=2**53 - 1, n=2**53 - 1, held=revisions
    )
    return encode(fresh(fact))


def test_the_longest_fact_there_is_gets_in() -> None:
    """Two revisions of each slot, all ids and numbers at their longest."""
    raw = renewed(2 * MAX_SLOTS, "s" * 63)
    assert len(raw) > MAX_FACT_BYTES * 0.75
    assert rules.verdict(raw, f"byok.v1.fingerprint.{'s' * 63}") == 2**53 - 1


def test_a_fact_costs_one_for_each_begun_kib() -> None:
    """So that long facts do not fill the ledger sooner than short ones."""
    assert [rules.cost(bytes(size)) for size in (0, 1, 1024, 1025, 16384)] == [1, 1, 1, 2, 16]
    assert rules.FACTS.burst == UNITS_A_DAY


@pytest.mark.parametrize(
    ("raw", "reason"),
    [
        (b"{not json", "malformed"),
        (renewed(server_id="acme-2"), "wrong_subject"),
        (renewed() + bytes(MAX_FACT_BYTES), "oversized"),
    ],
)
def test_what_no_reader_could_use_is_told_by_its_reason(raw: bytes, reason: str) -> None:
    """The same words that readers park it with."""
    declined = rules.verdict(raw, SUBJECT)
    assert isinstance(declined, FactDeclined)
    assert (declined.error.err_code, declined.error.description) == (UNUSABLE, reason)
    assert rules.verdict(renewed(), SUBJECT) == 2**53 - 1


def test_starts_are_counted_by_the_ratchet() -> None:
    """The generation stands for them until it goes back for the first time."""
    state = RatchetAdvanced(server_id="acme-1", committed=3)
    assert rules.newest_start(state) == 3
    assert rules.newest_start(state.model_copy(update={"incarnation": 9})) == 9


@pytest.mark.parametrize("new", [b"renewed.v9", b"invented.v1"])
def test_what_this_build_does_not_know_yet_is_taken_later(new: bytes) -> None:
    """The server keeps it, so a platform that is upgraded after its servers loses nothing."""
    declined = rules.verdict(renewed().replace(b"renewed.v1", new), SUBJECT)
    assert isinstance(declined, FactDeclined)
    assert (declined.error.err_code, declined.retry_after) == (TOO_EARLY, 3600)
    assert new.decode() in declined.error.description


def test_a_message_id_is_the_servers_own_and_the_same_on_a_repeat() -> None:
    """A neighbour's or the platform's message is never taken for a repeat of it."""
    assert rules.message_id("acme-1", b"x") == rules.message_id("acme-1", b"x")
    assert rules.message_id("acme-1", b"x") != rules.message_id("acme-1", b"y")
    assert rules.message_id("acme-1", b"x") != rules.message_id("acme-2", b"x")


def test_a_decline_has_the_form_of_a_streams_own_error() -> None:
    """A server needs one reading for both."""
    wait = rules.over_quota(41.2)
    assert (wait.error.err_code, wait.retry_after) == (OVER_QUOTA, 42)
    assert rules.unusable("malformed").error.err_code == UNUSABLE
    unknown_start = rules.of_no_start(7)  # kept by the server: the ratchet may be the one behind
    assert unknown_start.error.err_code == TOO_EARLY
    assert "start 7" in unknown_start.error.description
    assert unknown_start.retry_after == 300
    full = rules.refused_by_stream(10077, "maximum bytes exceeded")
    assert full.error.err_code == 10077
    assert FactDeclined.model_validate_json(full.model_dump_json()) == full


def test_only_the_prefix_changes_on_the_way_in() -> None:
    """The ledger takes it off again."""
    assert admitted(SUBJECT) == "byok.v1.admitted.fingerprint.acme-1"
