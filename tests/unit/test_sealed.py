"""What the owner seals, only that server opens, and nobody changes on the way."""

import json
import traceback
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey
from hypothesis import given
from hypothesis import strategies as st
from pydantic import SecretStr, ValidationError

from bus_schemas.credential import CredentialPayload, OAuthSet
from bus_schemas.errors import Refused
from bus_schemas.fields import CredentialKind
from bus_schemas.keys import sign
from bus_schemas.sealed import (
    ENC_LENGTH,
    MAX_CIPHERTEXT,
    SIGNATURE_DOMAIN,
    SUITE,
    SealContext,
    SealedEnvelope,
    check_signature,
    open_sealed,
    seal,
    seal_info,
)

VECTORS: dict[str, Any] = json.loads(
    (Path(__file__).parents[1] / "vectors" / "sealed.json").read_bytes()
)
OWNER = Ed25519PrivateKey.from_private_bytes(bytes.fromhex(VECTORS["owner_seed"]))
OWNER_PUBLIC = OWNER.public_key().public_bytes_raw()
SEALING = X25519PrivateKey.from_private_bytes(bytes.fromhex(VECTORS["sealing_private_key"]))
SEALING_PUBLIC = SEALING.public_key().public_bytes_raw()
CANARY = "made-up-canary"

VISIBLE = "".join(map(chr, range(0x21, 0x7F)))

secret_texts = st.text(VISIBLE, min_size=1).map(SecretStr)
names = st.none() | st.text('aZ0@. \n"é漢😀', max_size=50)
oauth_sets = st.builds(
    OAuthSet,
    access_token=secret_texts,
    refresh_token=secret_texts,
    expires_at=st.none() | st.datetimes(timezones=st.just(UTC)),
    token_endpoint=st.just("https://provider.example/token"),
    client_id=st.just("client-1"),
    issuer=st.just("https://issuer.example"),
    account=names,
    organisation=names,
)


def api_key(secret: str = CANARY) -> CredentialPayload:
    """Return an API key's payload."""
    return CredentialPayload(
        secret=SecretStr(secret), base_url="https://provider.example", header_style="bearer"
    )


def oauth(grant: OAuthSet) -> CredentialPayload:
    """Return an OAuth payload."""
    return CredentialPayload(
        oauth=grant, base_url="https://provider.example", header_style="bearer"
    )


def context(kind: CredentialKind = CredentialKind.API_KEY, revision: int = 7) -> SealContext:
    """Return the vector's context, or one beside it."""
    return SealContext(
        owner_id="owner-1",
        server_id="server-1",
        key_id="key-1",
        slot_id="anthropic",
        provider="anthropic",
        kind=kind,
        revision=revision,
        not_after=1_893_456_000,
        envelope_id="0190a1b2-0000-7000-8000-000000000001",
    )


def sealed(payload: CredentialPayload) -> SealedEnvelope:
    """Seal *payload* to the test server."""
    return seal(
        payload,
        context(payload.kind),
        sealing_public_key=SEALING_PUBLIC,
        owner_private_key=OWNER,
    )


def signed_by_hand(plaintext: bytes, bound: SealContext) -> SealedEnvelope:
    """Seal a plaintext that `seal` would never make."""
    info = seal_info(bound, OWNER_PUBLIC)
    raw = SUITE.encrypt(plaintext, X25519PublicKey.from_public_bytes(SEALING_PUBLIC), info=info)
    enc, ct = raw[:ENC_LENGTH], raw[ENC_LENGTH:]
    return SealedEnvelope(
        **dict(bound),
        v=1,
        sender_public_key=OWNER_PUBLIC,
        enc=enc,
        ct=ct,
        sig=sign(OWNER, SIGNATURE_DOMAIN, info, enc, ct),
    )


def test_the_vector_opens() -> None:
    """An envelope made by an independent HPKE must open here, byte for byte the same payload."""
    envelope = SealedEnvelope.model_validate_json(json.dumps(VECTORS["envelope"]))
    assert seal_info(envelope, envelope.sender_public_key).hex() == VECTORS["info"]
    payload = open_sealed(envelope, sealing_private_key=SEALING)
    assert payload.reveal_json().decode() == VECTORS["payload"]


@given(payload=secret_texts.map(lambda s: api_key(s.get_secret_value())) | oauth_sets.map(oauth))
def test_what_is_sealed_is_opened(payload: CredentialPayload) -> None:
    """Opening must return exactly what the owner sealed, also after the wire."""
    wire = sealed(payload).model_dump_json()
    envelope = SealedEnvelope.model_validate_json(wire)
    assert open_sealed(envelope, sealing_private_key=SEALING) == payload


