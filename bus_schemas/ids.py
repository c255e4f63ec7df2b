"""Event ids: UUIDv7 where they are new, UUIDv5 where two makers must agree (RFC 9562)."""

import uuid

_NAMESPACE = uuid.uuid5(uuid.NAMESPACE_URL, "urn:byok:event")
_RANDOM_BYTES = 10


def uuid7(unix_ms: int, random: bytes) -> str:
    """Return a UUIDv7 (RFC 9562 section 5.7) from a time and ten random bytes."""
    if len(random) != _RANDOM_BYTES:
        msg = f"uuid7 takes {_RANDOM_BYTES} random bytes, got {len(random)}"
        raise ValueError(msg)
    value = (unix_ms & (1 << 48) - 1) << 80 | int.from_bytes(random, "big")
    value = value & ~(0xF << 76) | 0x7 << 76
    value = value & ~(0x3 << 62) | 0x2 << 62
    return str(uuid.UUID(int=value))


def derived_id(*names: str) -> str:
    """Return the UUIDv5 of *names*: the same everywhere, so a second maker's copy is a duplicate.

    Never use it for a stream that servers write to: a server could send the id first and have
    the platform's own message dropped as a duplicate.
    """
    return str(uuid.uuid5(_NAMESPACE, "\n".join(names)))
