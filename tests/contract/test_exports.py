"""The generated documents: complete, valid, and the same as in the repository."""

import json
import runpy
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from jsonschema import Draft202012Validator

from bus_schemas.__main__ import main
from bus_schemas.asyncapi import asyncapi
from bus_schemas.catalog import catalog
from bus_schemas.event import Contract
from bus_schemas.export import documents, drift
from bus_schemas.flows import WRITERS, Act, Role, flows
from bus_schemas.json_schemas import event_schema, wire_schema
from bus_schemas.streams import STREAMS

ROOT = Path(__file__).parents[2]
GOLDEN = {
    path.stem: path.read_bytes()
    for path in sorted((Path(__file__).parent / "golden").glob("*.json"))
}
TEXTS = documents()


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    """An empty repository, as far as the exporter looks at it."""
    (tmp_path / "bus_schemas").mkdir()
    return tmp_path


def references(node: object) -> Iterator[str]:
    """Yield every `$ref` below *node*."""
    if isinstance(node, dict):
        for key, value in node.items():
            if key == "$ref":
                yield value
            else:
                yield from references(value)
    elif isinstance(node, list):
        for value in node:
            yield from references(value)


def test_the_repository_holds_what_the_classes_say(capsys: pytest.CaptureFixture[str]) -> None:
    """Run `python -m bus_schemas` when this fails; a changed schema is a change for readers."""
    assert main(["--check"], ROOT) == 0, capsys.readouterr().err


def test_documents_are_the_same_each_time() -> None:
    """A check that flickers would be switched off."""
    assert documents() == documents()


def test_written_documents_do_not_drift(repository: Path) -> None:
    """Writing twice changes nothing, and a check right after finds nothing."""
    assert main([], repository) == 0
    assert main([], repository) == 0
    assert main(["--check"], repository) == 0