@given(secret=secret_texts)
def test_the_length_tells_little(secret: SecretStr) -> None:
    """A ciphertext's length is a multiple of 512 and its tag, whatever the key's length."""
    assert len(sealed(api_key(secret.get_secret_value())).ct) % 512 == 16


CHANGES: dict[str, object] = {
    "owner_id": "owner-2",
    "server_id": "server-2",
    "key_id": "key-2",
    "slot_id": "anthropic-2",
    "provider": "openai",
    "kind": CredentialKind.OAUTH,
    "revision": 8,
    "not_after": 1_893_456_001,
    "envelope_id": "0190a1b2-0000-7000-8000-000000000002",
    "sender_public_key": Ed25519PrivateKey.from_private_bytes(b"\x0e" * 32)
    .public_key()
    .public_bytes_raw(),
    "enc": b"\x07" * 32,
    "ct": bytes(528),
    "sig": b"\x07" * 64,
}


def test_every_field_has_its_change() -> None:
    """A field added to the envelope must enter the two tests below."""
    assert set(CHANGES) == set(SealedEnvelope.model_fields) - {"v"}


@pytest.mark.parametrize("field", CHANGES)
def test_a_changed_field_breaks_the_signature(field: str) -> None:
    """Nobody on the way may change any single field."""
    changed = sealed(api_key()).model_copy(update={field: CHANGES[field]})
    with pytest.raises(Refused, match="bad_signature"):
        check_signature(changed)
    with pytest.raises(Refused, match="bad_signature"):
        open_sealed(changed, sealing_private_key=SEALING)


@pytest.mark.parametrize("field", sorted(set(CHANGES) - {"sig"}))
def test_a_changed_field_signed_anew_does_not_open(field: str) -> None:
    """Even an owner cannot give an old ciphertext a new context: HPKE binds every field too."""
    thief = Ed25519PrivateKey.from_private_bytes(b"\x0e" * 32)
    changed = sealed(api_key()).model_copy(update={field: CHANGES[field]})
    signer = thief if field == "sender_public_key" else OWNER
    info = seal_info(changed, changed.sender_public_key)
    sig = sign(signer, SIGNATURE_DOMAIN, info, changed.enc, changed.ct)
    with pytest.raises(Refused, match="does_not_open"):
        open_sealed(changed.model_copy(update={"sig": sig}), sealing_private_key=SEALING)


@given(position=st.integers(0, 527), bit=st.integers(0, 7))
def test_a_flipped_bit_of_the_ciphertext_is_refused(position: int, bit: int) -> None:
    """No bit of the ciphertext may change."""
    envelope = sealed(api_key())
    ct = bytearray(envelope.ct)
    ct[position] ^= 1 << bit
    with pytest.raises(Refused, match="bad_signature"):
        open_sealed(envelope.model_copy(update={"ct": bytes(ct)}), sealing_private_key=SEALING)


def test_another_servers_key_does_not_open() -> None:
    """Only the holder of the sealing key reads the credential."""
    with pytest.raises(Refused, match="does_not_open"):
        open_sealed(sealed(api_key()), sealing_private_key=X25519PrivateKey.generate())


def length_beyond_the_end(raw: bytes) -> bytes:
    """Claim more bytes than there are."""
    return (2**32 - 1).to_bytes(4, "big") + raw + bytes(-(4 + len(raw)) % 512)


def padding_not_zero(raw: bytes) -> bytes:
    """End in a one."""
    return (len(raw).to_bytes(4, "big") + raw).ljust(511, b"\0") + b"\1"


def a_block_too_much(raw: bytes) -> bytes:
    """Pad further than to the next multiple of 512."""
    return (len(raw).to_bytes(4, "big") + raw).ljust(1024, b"\0")


def not_whole_blocks(raw: bytes) -> bytes:
    """Stop between two multiples of 512."""
    return (len(raw).to_bytes(4, "big") + raw).ljust(513, b"\0")


@pytest.mark.parametrize(
    "frame", [length_beyond_the_end, padding_not_zero, a_block_too_much, not_whole_blocks]
)
def test_bad_padding_is_refused(frame: Callable[[bytes], bytes]) -> None:
    """There is one padding of each payload; any other could hide or leak something."""
    envelope = signed_by_hand(frame(api_key().reveal_json()), context())
    with pytest.raises(Refused, match="bad_padding"):
        open_sealed(envelope, sealing_private_key=SEALING)


