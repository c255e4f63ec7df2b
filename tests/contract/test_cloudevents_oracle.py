"""Our envelope against somebody else's reading of CloudEvents 1.0."""

import json
from datetime import UTC
from pathlib import Path
from typing import Any

import pytest
from cloudevents.core.formats.json import JSONFormat
from cloudevents.core.v1.event import CloudEvent

from bus_schemas.catalog import catalog
from bus_schemas.codec import decode
from bus_schemas.envelope import CONTENT_TYPE

GOLDEN = {
    path.stem: path.read_bytes()
    for path in sorted((Path(__file__).parent / "golden").glob("*.json"))
}


@pytest.mark.parametrize("type_", GOLDEN)
def test_the_official_sdk_reads_our_bytes(type_: str) -> None:
    """A subscriber may use any CloudEvents library and sees the same attributes and data."""
    raw = GOLDEN[type_]
    message: dict[str, Any] = json.loads(raw)
    event = JSONFormat().read(CloudEvent, raw)
    ours = decode(raw, catalog()[type_].template.fill(message["data"]))
    assert (event.get_id(), event.get_source(), event.get_type()) == (
        ours.id,
        ours.source,
        ours.type,
    )
    assert event.get_specversion() == ours.specversion
    assert event.get_datacontenttype() == ours.datacontenttype
    assert event.get_time().astimezone(UTC) == ours.time  # type: ignore[union-attr]
    assert event.get_data() == message["data"]
    for extension in ("correlationid", "causationid", "severitynumber"):
        assert event.get_extension(extension) == message.get(extension)
    assert JSONFormat().get_content_type() == CONTENT_TYPE


@pytest.mark.parametrize("type_", GOLDEN)
def test_we_read_what_the_official_sdk_writes(type_: str) -> None:
    """A writer may use it too: order of members and spelling of the time do not matter."""
    raw = GOLDEN[type_]
    subject = catalog()[type_].template.fill(json.loads(raw)["data"])
    theirs = JSONFormat().write(JSONFormat().read(CloudEvent, raw))
    assert decode(theirs, subject, strict=True) == decode(raw, subject)
