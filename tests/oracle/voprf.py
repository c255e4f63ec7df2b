"""VOPRF(ristretto255, SHA-512), mode 1, of RFC 9497: a second implementation for the tests only.

Blind and proof randomness come in as arguments, which `bus_schemas.oprf` does not allow.
"""

import hashlib
from collections.abc import Sequence
from typing import Final

from tests.oracle.ristretto255 import GENERATOR, IDENTITY, ORDER, Element, from_uniform

_CONTEXT: Final = b"OPRFV1-" + bytes([1]) + b"-ristretto255-SHA512"


def _short(raw: bytes) -> bytes:
    return len(raw).to_bytes(2, "big") + raw


def expand_message(message: bytes, dst: bytes, length: int) -> bytes:
    """Return `expand_message_xmd` with SHA-512 (RFC 9380 section 5.3.1)."""
    dst += bytes([len(dst)])
    start = hashlib.sha512(bytes(128) + message + length.to_bytes(2, "big") + b"\0" + dst).digest()
    block, out = bytes(64), b""
    for index in range(1, -(-length // 64) + 1):
        mixed = bytes(a ^ b for a, b in zip(start, block, strict=True))
        block = hashlib.sha512(mixed + bytes([index]) + dst).digest()
        out += block
    return out[:length]


def hash_to_group(value: bytes) -> Element:
    """Return the element of *value* (section 4.1)."""
    return from_uniform(expand_message(value, b"HashToGroup-" + _CONTEXT, 64))


def hash_to_scalar(value: bytes, dst: bytes = b"HashToScalar-" + _CONTEXT) -> int:
    """Return the scalar of *value* (section 4.1)."""
    return int.from_bytes(expand_message(value, dst, 64), "little") % ORDER


def derive_key(seed: bytes, info: bytes) -> int:
    """Return the secret scalar (section 3.2.1)."""
    material = seed + _short(info)
    for counter in range(256):
        key = hash_to_scalar(material + bytes([counter]), b"DeriveKeyPair" + _CONTEXT)
        if key:
            return key
    raise ValueError("no key")


def public_key(key: int) -> bytes:
    """Return the 32-byte public element of *key*."""
    return (GENERATOR * key).encode()


def blind(value: bytes, scalar: int) -> bytes:
    """Return the blinded element (section 3.3.2, Blind)."""
    return (hash_to_group(value) * scalar).encode()


def evaluate(key: int, blinded: Sequence[bytes], proof_scalar: int) -> tuple[list[bytes], bytes]:
    """Return the evaluated elements and one proof over all of them (section 3.3.2)."""
    points = [Element.decode(raw) for raw in blinded]
    answers = [point * key for point in points]
    m, z = _composites(public_key(key), blinded, [a.encode() for a in answers], key)
    commitments = ((GENERATOR * proof_scalar).encode(), (m * proof_scalar).encode())
    c = _challenge(public_key(key), m, z, commitments)
    s = (proof_scalar - c * key) % ORDER
    return [a.encode() for a in answers], c.to_bytes(32, "little") + s.to_bytes(32, "little")


def verify(key: bytes, blinded: Sequence[bytes], answers: Sequence[bytes], proof: bytes) -> bool:
    """Whether *proof* holds under the public *key* (section 2.2.2)."""
    c, s = (int.from_bytes(half, "little") for half in (proof[:32], proof[32:]))
    m, z = _composites(key, blinded, answers, None)
    first = (GENERATOR * s + Element.decode(key) * c).encode()
    return _challenge(key, m, z, (first, (m * s + z * c).encode())) == c


def finalize(value: bytes, scalar: int, answer: bytes) -> bytes:
    """Return the 64-byte output (section 3.3.2, Finalize); the proof was verified before."""
    unblinded = (Element.decode(answer) * pow(scalar, -1, ORDER)).encode()
    return hashlib.sha512(_short(value) + _short(unblinded) + b"Finalize").digest()


def _composites(
    key: bytes, blinded: Sequence[bytes], answers: Sequence[bytes], secret: int | None
) -> tuple[Element, Element]:
    seed = hashlib.sha512(_short(key) + _short(b"Seed-" + _CONTEXT)).digest()
    m = z = IDENTITY
    for index, (point, answer) in enumerate(zip(blinded, answers, strict=True)):
        transcript = _short(seed) + index.to_bytes(2, "big") + _short(point) + _short(answer)
        weight = hash_to_scalar(transcript + b"Composite")
        m += Element.decode(point) * weight
        z += Element.decode(answer) * weight
    return m, m * secret if secret is not None else z


def _challenge(key: bytes, m: Element, z: Element, commitments: tuple[bytes, bytes]) -> int:
    parts = (key, m.encode(), z.encode(), *commitments)
    return hash_to_scalar(b"".join(map(_short, parts)) + b"Challenge")
