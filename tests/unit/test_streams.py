"""Stream declarations."""

import pytest

from bus_schemas import streams
from bus_schemas.catalog import catalog
from bus_schemas.envelope import MAX_BYTES
from bus_schemas.streams import (
    BANNERS,
    CONFIG,
    HEALTH,
    LEDGER,
    PARKED,
    STREAMS,
    stream_of,
    unkept_events,
)

DAY = 24 * 3600 * 10**9


def test_the_ledger_keeps_everything_for_400_days() -> None:
    """It is the one stream all state is rebuilt from; full, it refuses rather than forgets."""
    ledger = LEDGER.configuration()
    assert ledger["max_age"] == 400 * DAY
    assert ledger["max_msgs_per_subject"] == -1
    assert ledger["discard"] == "new"
    assert ledger["allow_direct"] is True


def test_only_the_config_stream_may_be_purged_and_expire_single_messages() -> None:
    """A sealed credential leaves it once it is stored, or after a day."""
    for stream in STREAMS:
        mine = stream.configuration()
        assert mine["deny_purge"] is (stream is not CONFIG)
        assert mine["allow_msg_ttl"] is (stream is CONFIG)
        assert mine["deny_delete"] is True


@pytest.mark.parametrize("stream", STREAMS, ids=lambda stream: str(stream.name))
def test_every_stream_is_bounded(stream: streams.Stream) -> None:
    """One sender must not fill the disk: bytes are capped, and so is each message."""
    mine = stream.configuration()
    assert 0 < mine["max_bytes"] <= 16 * 1024**3
    assert MAX_BYTES < mine["max_msg_size"] <= MAX_BYTES + 4096
    assert mine["retention"] == "limits"
    assert mine["storage"] == "file"


def test_a_full_stream_refuses_unless_losing_its_oldest_hurts_nobody() -> None:
    """A flood must push out nobody's document or ratchet, and must not block the outboxes."""
    forgetful = {s.name for s in STREAMS if s.configuration()["discard"] == "old"}
    assert forgetful == {HEALTH.name, BANNERS.name, PARKED.name}
    assert HEALTH.configuration()["max_msgs_per_subject"] == 1
    assert BANNERS.configuration()["max_msgs_per_subject"] == 64


def test_a_streams_token_fits_a_subject() -> None:
    """Parked pointers travel on a subject that names their stream."""
    assert LEDGER.token == "byok-ledger"


def test_the_stream_of_a_subject() -> None:
    """Asked with an event template's wildcard."""
    assert stream_of("byok.v1.fingerprint.*") is LEDGER
    with pytest.raises(LookupError, match=r"no stream keeps byok\.v1\.nothing"):
        stream_of("byok.v1.nothing")


def test_what_comes_by_the_intake_is_kept_on_its_own_subject() -> None:
    """Servers cannot publish where the ledger listens, and readers see no trace of the detour."""
    arrivals = dict(zip(LEDGER.subjects, LEDGER.arrivals, strict=True))
    assert arrivals["byok.v1.fingerprint.*"] == "byok.v1.admitted.fingerprint.*"
    assert arrivals["byok.v1.clock"] == "byok.v1.clock"
    ledger = LEDGER.configuration()
    assert ledger["subjects"] == list(LEDGER.arrivals)
    assert ledger["subject_transform"] == {"src": "byok.v1.admitted.>", "dest": "byok.v1.>"}
    assert "subject_transform" not in HEALTH.configuration()
    assert stream_of("byok.v1.admitted.reported.*") is LEDGER


def test_a_followed_stream_tells_what_it_stored_without_its_content() -> None:
    """A nudge is for everybody who may read; what was stored is got by reading."""
    for stream in STREAMS:
        told = stream.configuration().get("republish")
        assert (told is not None) is stream.followed
        if told:
            assert stream.nudges == (told["dest"],)
            assert told["headers_only"] is True
    assert CONFIG.nudges == CONFIG.subjects


def test_an_unkept_event_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    """The check in the contract tests is able to fail."""
    assert unkept_events() == ()
    monkeypatch.setattr(streams, "STREAMS", (LEDGER,))
    lost = unkept_events()
    assert "byok.config.desired.v1" in lost
    assert set(lost) < set(catalog())


def test_streams_do_not_overlap() -> None:
    """nats-server refuses that, and each name is used once."""
    subjects = [subject for stream in STREAMS for subject in stream.subjects]
    assert len(subjects) == len(set(subjects))
    assert len({stream.name for stream in STREAMS}) == len(STREAMS)
