"""Reading and writing envelopes, against the CloudEvents SDK doing the same job."""

import json

from cloudevents.core.formats.json import JSONFormat
from cloudevents.core.v1.event import CloudEvent

from benchmarks.figure import Figure, paired
from bus_schemas.codec import decode, encode
from bus_schemas.events import FingerprintObserved
from bus_schemas.fields import Basis, Strength
from bus_schemas.transport.fresh import fresh

MESSAGES = 5_000


def measure() -> list[Figure]:
    """Return the codec's figures."""
    event = FingerprintObserved(
        server_id="acme-1",
        incarnation=1,
        n=1,
        slot_id="anthropic",
        revision=1,
        provider="anthropic",
        basis=Basis.API_KEY,
        strength=Strength.SECRET,
        epoch="e1",
        tag="a" * 64,
    )
    envelope = fresh(event)
    raw = encode(envelope)

    def read() -> int:
        for _ in range(MESSAGES):
            decode(raw, "byok.v1.fingerprint.acme-1")
        return MESSAGES

    def read_with_sdk() -> int:
        """Parse the envelope, then check the same data model: what the SDK leaves to do."""
        for _ in range(MESSAGES):
            FingerprintObserved.model_validate(sdk.read(CloudEvent, raw).get_data())
        return MESSAGES

    def write() -> int:
        for _ in range(MESSAGES):
            encode(envelope)
        return MESSAGES

    def write_json() -> int:
        for _ in range(MESSAGES):
            json.dumps(envelope.model_dump(mode="json", exclude_none=True)).encode()
        return MESSAGES

    sdk = JSONFormat()
    ours, theirs, ratio = paired(read, read_with_sdk)
    written, dumped, gain = paired(write, write_json)
    return [
        Figure(
            "codec.decode against the CloudEvents SDK",
            round(ratio, 2),
            "times",
            3.0,
            "higher",
            f"ours {ours:,.0f}/s, cloudevents + pydantic {theirs:,.0f}/s",
        ),
        Figure(
            "codec.encode against json.dumps of the same model",
            round(gain, 2),
            "times",
            1.0,
            "higher",
            f"ours {written:,.0f}/s, model_dump + json.dumps {dumped:,.0f}/s",
        ),
    ]
