"""Ed25519 signatures (RFC 8032), the fingerprints people compare, and the signed sealing key.

Pure. Whether a key is *pinned* is decided elsewhere; this module only says that a signature
was made by the key it is held against. Layouts: docs/protocol.md, "Signatures and keys".
"""

import base64
import hashlib
import re
from datetime import datetime
from typing import Annotated, Final

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from pydantic import AfterValidator, StringConstraints

from bus_schemas.encoding import lp, u64
from bus_schemas.errors import ContractError, Refused
from bus_schemas.event import Contract
from bus_schemas.fields import ID_PATTERN, Key32, Meaning, ServerId, Signature, Utc

_FINGERPRINT_LENGTH = 20
_SIGN_BIT_OFF = (1 << 255) - 1
_P = 2**255 - 19
_ORDER_8_Y = 0x7A03AC9277FDC74EC6CC392CFA53202A0F67100D760B3CBA4FD84D3D706A17C7
_SMALL_ORDER_Y = frozenset({0, 1, _P - 1, _P, _P + 1, _ORDER_8_Y, _P - _ORDER_8_Y})
"""The y of every encoding of a point of order 1, 2, 4 or 8 (RFC 7748 section 4.1, RFC 8032).

OpenSSL accepts forged signatures under such a key, the all-zero one among them.
"""

SEALING_KEY_DOMAIN: Final = "byok/sealing-key/v1"


def _whole_seconds(at: datetime) -> datetime:
    """Refuse a fraction: the signature covers whole seconds only."""
    if at.microsecond:
        raise ValueError("an instant that is signed must be a whole second")
    return at


KeyId = Annotated[
    str, StringConstraints(pattern=ID_PATTERN), Meaning("Names one sealing key of a server.")
]


def owner_fingerprint(owner_public_key: bytes) -> str:
    """Return what an owner types on a server's console to pin this Ed25519 key."""
    return short_digest("byok/owner/v1", lp(owner_public_key))


def server_fingerprint(server_id: str, identity_public_key: bytes) -> str:
    """Return what `byok-vps fingerprint` prints and the owner compares before sealing."""
    return short_digest("byok/server/v1", lp(server_id) + lp(identity_public_key))


def short_digest(domain: str, rest: bytes) -> str:
    """Return the 20 base32 characters (100 bits) that people read to each other."""
    digest = hashlib.sha256(domain.encode() + b"\0" + rest).digest()
    return base64.b32encode(digest)[:_FINGERPRINT_LENGTH].decode("ascii")


def signed_message(domain: str, *parts: bytes | str) -> bytes:
    r"""Return `domain "\0" lp(part)…`: the bytes an Ed25519 signature here is made over."""
    return domain.encode() + b"\0" + b"".join(map(lp, parts))


def sign(private_key: Ed25519PrivateKey, domain: str, *parts: bytes | str) -> bytes:
    """Return the 64-byte signature of *parts* under *domain*."""
    return private_key.sign(signed_message(domain, *parts))


def verify(public_key: bytes, signature: bytes, domain: str, *parts: bytes | str) -> None:
    """Raise Refused(`bad_signature`) unless *public_key* (32 bytes) signed these *parts*."""
    y = int.from_bytes(public_key, "little") & _SIGN_BIT_OFF
    if y in _SMALL_ORDER_Y:
        raise Refused("bad_signature", f"{domain}: the public key is a point of small order")
    try:
        Ed25519PublicKey.from_public_bytes(public_key).verify(
            signature, signed_message(domain, *parts)
        )
    except (InvalidSignature, ValueError):
        raise Refused("bad_signature", f"{domain}: not signed by the key it names") from None


class SignedSealingKey(Contract, extra="forbid"):
    """A server's X25519 sealing key, vouched for by its identity key."""

    server_id: ServerId
    key_id: KeyId
    public_key: Key32
    """X25519 public key (RFC 7748); replaced every 30 days."""
    not_after: Annotated[Utc, AfterValidator(_whole_seconds)]
    """Do not seal to this key from this second on."""
    signature: Signature
    r"""Ed25519, identity key: "byok/sealing-key/v1\0" lp(server_id) lp(key_id) lp(public_key)
    lp(u64(not_after))."""


def sign_sealing_key(
    identity_key: Ed25519PrivateKey,
    *,
    server_id: str,
    key_id: str,
    public_key: bytes,
    not_after: datetime,
) -> SignedSealingKey:
    """Return the announcement of a new sealing key; *not_after* is cut to the whole second."""
    not_after = not_after.replace(microsecond=0)
    parts = _sealing_key_parts(server_id, key_id, public_key, not_after)
    return SignedSealingKey(
        server_id=server_id,
        key_id=key_id,
        public_key=public_key,
        not_after=not_after,
        signature=sign(identity_key, SEALING_KEY_DOMAIN, *parts),
    )


def verify_sealing_key(
    key: SignedSealingKey, *, server_id: str, identity_public_key: bytes, at: datetime
) -> None:
    """Raise Refused unless *server_id*'s identity key vouches for *key* and *at* is before its end.

    Comparing `server_fingerprint` with what the server's console shows is the caller's work.
    Reasons: `wrong_server`, `bad_signature`, `sealing_key_expired`.
    """
    if key.server_id != server_id:
        raise Refused("wrong_server", f"sealing key {key.key_id} belongs to {key.server_id}")
    parts = _sealing_key_parts(key.server_id, key.key_id, key.public_key, key.not_after)
    verify(identity_public_key, key.signature, SEALING_KEY_DOMAIN, *parts)
    if at >= key.not_after:
        raise Refused("sealing_key_expired", f"ask {server_id} for a newer key than {key.key_id}")


def _sealing_key_parts(
    server_id: str, key_id: str, public_key: bytes, not_after: datetime
) -> tuple[bytes | str, ...]:
    return server_id, key_id, public_key, u64(int(not_after.timestamp()))


def in_fours(fingerprint: str) -> str:
    """Return *fingerprint* in groups of four: how every screen shows it, to be read aloud."""
    return " ".join(fingerprint[at : at + 4] for at in range(0, len(fingerprint), 4))


def fingerprint_typed(text: str) -> str:
    """Return *text* as a fingerprint; spaces, hyphens and case do not matter.

    Raises ContractError(`bad_fingerprint`).
    """
    plain = re.sub(r"[\s-]", "", text).upper()
    if not re.fullmatch("[A-Z2-7]{20}", plain):
        detail = "a fingerprint has 20 characters, A to Z and 2 to 7; read it again"
        raise ContractError("bad_fingerprint", detail)
    return plain
