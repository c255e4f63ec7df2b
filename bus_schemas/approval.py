"""An owner lets one copy of a server's disk unlock although it is not the newest (ADR-16).

The code names the copy. The machine that was refused shows it on its own console; the owner types
it and signs it. Whoever has only the disk can show the code, and cannot sign.

Pure. Left to the evaluator: which owner keys the server has pinned, the clock, the last approval.
"""

from typing import Final

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from bus_schemas.encoding import lp, u64
from bus_schemas.event import Contract
from bus_schemas.fields import (
    CounterFromZero,
    Key32,
    KeyFingerprint,
    Reason,
    ServerId,
    ShortText,
    Signature,
)
from bus_schemas.keys import short_digest, sign, verify

APPROVAL_DOMAIN: Final = "byok/approve/v1"


def copy_code(server_id: str, g: int, check: bytes) -> str:
    """Return the 20 characters that name a disk at generation *g* whose check is *check*."""
    return short_digest("byok/copy/v1", lp(server_id) + u64(g) + check)


class Approval(Contract, extra="forbid"):
    """The owner's signed word."""

    server_id: ServerId
    code: KeyFingerprint
    """`copy_code` of the disk that may unlock, as its console shows it."""
    issued_at: CounterFromZero
    """Unix seconds on the owner's machine; good for an hour, and only once."""
    public_key: Key32
    """Ed25519 key of the signer; its fingerprint must be pinned on the server."""
    signature: Signature
    r"""Ed25519, the signer: "byok/approve/v1\0" lp(server_id) lp(code) lp(u64(issued_at))."""


class ApprovalReply(Contract):
    """The evaluator's answer."""

    refused: Reason | None = None
    """None: the copy may unlock, once and within the hour."""
    detail: ShortText = ""


def sign_approval(
    owner_key: Ed25519PrivateKey, *, server_id: str, code: str, issued_at: int
) -> Approval:
    """Return the owner's approval of the disk named by *code*."""
    return Approval(
        server_id=server_id,
        code=code,
        issued_at=issued_at,
        public_key=owner_key.public_key().public_bytes_raw(),
        signature=sign(owner_key, APPROVAL_DOMAIN, server_id, code, u64(issued_at)),
    )


def check_approval(approval: Approval) -> None:
    """Raise Refused(`bad_signature`) unless the key that *approval* names has signed it."""
    parts = (approval.server_id, approval.code, u64(approval.issued_at))
    verify(approval.public_key, approval.signature, APPROVAL_DOMAIN, *parts)
