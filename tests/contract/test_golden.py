"""One message per event version, kept for ever: what was once written must stay readable."""

import json
from pathlib import Path
from typing import Any

import pytest

from bus_schemas.catalog import catalog
from bus_schemas.codec import decode, encode
from bus_schemas.event import Event
from bus_schemas.events import CredentialSealed, SealingKeyPublished
from bus_schemas.keys import verify_sealing_key
from bus_schemas.sealed import check_signature

FOLDER = Path(__file__).parent / "golden"
GOLDEN = {path.stem: path.read_bytes() for path in sorted(FOLDER.glob("*.json"))}


def subject_of(raw: bytes) -> str:
    """Return the subject a golden message travels on, from its data alone."""
    message: dict[str, Any] = json.loads(raw)
    return catalog()[message["type"]].template.fill(message["data"])


@pytest.mark.parametrize("type_", catalog())
def test_every_type_has_a_golden_message(type_: str) -> None:
    """A type without a golden message could change unnoticed."""
    assert type_ in GOLDEN, (
        f"make one {type_} event with harmless values, wrap it with fixed ids and a fixed time, "
        f"write the bytes of bus_schemas.codec.encode to {FOLDER / type_}.json "
        "(no newline at the end), and never edit that file again"
    )


def test_no_golden_message_is_left_over() -> None:
    """A file that no class reads proves nothing; a type leaves the catalogue by an upcast."""
    assert set(GOLDEN) <= set(catalog())


@pytest.mark.parametrize("type_", GOLDEN)
def test_decoding_then_encoding_gives_the_same_bytes(type_: str) -> None:
    """Nothing is lost, added or reordered between two builds that know the same major."""
    raw = GOLDEN[type_]
    envelope = decode(raw, subject_of(raw), strict=True)
    assert envelope.type == type_ == type(envelope.data).type
    assert encode(envelope) == raw


@pytest.mark.parametrize("type_", GOLDEN)
def test_the_event_itself_knows_its_subject(type_: str) -> None:
    """Writers take the subject from the event, readers parse it back into the same ids."""
    raw = GOLDEN[type_]
    event: Event = decode(raw, subject_of(raw)).data
    ids = event.template.parse(event.subject)
    assert event.subject == subject_of(raw)
    assert {name: str(getattr(event, name)) for name in event.template.names} == ids


def test_golden_signatures_verify() -> None:
    """The two signed documents must stay verifiable, not merely parse."""
    raw = GOLDEN[CredentialSealed.type]
    sealed = decode(raw, subject_of(raw)).data
    assert isinstance(sealed, CredentialSealed)
    check_signature(sealed.envelope)
    raw = GOLDEN[SealingKeyPublished.type]
    envelope = decode(raw, subject_of(raw))
    assert isinstance(envelope.data, SealingKeyPublished)
    verify_sealing_key(
        envelope.data.signed_key,
        server_id="acme-1",
        identity_public_key=_golden_identity_key(),
        at=envelope.time,
    )


def _golden_identity_key() -> bytes:
    raw = GOLDEN["byok.server.provisioned.v1"]
    event = decode(raw, subject_of(raw)).data
    key: bytes = event.identity_key  # type: ignore[attr-defined]
    return key
