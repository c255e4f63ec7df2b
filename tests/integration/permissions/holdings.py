"""What lies in all streams together, to be compared before and after."""

import json
from collections import Counter

from bus_schemas.streams import STREAMS
from tests.integration.permissions.wire import Sent, Wire

Holdings = Counter[tuple[str, str]]
"""How many messages each stream holds on each subject."""


def holdings(core: Wire) -> Holdings:
    """Return what every stream holds; *core* may ask everything."""
    body = json.dumps({"subjects_filter": ">"}).encode()
    asked = [Sent(f"$JS.API.STREAM.INFO.{stream.name}", body) for stream in STREAMS]
    found: Holdings = Counter()
    for stream, answer in zip(STREAMS, core.answers(*asked), strict=True):
        for subject, count in answer.answer["state"].get("subjects", {}).items():
            found[stream.name, subject] = count
    return found
