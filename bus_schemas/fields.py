"""The vocabulary of single fields: ids, counters, tags and keys.

Ids are checked here and where they are issued: a dot or a `*` in a name would become a second
token or a wildcard in a NATS permission.
"""

from dataclasses import dataclass
from datetime import UTC, datetime
from enum import StrEnum
from typing import Annotated

from pydantic import (
    AfterValidator,
    AwareDatetime,
    Field,
    GetJsonSchemaHandler,
    StringConstraints,
)
from pydantic.json_schema import JsonSchemaValue
from pydantic_core import CoreSchema


@dataclass(frozen=True)
class Meaning:
    """What a kind of field always means; a docstring under a field says it more exactly."""

    words: str

    def __get_pydantic_json_schema__(
        self, schema: CoreSchema, handler: GetJsonSchemaHandler
    ) -> JsonSchemaValue:
        """Describe the type in a JSON Schema; the field's own description lies on top of it."""
        return {"description": self.words, **handler(schema)}


ID_PATTERN = r"^[a-z0-9-]{1,63}$"

OwnerId = Annotated[
    str, StringConstraints(pattern=ID_PATTERN), Meaning("The customer whose servers these are.")
]
ServerId = Annotated[
    str, StringConstraints(pattern=ID_PATTERN), Meaning("One server; never issued twice.")
]
SlotId = Annotated[
    str,
    StringConstraints(pattern=ID_PATTERN),
    Meaning("A named place for one credential on a server; it outlives rotations."),
]
ProviderId = Annotated[
    str, StringConstraints(pattern=ID_PATTERN), Meaning("An AI provider of `providers.toml`.")
]
EpochId = Annotated[
    str, StringConstraints(pattern=ID_PATTERN), Meaning("The fingerprint key that made a tag.")
]

_COUNTER_MAX = 2**53 - 1
"""The largest integer that every JSON reader keeps exactly (RFC 8259 section 6)."""

Counter = Annotated[int, Field(ge=1, le=_COUNTER_MAX)]
CounterFromZero = Annotated[int, Field(ge=0, le=_COUNTER_MAX)]

Tag = Annotated[
    str,
    StringConstraints(pattern=r"^[0-9a-f]{64}$"),
    Meaning("A blind fingerprint: 32 bytes as 64 lowercase hexadecimal digits."),
]

RotationId = Annotated[
    str,
    StringConstraints(pattern=r"^[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$"),
    Meaning("The id of the sealed envelope that began a rotation (a UUID)."),
]

Reason = Annotated[
    str,
    StringConstraints(pattern=r"^[a-z0-9_]{1,64}$"),
    Meaning("A stable, machine-readable reason code."),
]

ShortText = Annotated[str, StringConstraints(max_length=500)]

KeyFingerprint = Annotated[
    str,
    StringConstraints(pattern=r"^[A-Z2-7]{20}$"),
    Meaning("First 20 base32 characters of a key's SHA-256: what people read to each other."),
]

ShortTag = Annotated[
    str,
    StringConstraints(pattern=r"^[0-9a-f]{8}$"),
    Meaning("The first 8 digits of a tag: enough for a person to tell two credentials apart."),
]

HttpStatus = Annotated[int, Field(ge=100, le=599), Meaning("An HTTP status (RFC 9110).")]

Key32 = Annotated[
    bytes,
    Field(min_length=32, max_length=32),
    Meaning("A raw 32-byte value, such as a public key, as base64url."),
]

Signature = Annotated[
    bytes,
    Field(min_length=64, max_length=64),
    Meaning("An Ed25519 signature (RFC 8032), as base64url."),
]

Nkey = Annotated[
    str, StringConstraints(pattern=r"^U[A-Z2-7]{55}$"), Meaning("A NATS user's public nkey.")
]


def _to_utc(at: datetime) -> datetime:
    try:
        return at.astimezone(UTC)
    except OverflowError:  # year 1 or 9999 with an offset; pydantic lets only a ValueError through
        raise ValueError("an instant must lie within the years 1 to 9999, in UTC") from None


Utc = Annotated[
    AwareDatetime, AfterValidator(_to_utc), Meaning("An instant in UTC: RFC 3339 with `Z`.")
]


class CredentialKind(StrEnum):
    """What sort of credential a slot holds."""

    API_KEY = "api_key"
    OAUTH = "oauth"


class Basis(StrEnum):
    """What was fingerprinted: the key itself, an OAuth grant, or the account behind it."""

    API_KEY = "api_key"
    OAUTH_GRANT = "oauth_grant"
    OAUTH_ACCOUNT = "oauth_account"


class Strength(StrEnum):
    """How hard the fingerprinted input is to guess; `guessable` never crosses owners."""

    SECRET = "secret"  # noqa: S105 (a word of the contract)
    OPAQUE = "opaque"
    GUESSABLE = "guessable"


def at_utc(seconds: float) -> datetime:
    """Return the UTC instant *seconds* after the Unix epoch."""
    return datetime.fromtimestamp(seconds, tz=UTC)
