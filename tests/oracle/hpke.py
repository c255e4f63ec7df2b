"""HPKE base mode, single shot, with X25519 and HKDF-SHA256 (RFC 9180): a second implementation.

For the tests only; the ephemeral key comes in as an argument.
"""

import hashlib
import hmac
from dataclasses import dataclass
from typing import Final

from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey
from cryptography.hazmat.primitives.ciphers.aead import AESGCM, ChaCha20Poly1305

_KEM: Final = b"KEM" + (0x0020).to_bytes(2, "big")


@dataclass(frozen=True)
class Aead:
    """One AEAD of section 7.3."""

    number: int
    cipher: type[AESGCM] | type[ChaCha20Poly1305]
    key_length: int


AES_128_GCM: Final = Aead(1, AESGCM, 16)
AES_256_GCM: Final = Aead(2, AESGCM, 32)
CHACHA20_POLY1305: Final = Aead(3, ChaCha20Poly1305, 32)


@dataclass(frozen=True)
class Schedule:
    """What the key schedule gives (section 5.1)."""

    key: bytes
    base_nonce: bytes
    exporter_secret: bytes


def seal(
    aead: Aead, receiver: bytes, ephemeral: bytes, info: bytes, message: bytes, aad: bytes = b""
) -> tuple[bytes, bytes]:
    """Return (enc, ct) of *message* for the public key *receiver* (sections 4.1, 6.1)."""
    private = X25519PrivateKey.from_private_bytes(ephemeral)
    enc = private.public_key().public_bytes_raw()
    shared = private.exchange(X25519PublicKey.from_public_bytes(receiver))
    keys = schedule(aead, extract_and_expand(shared, enc + receiver), info)
    return enc, aead.cipher(keys.key).encrypt(keys.base_nonce, message, aad)


def unseal(
    aead: Aead, private: bytes, enc: bytes, info: bytes, ct: bytes, aad: bytes = b""
) -> bytes:
    """Return the message in *ct*. Raises InvalidTag."""
    own = X25519PrivateKey.from_private_bytes(private)
    shared = own.exchange(X25519PublicKey.from_public_bytes(enc))
    receiver = own.public_key().public_bytes_raw()
    keys = schedule(aead, extract_and_expand(shared, enc + receiver), info)
    return aead.cipher(keys.key).decrypt(keys.base_nonce, ct, aad)


def extract_and_expand(shared: bytes, context: bytes) -> bytes:
    """Return the KEM's shared secret (section 4.1)."""
    prk = _extract(_KEM, b"", b"eae_prk", shared)
    return _expand(_KEM, prk, b"shared_secret", context, 32)


def schedule(aead: Aead, shared_secret: bytes, info: bytes) -> Schedule:
    """Return the keys of base mode (section 5.1)."""
    suite = b"HPKE" + b"".join(n.to_bytes(2, "big") for n in (0x0020, 0x0001, aead.number))
    context = b"\0" + _extract(suite, b"", b"psk_id_hash", b"")
    context += _extract(suite, b"", b"info_hash", info)
    secret = _extract(suite, shared_secret, b"secret", b"")
    return Schedule(
        _expand(suite, secret, b"key", context, aead.key_length),
        _expand(suite, secret, b"base_nonce", context, 12),
        _expand(suite, secret, b"exp", context, 32),
    )


def _extract(suite: bytes, salt: bytes, label: bytes, material: bytes) -> bytes:
    return hmac.digest(salt or bytes(32), b"HPKE-v1" + suite + label + material, hashlib.sha256)


def _expand(suite: bytes, prk: bytes, label: bytes, info: bytes, length: int) -> bytes:
    labelled = length.to_bytes(2, "big") + b"HPKE-v1" + suite + label + info
    return hkdf_expand(prk, labelled, length)


def hkdf_expand(prk: bytes, info: bytes, length: int) -> bytes:
    """Return HKDF-Expand with SHA-256 (RFC 5869 section 2.3)."""
    out = block = b""
    counter = 1
    while len(out) < length:
        block = hmac.digest(prk, block + info + bytes([counter]), hashlib.sha256)
        out, counter = out + block, counter + 1
    return out[:length]


def hkdf(material: bytes, salt: bytes, info: bytes, length: int) -> bytes:
    """Return HKDF-SHA256 (RFC 5869)."""
    return hkdf_expand(hmac.digest(salt, material, hashlib.sha256), info, length)
