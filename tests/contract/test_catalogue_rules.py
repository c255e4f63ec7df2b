"""What every event class must be, so that the catalogue is the whole truth."""

import importlib
import pkgutil
import re
from collections.abc import Iterator
from typing import Any

import pytest

from bus_schemas import events
from bus_schemas.catalog import HISTORY, EventClass, catalog, is_newer_major
from bus_schemas.event import Contract, Event, ServerFact, Writer
from bus_schemas.json_schemas import event_schema
from bus_schemas.streams import STREAMS, unkept_events

TYPES = tuple(catalog().items())
STATES = {"in-use", "needs-key", "undone"}
"""The only last words that are no regular past verb: two states of a slot, one irregular verb."""


def classes() -> set[EventClass]:
    """Return every event class with a type of its own in the modules of the events package."""
    modules = [
        importlib.import_module(f"{events.__name__}.{module.name}")
        for module in pkgutil.iter_modules(events.__path__)
    ]
    found = (value for module in modules for value in vars(module).values())
    return {
        value
        for value in found
        if isinstance(value, type) and issubclass(value, Event) and "type" in vars(value)
    }


def described(schema: dict[str, Any], defs: dict[str, Any]) -> bool:
    """Say whether a property has words, of its own or of its type."""
    if "description" in schema:
        return True
    if "$ref" in schema:
        return described(defs[schema["$ref"].rpartition("/")[2]], defs)
    return any(described(option, defs) for option in schema.get("anyOf", ()))


def objects(event: EventClass) -> Iterator[tuple[str, dict[str, Any], dict[str, Any]]]:
    """Yield the name, schema and definitions of every object in the event's message."""
    schema = event_schema(event)
    defs = schema.get("$defs", {})
    yield schema["title"], schema, defs
    for name, definition in defs.items():
        yield name, definition, defs


def test_every_class_is_in_the_catalogue_and_only_they() -> None:
    """A class that was forgotten would be written and then parked by every reader."""
    assert set(catalog().values()) == classes()
    assert [event.type for event in catalog().values()] == list(catalog())


@pytest.mark.parametrize(("type_", "event"), TYPES)
def test_a_type_is_noun_past_verb_and_major(type_: str, event: EventClass) -> None:
    """Events are facts: something happened, or is so."""
    match = re.fullmatch(r"byok\.[a-z]+(-[a-z]+)*\.([a-z]+(-[a-z]+)*)\.v[1-9][0-9]*", type_)
    assert match
    assert match[2].endswith("ed") or match[2] in STATES
    assert event.__doc__


@pytest.mark.parametrize(("type_", "event"), TYPES)
def test_every_date_of_entry_is_told_in_the_history(type_: str, event: EventClass) -> None:
    """Whoever reads `since` must find what happened on that day."""
    told = [
        change for change in HISTORY if change.on == event.since and {"*", type_} & {*change.types}
    ]
    assert len(told) == 1


def test_the_history_grows_downwards_and_names_real_types() -> None:
    """One line a day, the newest last, and none about a type nobody knows."""
    days = [change.on for change in HISTORY]
    assert days == sorted(set(days))
    assert {t for change in HISTORY for t in change.types} <= {"*", *catalog()}


@pytest.mark.parametrize("event", [event for _, event in TYPES])
def test_every_field_is_described(event: EventClass) -> None:
    """Units, origin and range are told where the field is, and so in the schema."""
    missing = [
        f"{name}.{field}"
        for name, schema, defs in objects(event)
        for field, property_ in schema.get("properties", {}).items()
        if not described(property_, defs)
    ]
    assert missing == []
    assert all(schema.get("description") for _, schema, _ in objects(event))


@pytest.mark.parametrize("event", [event for _, event in TYPES])
def test_no_event_has_keys_of_the_senders_choice(event: EventClass) -> None:
    """A dictionary's key would be named in the errors of its values."""
    for _, schema, _ in objects(event):
        if schema.get("type") == "object":
            assert schema.get("additionalProperties", False) is False
        for property_ in schema.get("properties", {}).values():
            assert property_.get("type") != "object"


@pytest.mark.parametrize("event", [event for _, event in TYPES])
def test_a_field_that_may_be_none_may_be_absent(event: EventClass) -> None:
    """The encoder leaves out what is None, so a reader must not insist on it."""
    for _, schema, _ in objects(event):
        for name, property_ in schema.get("properties", {}).items():
            if {"type": "null"} in property_.get("anyOf", ()):
                assert name not in schema.get("required", ())


@pytest.mark.parametrize("event", [event for _, event in TYPES])
def test_the_subject_is_made_of_fields_and_kept_by_one_stream(event: EventClass) -> None:
    """Two streams would store it twice, none would lose it."""
    assert set(event.template.names) <= set(event.model_fields)
    assert event.template.pattern.startswith("byok.v1.")
    assert sum(stream.owns(event.template.wildcard) for stream in STREAMS) == 1


def test_no_event_is_without_a_stream() -> None:
    """What no stream keeps would be acknowledged by nobody."""
    assert unkept_events() == ()


def test_every_stream_subject_carries_an_event() -> None:
    """A subject that no class owns would be kept and never read."""
    kept = {subject for stream in STREAMS for subject in stream.subjects}
    assert kept == {event.template.wildcard for event in catalog().values()}


@pytest.mark.parametrize("event", [event for _, event in TYPES])
def test_what_a_server_writes_is_ordered_by_the_server(event: EventClass) -> None:
    """Only (incarnation, n) tells a late copy of a server's fact from news."""
    assert issubclass(event, ServerFact) == (event.writer is Writer.SERVER)
    assert (event.writer is Writer.SERVER) == (
        event.writer.source_for({"server_id": "a"}) == "/servers/a"
    )


@pytest.mark.parametrize("event", [event for _, event in TYPES])
def test_every_event_is_a_frozen_contract(event: EventClass) -> None:
    """A fact does not change, and its errors hide what was wrong."""
    assert issubclass(event, Contract)
    assert event.model_config.get("frozen") is True
    assert event.model_config.get("hide_input_in_errors") is True


@pytest.mark.parametrize(
    ("type_", "newer"),
    [
        ("byok.fingerprint.observed.v1", False),
        ("byok.fingerprint.observed.v2", True),
        ("byok.fingerprint.observed.v0", False),
        ("byok.fingerprint.seen.v2", False),
    ],
)
def test_only_a_later_major_of_a_known_event_is_newer(type_: str, newer: bool) -> None:
    """A reader stops for what its successor will understand, not for noise."""
    assert is_newer_major(type_) is newer
