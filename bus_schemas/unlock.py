"""The derivations that unlock a server (docs/protocol.md, "Unlock").

Pure. `g` is the generation of the share on the server's disk: a new one at every unlock.
"""

import hashlib

from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from bus_schemas.encoding import lp, u64

KEY_LENGTH = 32
SHARE_LENGTH = 32


def unlock_input(server_id: str, g: int, share: bytes) -> bytes:
    """Return x_g, what is blinded for the evaluator; *share* is the 32 bytes on disk."""
    if len(share) != SHARE_LENGTH:
        raise ValueError(f"a share has {SHARE_LENGTH} bytes, got {len(share)}")
    return b"byok/unlock/v1\0" + lp(server_id) + u64(g) + lp(share)


def unlock_preimage(x: bytes) -> bytes:
    """Return s_g (32 bytes), revealed to the evaluator to show that the disk is the newest."""
    return hashlib.sha256(b"byok/unlock/s/v1\0" + x).digest()


def unlock_check(s: bytes) -> bytes:
    """Return chk_g (32 bytes), which the evaluator keeps and which tells nothing about s_g."""
    return hashlib.sha256(b"byok/unlock/chk/v1\0" + s).digest()


def unlock_key_info(server_id: str, g: int, check: bytes) -> bytes:
    """Return DeriveKeyPair's `info` (RFC 9497 section 3.2.1) of the key for one disk.

    *check* is chk_g. What is evaluated under that key is worth something to the disk with this
    generation and this check alone, whatever was blinded (ADR-15).
    """
    return b"byok/unlock-key/v1\0" + lp(server_id) + u64(g) + check


def key_encryption_key(y: bytes, share: bytes, server_id: str, g: int) -> bytes:
    """Return the KEK (32 bytes, HKDF-SHA256, RFC 5869) that opens the wrapped root key.

    *y* is the 64-byte output of the evaluation of x_g.
    """
    info = b"byok/kek/v1\0" + lp(server_id) + u64(g)
    return HKDF(algorithm=SHA256(), length=KEY_LENGTH, salt=share, info=info).derive(y)
