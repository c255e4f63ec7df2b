"""The vocabulary of single fields."""

from datetime import UTC, datetime, timedelta, timezone
from typing import Any, get_args

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import TypeAdapter, ValidationError

from bus_schemas.event import Contract
from bus_schemas.fields import (
    Counter,
    CounterFromZero,
    Key32,
    Meaning,
    Reason,
    ServerId,
    Tag,
    Utc,
    at_utc,
)

UTC_FIELD: TypeAdapter[datetime] = TypeAdapter(Utc)


class Sample(Contract):
    """A contract of two fields."""

    plain: ServerId
    exact: ServerId
    """The server that is meant here."""


def test_the_epoch() -> None:
    """Unix seconds are the only other form of an instant here."""
    assert at_utc(0) == datetime(1970, 1, 1, tzinfo=UTC)
    assert at_utc(1.5).microsecond == 500_000


@given(st.datetimes(timezones=st.timezones()))
def test_an_instant_is_kept_in_utc_or_refused(at: datetime) -> None:
    """It stays the same instant; beyond the calendar's ends it is a fault of the message."""
    try:
        kept = UTC_FIELD.validate_python(at)
    except ValidationError as error:
        with pytest.raises(OverflowError):
            at.astimezone(UTC)
        assert "years 1 to 9999" in str(error)  # noqa: PT017 (either way is fine)
    else:
        assert kept == at.astimezone(UTC)
        assert kept.utcoffset() == timedelta(0)


@pytest.mark.parametrize(
    "at",
    [
        datetime(1, 1, 1, tzinfo=timezone(timedelta(hours=14))),
        datetime(9999, 12, 31, 23, tzinfo=timezone(timedelta(hours=-14))),
    ],
)
def test_an_instant_beyond_the_calendar_is_a_validation_error(at: datetime) -> None:
    """Anything else would escape the parser and stop a reader for ever."""
    with pytest.raises(ValidationError):
        UTC_FIELD.validate_python(at)


@pytest.mark.parametrize(("kind", "least"), [(Counter, 1), (CounterFromZero, 0)])
def test_counters_stay_exact_in_every_json_reader(kind: Any, least: int) -> None:  # noqa: ANN401
    """Above 2**53 - 1 a JavaScript reader would round and see a stale revision."""
    adapter: TypeAdapter[int] = TypeAdapter(kind)
    for good in (least, 2**53 - 1):
        assert adapter.validate_python(good) == good
    for bad in (least - 1, 2**53):
        with pytest.raises(ValidationError):
            adapter.validate_python(bad)


@pytest.mark.parametrize(
    ("kind", "bad"),
    [
        (Tag, "AB" * 32),
        (Tag, "ab" * 31),
        (Tag, "ab" * 32 + "\n"),
        (Reason, "With Spaces"),
        (Reason, ""),
        (Reason, "x" * 65),
        (Key32, bytes(31)),
        (Key32, bytes(33)),
    ],
)
def test_what_does_not_fit_is_refused(kind: Any, bad: object) -> None:  # noqa: ANN401
    """One spelling for each value."""
    with pytest.raises(ValidationError):
        TypeAdapter(kind).validate_python(bad)


def test_a_field_is_described_by_its_docstring_or_else_by_its_kind() -> None:
    """Nobody writes the same words under thirty server ids."""
    properties = Sample.model_json_schema()["properties"]
    assert properties["exact"]["description"] == "The server that is meant here."
    [words] = [part.words for part in get_args(ServerId) if isinstance(part, Meaning)]
    assert properties["plain"]["description"] == words


def test_errors_hide_what_was_wrong() -> None:
    """A secret pasted into the wrong field must not reach a log."""
    with pytest.raises(ValidationError) as caught:
        Sample(plain="sk-SECRET", exact="acme-1")
    assert "SECRET" not in str(caught.value)
