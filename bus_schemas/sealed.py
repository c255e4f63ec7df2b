"""Sealing a credential from the owner to one server, past the platform.

HPKE base mode (RFC 9180 section 5.1.1): DHKEM(X25519, HKDF-SHA256), HKDF-SHA256, AES-256-GCM.
Base mode does not authenticate the sender, so the owner signs the result with Ed25519.
Layout: docs/protocol.md, "Sealing".

Pure. Left to the server's rules: the ids are its own, the owner key is pinned, the revision
is higher than the last and not below `min_revision`, `not_after` has not passed.
"""

from typing import Annotated, Final, Literal

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey
from cryptography.hazmat.primitives.hpke import AEAD, KDF, KEM, Suite
from pydantic import Field, StringConstraints

from bus_schemas.credential import CredentialPayload
from bus_schemas.encoding import lp, u64
from bus_schemas.errors import Refused
from bus_schemas.event import Contract
from bus_schemas.fields import (
    Counter,
    CounterFromZero,
    CredentialKind,
    Key32,
    OwnerId,
    ProviderId,
    ServerId,
    Signature,
    SlotId,
)
from bus_schemas.keys import KeyId, sign, verify

SUITE: Final = Suite(KEM.X25519, KDF.HKDF_SHA256, AEAD.AES_256_GCM)
SUITE_ID: Final = b"HPKE\x00\x20\x00\x01\x00\x02"
"""`suite_id` of RFC 9180 section 5.1: the one suite that `v: 1` stands for."""

ENC_LENGTH: Final = 32
"""`Nenc` of DHKEM(X25519), RFC 9180 section 7.1."""

GCM_TAG_LENGTH: Final = 16
MAX_CIPHERTEXT: Final = 32 * 1024
SIGNATURE_DOMAIN: Final = "byok/seal-sig/v1"

_INFO_DOMAIN = b"byok/seal/v1\0"
_BLOCK = 512
"""Sealed lengths are multiples of this: the platform must not learn which provider's key it is."""

_LENGTH_PREFIX = 4


class SealContext(Contract, extra="forbid"):
    """Everything a sealing is bound to."""

    owner_id: OwnerId
    server_id: ServerId
    key_id: KeyId
    """The server's sealing key it was sealed to."""
    slot_id: SlotId
    provider: ProviderId
    kind: CredentialKind
    revision: Counter
    """The slot's revision that this sealing makes."""
    not_after: CounterFromZero
    """Seconds since the Unix epoch; the server accepts it until then."""
    envelope_id: Annotated[
        str, StringConstraints(pattern=r"^[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$")
    ]
    """A UUID of this sealing, lowercase (RFC 9562 section 4)."""


class SealedEnvelope(SealContext):
    """A sealed credential as it crosses the platform."""

    v: Literal[1]
    """Version of this layout; it also fixes the suite."""
    sender_public_key: Key32
    """The owner's Ed25519 key. Good for nothing until it is found among the pinned ones."""
    enc: Annotated[bytes, Field(min_length=ENC_LENGTH, max_length=ENC_LENGTH)]
    """HPKE encapsulated key."""
    ct: Annotated[bytes, Field(min_length=_BLOCK + GCM_TAG_LENGTH, max_length=MAX_CIPHERTEXT)]
    """HPKE ciphertext with its tag: 16 bytes more than a multiple of 512."""
    sig: Signature
    r"""Ed25519, owner key: "byok/seal-sig/v1\0" lp(info) lp(enc) lp(ct)."""


def seal_info(context: SealContext, sender_public_key: bytes) -> bytes:
    """Return HPKE's `info`, which stands in for the AAD that `Suite` does not take."""
    return b"".join(
        (
            _INFO_DOMAIN,
            lp(SUITE_ID),
            lp(context.owner_id),
            lp(context.server_id),
            lp(context.key_id),
            lp(context.slot_id),
            lp(context.provider),
            lp(context.kind),
            u64(context.revision),
            u64(context.not_after),
            lp(context.envelope_id),
            lp(sender_public_key),
        )
    )


def seal(
    payload: CredentialPayload,
    context: SealContext,
    *,
    sealing_public_key: bytes,
    owner_private_key: Ed25519PrivateKey,
) -> SealedEnvelope:
    """Return *payload* readable by the holder of the X25519 sealing key only, signed by the owner.

    Check the sealing key first (`keys.verify_sealing_key`). Raises Refused: `bad_payload` when
    kind and payload disagree or it is too large, `bad_sealing_key` when the key is no point.
    """
    if payload.kind is not context.kind:
        raise Refused("bad_payload", f"the slot takes {context.kind}, this is {payload.kind}")
    plaintext = _pad(payload.reveal_json())
    if len(plaintext) + GCM_TAG_LENGTH > MAX_CIPHERTEXT:
        raise Refused("bad_payload", f"too large to seal: at most {MAX_CIPHERTEXT} bytes")
    sender = owner_private_key.public_key().public_bytes_raw()
    info = seal_info(context, sender)
    try:
        recipient = X25519PublicKey.from_public_bytes(sealing_public_key)
        sealed = SUITE.encrypt(plaintext, recipient, info=info)
    except ValueError:  # a wrong length, or a point of small order (RFC 9180 section 7.1.4)
        raise Refused("bad_sealing_key", f"{context.key_id} is no X25519 key") from None
    enc, ct = sealed[:ENC_LENGTH], sealed[ENC_LENGTH:]
    return SealedEnvelope(
        **{name: getattr(context, name) for name in SealContext.model_fields},
        v=1,
        sender_public_key=sender,
        enc=enc,
        ct=ct,
        sig=sign(owner_private_key, SIGNATURE_DOMAIN, info, enc, ct),
    )


def check_signature(envelope: SealedEnvelope) -> None:
    """Raise Refused(`bad_signature`) unless `sender_public_key` signed the whole envelope."""
    info = seal_info(envelope, envelope.sender_public_key)
    verify(
        envelope.sender_public_key,
        envelope.sig,
        SIGNATURE_DOMAIN,
        info,
        envelope.enc,
        envelope.ct,
    )


def open_sealed(
    envelope: SealedEnvelope, *, sealing_private_key: X25519PrivateKey
) -> CredentialPayload:
    """Return what the owner sealed; the signature is checked first, the *pin* is the caller's.

    Raises Refused: `bad_signature`, `does_not_open`, `bad_padding`, `bad_payload`.
    """
    check_signature(envelope)
    info = seal_info(envelope, envelope.sender_public_key)
    try:
        plaintext = SUITE.decrypt(envelope.enc + envelope.ct, sealing_private_key, info=info)
    except InvalidTag:
        detail = f"envelope {envelope.envelope_id} was not sealed to this key {envelope.key_id}"
        raise Refused("does_not_open", detail) from None
    payload = CredentialPayload.read_json(_unpad(plaintext))
    if payload.kind is not envelope.kind:
        raise Refused("bad_payload", f"announced as {envelope.kind}, holds {payload.kind}")
    return payload


def _pad(raw: bytes) -> bytes:
    framed = len(raw).to_bytes(_LENGTH_PREFIX, "big") + raw
    return framed + bytes(-len(framed) % _BLOCK)


def _unpad(plaintext: bytes) -> bytes:
    """Return what `_pad` framed; there is exactly one padding of each text."""
    length = int.from_bytes(plaintext[:_LENGTH_PREFIX], "big")
    raw = plaintext[_LENGTH_PREFIX : _LENGTH_PREFIX + length]
    if plaintext != _pad(raw):
        raise Refused("bad_padding", "the length or the zeros at the end are wrong")
    return raw
