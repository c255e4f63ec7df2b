"""Everything written from the classes: schemas, AsyncAPI, streams, event catalogue, permissions.

Pure: the documents are texts by their path in the repository; `__main__` writes and compares.
"""

import json
from collections.abc import Iterable, Mapping
from typing import Any

from bus_schemas.asyncapi import asyncapi
from bus_schemas.catalog import HISTORY, EventClass, catalog
from bus_schemas.json_schemas import event_schema
from bus_schemas.permissions_page import permissions_page
from bus_schemas.streams import STREAMS, stream_of

SCHEMAS = "docs/schemas"
"""The folder that holds generated files only; a file too many in it is drift."""

_EVENTS_HEAD = """\
# Events

Made from the classes in `bus_schemas/events` by `python -m bus_schemas`; do not edit.

Every event is a [CloudEvents 1.0](https://github.com/cloudevents/spec/blob/v1.0.2/cloudevents/spec.md)
envelope in structured JSON, at most 64 KiB. Its `source` must be the writer below, and the ids in
its subject, its source and its data must agree, else readers park it. Within a major, fields are
only ever added; readers ignore those they do not know.

| type | subject | stream | writer | since | what it says |
|---|---|---|---|---|---|
"""


def documents() -> dict[str, str]:
    """Return every generated file: its path from the repository's root, and its whole text."""
    return {
        **{f"{SCHEMAS}/{t}.json": _json(event_schema(cls)) for t, cls in catalog().items()},
        f"{SCHEMAS}/index.json": _json(_index()),
        "docs/asyncapi.json": _json(asyncapi()),
        "docs/events.md": _events_page(),
        "docs/permissions.md": permissions_page(),
        "deploy/nats/streams.json": _json([stream.configuration() for stream in STREAMS]),
    }


def drift(found: Mapping[str, str]) -> list[str]:
    """Say, a line each, how the files *found* differ from what `documents` would write."""
    wanted = documents()
    return [
        *(f"{path}: missing" for path in wanted if path not in found),
        *(f"{path}: differs" for path in wanted if path in found and found[path] != wanted[path]),
        *(f"{path}: should not be there" for path in left_over(found)),
    ]


def left_over(paths: Iterable[str]) -> list[str]:
    """Return those of *paths* in the schemas' folder that no document has, sorted."""
    wanted = documents()
    return sorted(p for p in paths if p.startswith(f"{SCHEMAS}/") and p not in wanted)


def _index() -> dict[str, Any]:
    """Return the catalogue for machines: where each type travels, which schema checks it."""
    return {
        type_: {
            "schema": f"{type_}.json",
            "subject": event.template.pattern,
            "stream": stream_of(event.template.wildcard).name,
            "source": event.writer.value,
            "since": event.since.isoformat(),
        }
        for type_, event in catalog().items()
    }


def _events_page() -> str:
    rows = "".join(_row(event) for event in catalog().values())
    history = "".join(f"- {change.on.isoformat()}: {change.what}\n" for change in HISTORY)
    return f"{_EVENTS_HEAD}{rows}\n## History\n\n{history}"


def _row(event: EventClass) -> str:
    cells = (
        f"[`{event.type}`](schemas/{event.type}.json)",
        f"`{event.template.pattern}`",
        f"`{stream_of(event.template.wildcard).name}`",
        f"`{event.writer.value}`",
        event.since.isoformat(),
        (event.__doc__ or "").partition("\n")[0],
    )
    return f"| {' | '.join(cells)} |\n"


def _json(value: object) -> str:
    return json.dumps(value, indent=2, ensure_ascii=False) + "\n"