@pytest.mark.parametrize(
    "raw",
    [
        b"",
        b"\xff",
        b'{"base_url":"https://provider.example","header_style":"bearer"}',
        b'{"secret":"made-up-canary","base_url":"http://provider.example","header_style":"bearer"}',
        b'{"made-up-canary":1}',
    ],
)
def test_a_payload_that_is_no_credential_is_refused_without_a_word_of_it(raw: bytes) -> None:
    """The error of a bad payload must not carry the payload, not even down the chain."""
    padded = (len(raw).to_bytes(4, "big") + raw).ljust(512, b"\0")
    with pytest.raises(Refused, match="bad_payload") as caught:
        open_sealed(signed_by_hand(padded, context()), sealing_private_key=SEALING)
    assert caught.value.__context__ is None
    assert CANARY not in "".join(traceback.format_exception(caught.value))


def test_a_payload_of_the_other_kind_is_refused() -> None:
    """The announced kind must be the kind inside, when sealing and when opening."""
    raw = api_key().reveal_json()
    padded = (len(raw).to_bytes(4, "big") + raw).ljust(512, b"\0")
    with pytest.raises(Refused, match="bad_payload"):
        open_sealed(
            signed_by_hand(padded, context(CredentialKind.OAUTH)), sealing_private_key=SEALING
        )
    with pytest.raises(Refused, match="bad_payload"):
        seal(
            api_key(),
            context(CredentialKind.OAUTH),
            sealing_public_key=SEALING_PUBLIC,
            owner_private_key=OWNER,
        )


def test_a_payload_too_large_is_refused() -> None:
    """An envelope must fit into one message."""
    token = SecretStr("a" * 16384)
    grant = OAuthSet(
        access_token=token,
        refresh_token=token,
        token_endpoint="https://provider.example/token",
        client_id="client-1",
        issuer="https://issuer.example",
    )
    with pytest.raises(Refused, match=str(MAX_CIPHERTEXT)):
        sealed(oauth(grant))


@pytest.mark.parametrize("public_key", [bytes(32), b"\x07" * 31])
def test_sealing_to_no_key_is_refused(public_key: bytes) -> None:
    """A point of small order gives everybody the same secret (RFC 9180 section 7.1.4)."""
    with pytest.raises(Refused, match="bad_sealing_key"):
        seal(api_key(), context(), sealing_public_key=public_key, owner_private_key=OWNER)


def test_a_payload_never_shows_its_secret() -> None:
    """Only `reveal_json` writes a secret out."""
    grant = OAuthSet(
        access_token=SecretStr(CANARY),
        refresh_token=SecretStr(CANARY),
        expires_at=datetime(2030, 1, 1, tzinfo=UTC),
        token_endpoint="http://127.0.0.1:8080/token",
        client_id="client-1",
        issuer="https://issuer.example",
    )
    for payload in (api_key(), oauth(grant)):
        shown = (repr(payload), str(payload), payload.model_dump_json(), str(payload.model_dump()))
        assert not [text for text in shown if CANARY in text]
        assert CANARY.encode() in payload.reveal_json()
        assert CredentialPayload.read_json(payload.reveal_json()) == payload


@pytest.mark.parametrize(
    "secret", ["", " ", f"{CANARY}\r\nX-Other: 1", f"{CANARY} ", "ключ", "a" * 16385]
)
def test_a_secret_that_could_break_a_header_is_refused(secret: str) -> None:
    """A line break in a secret would be a header of somebody's choice."""
    with pytest.raises(ValidationError, match="visible ASCII") as caught:
        api_key(secret)
    assert CANARY not in str(caught.value)


@pytest.mark.parametrize(
    "url",
    [
        "http://provider.example",
        "ftp://provider.example",
        "https://",
        "https://user@provider.example",
        "https://@provider.example",
        "https://provider.example?a=1",
        "https://provider.example#a",
        "https://provider.example:made-up-canary",
        "https://provider.example:0",
        "https://[made-up-canary",
        "https://provider.example\\@made-up-canary.example",
        "https://provider.example/ made-up-canary",
        "//provider.example",
    ],
)
def test_an_address_that_could_take_the_credential_is_refused(url: str) -> None:
    """A credential goes to a plain TLS address or stays on the machine."""
    with pytest.raises(ValidationError) as caught:
        CredentialPayload(secret=SecretStr("x"), base_url=url, header_style="bearer")
    assert CANARY not in str(caught.value)


@pytest.mark.parametrize(
    "url",
    ["https://provider.example:8443/v1", "http://localhost:11434", "http://[::1]:8080/v1"],
)
def test_ordinary_addresses_are_taken(url: str) -> None:
    """TLS anywhere, plain HTTP on loopback: a local model, a provider in a test."""
    payload = CredentialPayload(secret=SecretStr("x"), base_url=url, header_style="bearer")
    assert payload.base_url == url
