"""NATS nkeys: Ed25519 keys with a typed, checksummed base32 text form.

Source: the NATS documentation "NKeys"; prefix byte, 32 bytes, CRC-16/XMODEM little-endian.
"""

import base64
import binascii
from enum import IntEnum

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

_SEED_PREFIX = 18 << 3
_KEY_BYTES = 32


class KeyType(IntEnum):
    """The prefix byte; it becomes the first letter of the text form (O, A, U)."""

    OPERATOR = 14 << 3
    ACCOUNT = 0
    USER = 20 << 3


def public_nkey(key: Ed25519PrivateKey, kind: KeyType) -> str:
    """Return the public text form, such as `U…` for a user."""
    return _encode(bytes([kind]) + key.public_key().public_bytes_raw())


def seed_nkey(key: Ed25519PrivateKey, kind: KeyType) -> str:
    """Return the secret text form (`SU…`); it goes to 0600 files only."""
    head = bytes([_SEED_PREFIX | (kind >> 5), (kind & 31) << 3])
    return _encode(head + key.private_bytes_raw())


def key_from_seed(seed: str) -> Ed25519PrivateKey:
    """Return the private key of a seed. Raises ValueError without showing the seed."""
    try:
        raw = _decode(seed)
    except ValueError:
        raw = b""
    if len(raw) != _KEY_BYTES + 2 or raw[0] & 0xF8 != _SEED_PREFIX:
        msg = "not an nkey seed (wrong length, prefix or checksum)"
        raise ValueError(msg)
    return Ed25519PrivateKey.from_private_bytes(raw[2:])


def public_bytes(nkey: str) -> bytes:
    """Return the 32 raw bytes of a public nkey. Raises ValueError."""
    try:
        raw = _decode(nkey)
    except ValueError:
        raw = b""
    if len(raw) != _KEY_BYTES + 1:
        msg = "not a public nkey (wrong length or checksum)"
        raise ValueError(msg)
    return raw[1:]


def _encode(body: bytes) -> str:
    checksum = binascii.crc_hqx(body, 0).to_bytes(2, "little")
    return base64.b32encode(body + checksum).decode("ascii").rstrip("=")


def _decode(text: str) -> bytes:
    raw = base64.b32decode(text + "=" * (-len(text) % 8))
    body, checksum = raw[:-2], raw[-2:]
    if binascii.crc_hqx(body, 0).to_bytes(2, "little") != checksum:
        msg = "checksum"
        raise ValueError(msg)
    return body
