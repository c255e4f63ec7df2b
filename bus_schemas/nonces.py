"""The evaluator's nonces: each names the stored state of one server's ratchet (ADR-15).

Whoever advances that state makes every earlier nonce stale. Nothing is remembered and no clock is
read, so all evaluators that hold the same sealing key give and take the same nonces.

Pure. Left to the evaluator: which sequence the state has when a request is decided on.
"""

import hmac

from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from bus_schemas.encoding import lp, u64
from bus_schemas.errors import Refused

NONCE_LENGTH = 32

_INFO = b"byok/nonce-key/v1\0"


def nonce_key(sealing_private_key: bytes) -> bytes:
    """Return the key of an evaluator's nonces (32 bytes, HKDF-SHA256, RFC 5869, no salt).

    *sealing_private_key* is its raw X25519 private key.
    """
    kdf = HKDF(algorithm=SHA256(), length=NONCE_LENGTH, salt=None, info=_INFO)
    return kdf.derive(sealing_private_key)


def nonce(key: bytes, server_id: str, sequence: int) -> bytes:
    """Return the nonce (32 bytes, HMAC-SHA256) that is good while the ratchet is at *sequence*.

    *sequence* is that of the server's last message in the ratchet's stream, 0 before the first.
    """
    return hmac.digest(key, lp(server_id) + u64(sequence), "sha256")


def check_nonce(key: bytes, server_id: str, sequence: int, shown: bytes) -> None:
    """Raise Refused(`stale_nonce`) unless *shown* is the nonce of *sequence*."""
    if not hmac.compare_digest(nonce(key, server_id, sequence), shown):
        raise Refused("stale_nonce", f"{server_id} must ask for a new nonce and sign again")
