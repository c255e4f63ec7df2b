"""Wrapping an event."""

from datetime import UTC, datetime, timedelta, timezone

import pytest
from pydantic import ValidationError

from bus_schemas.codec import decode, encode
from bus_schemas.envelope import Envelope, envelope_model, wrap
from bus_schemas.errors import ContractError
from bus_schemas.event import Event
from bus_schemas.events import BannerRaised, ClockTicked, FingerprintRetired, RatchetAdvanced
from bus_schemas.events.banner import BannerCode, Colour, Severity

ID = "0192f3a4-5b6c-7d8e-9f01-23456789abcd"
OTHER = "0192f3a4-5b6c-7d8e-9f01-23456789abce"
AT = datetime(2026, 11, 23, 10, 15, 30, tzinfo=UTC)
RETIRED = FingerprintRetired(
    server_id="acme-1", incarnation=1, n=2, slot_id="anthropic", revision=3
)


def banner(code: BannerCode) -> BannerRaised:
    """Return a banner about a whole server."""
    return BannerRaised(
        owner_id="acme",
        banner_id="acme-1__x",
        server_id="acme-1",
        code=code,
        severity=code.severity,
        colour=code.severity.colour,
        revision=1,
        since_time=AT,
    )


def test_the_envelope_follows_from_the_event() -> None:
    """A writer chooses id and time only: source and type cannot disagree with the subject."""
    envelope = wrap(RETIRED, id_=ID, at=AT)
    assert envelope.type == "byok.fingerprint.retired.v1"
    assert envelope.source == "/servers/acme-1"
    assert envelope.correlationid == ID
    assert envelope.causationid is None
    assert envelope.severitynumber is None
    assert envelope.data is RETIRED


def test_what_caused_it_is_kept() -> None:
    """Operators follow one action through all handlers."""
    envelope = wrap(RETIRED, id_=ID, at=AT, correlationid=OTHER, causationid=OTHER)
    assert (envelope.correlationid, envelope.causationid) == (OTHER, OTHER)


def test_an_envelope_equals_the_one_its_bytes_decode_to() -> None:
    """One class for writing and reading; a store may compare what it sent with what it reads."""
    for event in (RETIRED, ClockTicked(minute=1), banner(BannerCode.SERVER_SILENT)):
        envelope = wrap(event, id_=ID, at=AT)
        again = decode(encode(envelope), event.subject, strict=True)
        assert again == envelope
        assert type(again) is type(envelope) is envelope_model(type(event))
        assert isinstance(again, Envelope)


def test_what_is_none_is_left_out_and_comes_back_as_none() -> None:
    """An absent member and a null are the same to a reader; only one of them is sent."""
    first = RatchetAdvanced(server_id="acme-1", committed=0)
    raw = encode(wrap(first, id_=ID, at=AT))
    assert b"null" not in raw
    assert decode(raw, first.subject).data == first


@pytest.mark.parametrize("code", BannerCode)
def test_a_banners_severity_is_told_outside_too(code: BannerCode) -> None:
    """Subscribers filter by the number without reading the data: 13 amber, 9 blue."""
    envelope = wrap(banner(code), id_=ID, at=AT)
    amber = code.severity is Severity.HIGH
    assert envelope.severitynumber == (13 if amber else 9)
    assert code.severity.colour is (Colour.AMBER if amber else Colour.BLUE)


def test_three_codes_are_low() -> None:
    """The rest is amber."""
    low = {code for code in BannerCode if code.severity is Severity.LOW}
    assert low == {BannerCode.API_KEY_REUSE, BannerCode.ROTATION_DUE, BannerCode.SERVER_SILENT}


def test_time_is_written_in_utc() -> None:
    """Wherever the writer's clock stands."""
    elsewhere = AT.astimezone(timezone(timedelta(hours=5, minutes=30)))
    assert encode(wrap(RETIRED, id_=ID, at=elsewhere)) == encode(wrap(RETIRED, id_=ID, at=AT))
    assert b'"time":"2026-11-23T10:15:30Z"' in encode(wrap(RETIRED, id_=ID, at=elsewhere))


def test_a_time_without_a_zone_is_refused() -> None:
    """Local time would mean another instant on another machine."""
    with pytest.raises(ValidationError, match="timezone"):
        wrap(RETIRED, id_=ID, at=AT.replace(tzinfo=None))


@pytest.mark.parametrize("id_", ["", "1", ID.upper(), ID + "\n", f"{{{ID}}}"])
def test_an_id_is_a_lowercase_uuid(id_: str) -> None:
    """It becomes a header, `Nats-Msg-Id`."""
    with pytest.raises(ValidationError):
        wrap(RETIRED, id_=id_, at=AT)


def test_an_event_with_a_bad_id_gets_no_subject() -> None:
    """Even one that was built past the checks."""
    forged = RETIRED.model_copy(update={"server_id": "*"})
    with pytest.raises(ContractError, match="bad_subject_id"):
        wrap(forged, id_=ID, at=AT)


def test_neither_envelope_nor_event_can_be_changed() -> None:
    """They are facts, and safe as keys."""
    envelope = wrap(RETIRED, id_=ID, at=AT)
    with pytest.raises(ValidationError, match="frozen"):
        envelope.id = OTHER  # type: ignore[misc]
    with pytest.raises(ValidationError, match="frozen"):
        RETIRED.n = 3  # type: ignore[misc]
    assert len({envelope, wrap(RETIRED, id_=ID, at=AT)}) == 1


def test_the_generic_envelope_loses_no_field_of_the_event() -> None:
    """Typed as an envelope of any event, it still writes all of this one."""
    loose = Envelope[Event].model_validate(dict(wrap(RETIRED, id_=ID, at=AT)))
    assert loose.model_dump()["data"] == RETIRED.model_dump()
