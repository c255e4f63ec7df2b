"""How the evaluator knows its own ratchet states again: each carries a MAC of its own (ADR-23).

Within the core NATS checks no reply subject, so whoever is in there gets bytes of their choosing
stored on the ratchet's subject. Without the evaluator's key they are nobody's state.

Pure. Left to the evaluator: what to do about a state that is not its own, and about one that is
its own and old (`rules`).
"""

import hmac

from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from bus_schemas.encoding import lp, u64
from bus_schemas.errors import Refused
from bus_schemas.events import RatchetAdvanced

FORGED = "ratchet_forged"

_LENGTH = 32
_INFO = b"byok/ratchet-key/v1\0"


def ratchet_key(sealing_private_key: bytes) -> bytes:
    """Return the key of an evaluator's states (32 bytes, HKDF-SHA256, RFC 5869, no salt).

    *sealing_private_key* is its raw X25519 private key.
    """
    kdf = HKDF(algorithm=SHA256(), length=_LENGTH, salt=None, info=_INFO)
    return kdf.derive(sealing_private_key)


def with_mac(key: bytes, state: RatchetAdvanced) -> RatchetAdvanced:
    """Return *state* with its MAC (32 bytes, HMAC-SHA256, RFC 2104)."""
    return state.model_copy(update={"mac": _mac(key, state)})


def without_mac(key: bytes, state: RatchetAdvanced) -> RatchetAdvanced:
    """Return *state* without its MAC, which was checked. Raises Refused(`ratchet_forged`)."""
    if state.mac is None or not hmac.compare_digest(_mac(key, state), state.mac):
        raise Refused(FORGED, f"the stored state of {state.server_id} is not the evaluator's")
    return state.model_copy(update={"mac": None})


def _mac(key: bytes, state: RatchetAdvanced) -> bytes:
    return hmac.digest(key, _framed(state), "sha256")


def _framed(state: RatchetAdvanced) -> bytes:
    """Return all fields in one way only: no two states give the same bytes.

    A field that is none is left out, so that one added later leaves old states their MACs.
    """
    values = {name: getattr(state, name) for name in sorted(type(state).model_fields)}
    del values["mac"]
    return b"".join(lp(n) + lp(_bytes(v)) for n, v in values.items() if v is not None)


def _bytes(value: bytes | str | int | tuple[str | int, ...]) -> bytes:
    if isinstance(value, tuple):
        return b"".join(lp(_bytes(item)) for item in value)
    if isinstance(value, int):
        return u64(value)
    return value.encode() if isinstance(value, str) else value
