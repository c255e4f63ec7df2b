"""Sealing a credential from the owner to one server, past the platform.

HPKE base mode (RFC 9180 section 5.1.1): DHKEM(X25519, HKDF-SHA256), HKDF-SHA256, AES-256-GCM.
Base mode does not authenticate the sender, so the owner signs the result with Ed25519.
Layout: docs/protocol.md, "Sealing".

Pure. Left to the server's rules: the ids are its own, the owner key is pinned, the revision
is higher than the last and not below `min_revision`, `not_after` has not passed.
"""

import re
from typing import Annotated, Final, Literal, Self
from urllib.parse import urlsplit

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey
from cryptography.hazmat.primitives.hpke import AEAD, KDF, KEM, Suite
from pydantic import (
    AfterValidator,
    Field,
    PlainSerializer,
    SecretStr,
    SerializationInfo,
    StringConstraints,
    ValidationError,
    model_validator,
)

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
    ShortText,
    Signature,
    SlotId,
    Utc,
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
_VISIBLE_ASCII = re.compile(r"[!-~]{1,16384}")
_LOOPBACK = frozenset({"127.0.0.1", "::1", "localhost"})
_REVEAL = object()
"""Serialization context that only `CredentialPayload.reveal_json` hands over."""


def _header_safe(secret: SecretStr) -> SecretStr:
    """Refuse line breaks: they would add a header of the writer's choice (RFC 9110 section 5.5)."""
    if not _VISIBLE_ASCII.fullmatch(secret.get_secret_value()):
        raise ValueError(
            "must be 1 to 16384 visible ASCII characters, without spaces or line breaks"
        )
    return secret


def _safe_url(url: str) -> str:
    """Let a credential go to TLS or to this very machine, with nothing hidden in the address."""
    try:
        parts = urlsplit(url)
        here = parts.scheme == "http" and parts.hostname in _LOOPBACK
        plain = "@" not in parts.netloc and not parts.query and not parts.fragment
        safe = (parts.scheme == "https" or here) and plain and parts.hostname and parts.port != 0
    except ValueError:  # its words would repeat a part of what was typed
        safe = False
    if not safe:
        raise ValueError("must be https:// (http:// on loopback), without user, query or fragment")
    return url


def _shown(secret: SecretStr, info: SerializationInfo) -> str:
    return secret.get_secret_value() if info.context is _REVEAL else str(secret)


SecretText = Annotated[
    SecretStr, AfterValidator(_header_safe), PlainSerializer(_shown, when_used="json")
]
"""A secret that prints as stars; only `reveal_json` writes it out."""

SafeUrl = Annotated[
    str, StringConstraints(pattern=r"^[!-\[\]-~]{1,500}$"), AfterValidator(_safe_url)
]


class OAuthSet(Contract, extra="forbid"):
    """What an OAuth sign-in leaves behind (RFC 6749 section 5.1) and where to refresh it."""

    access_token: SecretText
    refresh_token: SecretText
    expires_at: Utc | None = None
    """When the access token ends, if the provider said so."""
    token_endpoint: SafeUrl
    client_id: Annotated[str, StringConstraints(pattern=r"^[!-~]{1,500}$")]
    issuer: Annotated[str, StringConstraints(min_length=1, max_length=500)]
    account: ShortText | None = None
    """The provider's id of the signed-in account: a subject, or at worst an email address."""
    organisation: ShortText | None = None


class CredentialPayload(Contract, extra="forbid"):
    """One credential in the clear: either `secret` or `oauth`, and where it may be sent.

    Shows no secret in repr, str, `model_dump_json` or errors.
    """

    secret: SecretText | None = None
    oauth: OAuthSet | None = None
    base_url: SafeUrl
    """The provider's address; inside the seal, because one set from outside would take the key."""
    header_style: Annotated[str, StringConstraints(pattern=r"^[a-z0-9-]{1,32}$")]
    """Name of the way the credential goes into a request's headers, from the provider table."""

    @model_validator(mode="after")
    def _exactly_one(self) -> Self:
        if (self.secret is None) == (self.oauth is None):
            raise ValueError("a credential holds either secret or oauth")
        return self

    @property
    def kind(self) -> CredentialKind:
        """Which of the two this is."""
        return CredentialKind.OAUTH if self.secret is None else CredentialKind.API_KEY

    def reveal_json(self) -> bytes:
        """Return the JSON *with the secrets in it*: to seal it or to put it in the vault."""
        return self.model_dump_json(context=_REVEAL, exclude_none=True).encode()

    @classmethod
    def read_json(cls, raw: bytes) -> Self:
        """Return the payload that `reveal_json` wrote. Raises Refused(`bad_payload`)."""
        try:
            return cls.model_validate_json(raw)
        except ValidationError as error:
            count = error.error_count()
        # Raised here and not above: a chained ValidationError would carry the input along.
        raise Refused("bad_payload", f"the sealed JSON is not a credential ({count} faults)")


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
