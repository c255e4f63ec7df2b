"""The vocabulary of single fields: ids, counters, tags and keys.

Ids are checked here and where they are issued: a dot or a `*` in a name would become a second
token or a wildcard in a NATS permission.
"""

from datetime import UTC, datetime
from enum import StrEnum
from typing import Annotated

from pydantic import AfterValidator, AwareDatetime, Field, StringConstraints

ID_PATTERN = r"^[a-z0-9-]{1,63}$"

OwnerId = Annotated[str, StringConstraints(pattern=ID_PATTERN)]
ServerId = Annotated[str, StringConstraints(pattern=ID_PATTERN)]
SlotId = Annotated[str, StringConstraints(pattern=ID_PATTERN)]
ProviderId = Annotated[str, StringConstraints(pattern=ID_PATTERN)]
EpochId = Annotated[str, StringConstraints(pattern=ID_PATTERN)]

_COUNTER_MAX = 2**53 - 1
"""The largest integer that every JSON reader keeps exactly (RFC 8259 section 6)."""

Counter = Annotated[int, Field(ge=1, le=_COUNTER_MAX)]
CounterFromZero = Annotated[int, Field(ge=0, le=_COUNTER_MAX)]

Tag = Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{64}$")]
"""A blind fingerprint: 32 bytes as 64 lowercase hexadecimal digits."""

RotationId = Annotated[
    str, StringConstraints(pattern=r"^[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$")
]
"""The id of the sealed envelope that began a rotation (a UUID)."""

Reason = Annotated[str, StringConstraints(pattern=r"^[a-z0-9_]{1,64}$")]
"""A stable, machine-readable reason code."""

ShortText = Annotated[str, StringConstraints(max_length=500)]

KeyFingerprint = Annotated[str, StringConstraints(pattern=r"^[A-Z2-7]{20}$")]
"""First 20 base32 characters of a key's SHA-256: what people read to each other."""

Key32 = Annotated[bytes, Field(min_length=32, max_length=32)]
"""A raw 32-byte public key (X25519, Ed25519 or ristretto255), base64url in JSON."""

Signature = Annotated[bytes, Field(min_length=64, max_length=64)]
"""An Ed25519 signature (RFC 8032), base64url in JSON."""

Nkey = Annotated[str, StringConstraints(pattern=r"^U[A-Z2-7]{55}$")]
"""A NATS user's public nkey."""

Utc = Annotated[AwareDatetime, AfterValidator(lambda at: at.astimezone(UTC))]
"""An instant in UTC; RFC 3339 with `Z` in JSON."""


class CredentialKind(StrEnum):
    """What sort of credential a slot holds."""

    API_KEY = "api_key"
    OAUTH = "oauth"


class Basis(StrEnum):
    """What was fingerprinted (DESIGN 5.4)."""

    API_KEY = "api_key"
    OAUTH_GRANT = "oauth_grant"
    OAUTH_ACCOUNT = "oauth_account"


class Strength(StrEnum):
    """How hard the fingerprinted input is to guess; `guessable` never crosses owners."""

    SECRET = "secret"
    OPAQUE = "opaque"
    GUESSABLE = "guessable"


def at_utc(seconds: float) -> datetime:
    """Return the UTC instant *seconds* after the Unix epoch."""
    return datetime.fromtimestamp(seconds, tz=UTC)
