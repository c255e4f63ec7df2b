"""The byte layouts every derivation and signature here is built from.

Length prefixes keep two different field lists from ever giving the same bytes.
"""

import base64

_U16_MAX = 0xFFFF


def lp(value: bytes | str) -> bytes:
    """Return `u16 length || value`, big-endian; text is taken as UTF-8.

    Raises ValueError above 65,535 bytes.
    """
    raw = value.encode() if isinstance(value, str) else value
    if len(raw) > _U16_MAX:
        msg = f"a length-prefixed field holds at most {_U16_MAX} bytes, got {len(raw)}"
        raise ValueError(msg)
    return len(raw).to_bytes(2, "big") + raw


def u64(value: int) -> bytes:
    """Return *value* as eight big-endian bytes. Raises OverflowError outside 0 … 2**64 - 1."""
    return value.to_bytes(8, "big")


def to_base64url(raw: bytes) -> str:
    """Return *raw* as unpadded base64url (RFC 4648 section 5, as JWTs write it)."""
    return base64.urlsafe_b64encode(raw).rstrip(b"=").decode("ascii")


def from_base64url(text: str) -> bytes:
    """Return the bytes of unpadded base64url. Raises ValueError on anything else."""
    raw = base64.b64decode(text + "=" * (-len(text) % 4), altchars=b"-_", validate=True)
    if to_base64url(raw) != text:  # `+`, `/`, padding and stray bits get past the decoder
        raise ValueError("not unpadded base64url")
    return raw