def test_the_check_names_each_file_that_drifted(
    repository: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Changed, missing, unreadable and left-over files are told apart; writing mends them all."""
    main([], repository)
    (repository / "docs" / "events.md").write_text("mine")
    (repository / "docs" / "asyncapi.json").unlink()
    (repository / "deploy" / "nats" / "streams.json").write_bytes(b"\xff")
    (repository / "docs" / "schemas" / "byok.gone.away.v1.json").write_text("{}")
    assert main(["--check"], repository) == 1
    assert set(capsys.readouterr().err.splitlines()) == {
        "docs/asyncapi.json: missing",
        "docs/events.md: differs",
        "deploy/nats/streams.json: differs",
        "docs/schemas/byok.gone.away.v1.json: should not be there",
        "run: python -m bus_schemas",
    }
    assert main([], repository) == 0
    assert main(["--check"], repository) == 0


@pytest.mark.parametrize("arguments", [["--chek"], ["--check", "--check"]])
def test_wrong_arguments_are_a_usage_error(
    arguments: list[str], repository: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A misspelt --check must not write."""
    assert main(arguments, repository) == 2
    assert "usage" in capsys.readouterr().err
    assert not (repository / "docs").exists()


def test_another_folder_is_left_alone(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Run elsewhere, it would strew documents there."""
    assert main([], tmp_path) == 2
    assert "repository's root" in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []


def test_the_module_runs_as_a_command(repository: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """`python -m bus_schemas` works in the current folder and exits with the code."""
    monkeypatch.chdir(repository)
    monkeypatch.setattr("sys.argv", ["bus_schemas"])
    monkeypatch.delitem(sys.modules, "bus_schemas.__main__")
    with pytest.raises(SystemExit) as left:
        runpy.run_module("bus_schemas", run_name="__main__")
    assert left.value.code == 0
    assert (repository / "docs" / "events.md").is_file()


def test_everything_is_missing_from_nothing() -> None:
    """Drift against an empty repository names every document once."""
    assert drift({}) == [f"{path}: missing" for path in documents()]


@pytest.mark.parametrize("type_", catalog())
def test_the_schema_accepts_the_golden_message(type_: str) -> None:
    """Whoever validates with the published schema accepts what we send, bytes and all."""
    schema = json.loads(TEXTS[f"docs/schemas/{type_}.json"])
    Draft202012Validator.check_schema(schema)
    Draft202012Validator(schema).validate(json.loads(GOLDEN[type_]))


@pytest.mark.parametrize("type_", catalog())
def test_the_schema_refuses_another_events_message(type_: str) -> None:
    """A schema that accepts everything would pass the test above too."""
    validator = Draft202012Validator(event_schema(catalog()[type_]))
    for other, raw in GOLDEN.items():
        assert validator.is_valid(json.loads(raw)) == (other == type_)


@pytest.mark.parametrize(
    ("field", "value", "valid"),
    [
        ("public_key", "A" * 43 + "=", True),
        ("public_key", "A" * 43, True),
        ("public_key", "A" * 42, False),
        ("public_key", "A" * 45, False),
        ("public_key", "A" * 42 + "*=", False),
    ],
)
def test_lengths_of_bytes_are_told_as_they_are_sent(field: str, value: str, valid: bool) -> None:
    """32 bytes are 43 or 44 characters on the wire; a schema in raw bytes would refuse all."""
    message: dict[str, Any] = json.loads(GOLDEN["byok.epoch.opened.v1"])
    message["data"][field] = value
    schema = event_schema(catalog()["byok.epoch.opened.v1"])
    assert Draft202012Validator(schema).is_valid(message) is valid


def test_bytes_without_limits_have_none_in_the_schema() -> None:
    """Only what the class says is promised."""

    class Loose(Contract):
        """Any bytes."""

        raw: bytes

    [text] = wire_schema(Loose)["properties"].values()
    assert set(text) == {"type", "contentEncoding", "pattern"}


def test_docstrings_become_descriptions() -> None:
    """The words under a field, the class's and those of its kind all reach the schema."""
    schema = event_schema(catalog()["byok.fingerprint.observed.v1"])
    data = schema["$defs"]["FingerprintObserved"]
    assert "holds a credential with this tag" in schema["description"]
    assert "orders them, each once" in data["properties"]["n"]["description"]
    assert "64 lowercase hexadecimal" in data["properties"]["tag"]["description"]
    assert "Nothing is ordered by it" in schema["properties"]["time"]["description"]


def test_asyncapi_refers_to_what_exists() -> None:
    """Every reference resolves, within the document or to a schema beside it."""
    document = asyncapi()
    for reference in references(document):
        if not reference.startswith("#/"):
            assert f"docs/{reference.removeprefix('./')}" in TEXTS
            continue
        node: Any = document
        for name in reference.removeprefix("#/").split("/"):
            node = node[name]


def test_asyncapi_holds_every_event_on_its_channel() -> None:
    """One channel per subject template, with the template's holes as parameters."""
    channels = asyncapi()["channels"]
    for event in catalog().values():
        [channel] = [c for c in channels.values() if c["address"] == event.template.pattern]
        assert event.type in channel["messages"]
        assert tuple(channel.get("parameters", ())) == event.template.names
    addresses = [channel["address"] for channel in channels.values()]
    assert len(set(addresses)) == len(addresses)


def test_asyncapi_operations_are_the_flow_table() -> None:
    """A send for whoever may store or ask, with only the events that are theirs."""
    document = asyncapi()
    for flow in flows():
        if flow.act is not Act.STORE or flow.role is Role.INTAKE:  # it passes on what others write
            continue
        [operation] = [
            found
            for name, found in document["operations"].items()
            if name.startswith(f"{flow.role.value}-sends-")
            and _address(document, found) == flow.subject.pattern
        ]
        sent = {reference["$ref"].rpartition("/")[2] for reference in operation["messages"]}
        assert sent == {
            event.type
            for event in catalog().values()
            if event.template == flow.subject and flow.role in WRITERS[event.writer]
        }


def _address(document: dict[str, Any], operation: dict[str, Any]) -> str:
    name = operation["channel"]["$ref"].rpartition("/")[2]
    address: str = document["channels"][name]["address"]
    return address


def test_requests_have_replies_in_the_inbox() -> None:
    """Asking and answering name the same replies, which come to the asker's own inbox."""
    operations = asyncapi()["operations"]
    assert (
        operations["server-sends-evaluate"]["reply"]
        == operations["evaluator-receives-evaluate"]["reply"]
    )
    assert asyncapi()["channels"]["inbox"]["address"] is None


def test_the_streams_file_is_the_declaration() -> None:
    """Whoever makes the streams with another tool makes the same ones."""
    streams = json.loads(TEXTS["deploy/nats/streams.json"])
    assert streams == [stream.configuration() for stream in STREAMS]


@pytest.mark.parametrize("type_", catalog())
def test_the_event_page_has_a_row_for_every_type(type_: str) -> None:
    """Type, subject, stream, writer, date and meaning, in one line that no pipe breaks."""
    page = TEXTS["docs/events.md"]
    [row] = [line for line in page.splitlines() if line.startswith(f"| [`{type_}`]")]
    assert row.count("|") == 7
    assert catalog()[type_].template.pattern in row
