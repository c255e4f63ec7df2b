"""Messages of the ledger told apart: facts, unusable ones, and those that stop the reader."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bus_schemas.codec import encode
from bus_schemas.envelope import Envelope
from bus_schemas.event import Event
from bus_schemas.events import RulesChanged
from bus_schemas.transport.jetstream import StoredMessage
from bus_schemas.transport.ledger import interpret
from tests.facts import Ledger

KNOWN = frozenset({1})


def message(sequence: int, subject: str, body: bytes) -> StoredMessage:
    """A message as it lies in the stream."""
    return StoredMessage(subject, sequence, "2026-11-23T10:00:00.5Z", body)


def good(envelope: Envelope[Event], sequence: int = 1) -> StoredMessage:
    """A message that holds *envelope*."""
    return message(sequence, envelope.data.subject, encode(envelope))


def altered(envelope: Envelope[Event], sequence: int = 1, **changes: object) -> StoredMessage:
    """A message that holds *envelope* with other attributes."""
    body = json.loads(encode(envelope)) | changes
    return message(sequence, envelope.data.subject, json.dumps(body).encode())


def test_facts_carry_their_place_and_the_streams_time() -> None:
    """The only order and the only time that a replay can see again."""
    seen = interpret([good(Ledger().ticked().envelope, 41)], KNOWN)
    [fact] = seen.facts
    assert (fact.sequence, fact.stored_at.isoformat()) == (41, "2026-11-23T10:00:00.500000+00:00")
    assert (seen.parked, seen.stop, seen.taken) == ((), None, 1)


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"type": "byok.fingerprint.observed.v2"}, "unknown_major"),
        ({"type": "byok.fingerprint.invented.v1"}, "unknown_type"),
        ({"type": "gibberish"}, "malformed"),
        ({"source": "/servers/acme-2"}, "wrong_source"),
        ({"data": {}}, "malformed"),
        ({"type": "byok.fingerprint.observed.v2", "source": "/platform/issuer"}, "unknown_major"),
    ],
)
def test_no_server_can_stop_the_platform(change: dict[str, object], reason: str) -> None:
    """Whatever a tenant sends is parked at most, even if it pretends to be the platform."""
    ledger = Ledger()
    bad = altered(ledger.observed("acme-1", "k1").envelope, 1, **change)
    after = good(ledger.ticked().envelope, 2)
    seen = interpret([bad, after], KNOWN)
    assert seen.parked == ((bad, reason),)
    assert [fact.sequence for fact in seen.facts] == [2]
    assert (seen.stop, seen.taken) == (None, 2)


@pytest.mark.parametrize("family", ["fingerprint", "reported", "health"])
def test_a_servers_subjects_are_a_servers_word(family: str) -> None:
    """Any type may be claimed there."""
    newer = altered(Ledger().ticked().envelope, type="byok.clock.ticked.v2")
    told = StoredMessage(f"byok.v1.{family}.acme-1", 1, newer.stored_at, newer.data)
    assert interpret([told], KNOWN).stop is None


@pytest.mark.parametrize(
    ("type_", "reason"),
    [("byok.clock.ticked.v2", "unknown_major"), ("byok.clock.invented.v1", "unknown_type")],
)
def test_a_newer_word_of_the_platform_stops_the_reader(type_: str, reason: str) -> None:
    """Facts before it are good; it and what follows wait for a newer build."""
    ledger = Ledger()
    first, bad, after = (
        good(ledger.ticked().envelope, 7),
        altered(ledger.ticked().envelope, 8, type=type_),
        good(ledger.ticked().envelope, 9),
    )
    seen = interpret([first, bad, after], KNOWN)
    assert [fact.sequence for fact in seen.facts] == [7]
    assert seen.stop is not None
    assert (seen.stop.reason, seen.stop.position, seen.taken) == (reason, 8, 1)
    assert type_ in seen.stop.remedy


def test_a_malformed_message_of_the_platform_is_parked() -> None:
    """A retry is useless, whoever sent it."""
    bad = message(1, "byok.v1.clock", b"{")
    assert interpret([bad], KNOWN).parked == ((bad, "malformed"),)


@pytest.mark.parametrize(
    ("event", "what"),
    [
        (RulesChanged(version=2), "rules version 2"),
        (RulesChanged(version=1, opens=("byok.new.thing.v1",)), "byok.new.thing.v1"),
    ],
)
def test_rules_this_build_does_not_know_stop_it(event: RulesChanged, what: str) -> None:
    """It says which, and what to install."""
    seen = interpret([good(Ledger().add(event).envelope, 3)], KNOWN)
    assert seen.stop is not None
    assert (seen.stop.reason, seen.taken, seen.facts) == ("unknown_rules", 0, ())
    assert seen.stop.remedy == f"install a version that knows {what}, then start again"


def test_known_rules_are_a_fact_like_any_other() -> None:
    """And so are types they open that this build has."""
    event = RulesChanged(version=1, opens=("byok.fingerprint.observed.v1",))
    assert interpret([good(Ledger().add(event).envelope)], KNOWN).taken == 1


@given(st.binary(max_size=200), st.sampled_from(["byok.v1.clock", "byok.v1.fingerprint.a", "x"]))
def test_no_bytes_whatever_raise(body: bytes, subject: str) -> None:
    """A message is a fact, parked, or a reason to stop; never an exception."""
    seen = interpret([message(1, subject, body)], KNOWN)
    assert len(seen.facts) + len(seen.parked) + (seen.stop is not None) == 1
