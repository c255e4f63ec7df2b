"""A credential in the clear, as it is sealed, stored and used; it prints as stars. Pure."""

import re
from typing import Annotated, Self
from urllib.parse import urlsplit

from pydantic import (
    AfterValidator,
    SecretStr,
    StringConstraints,
    ValidationError,
    model_validator,
)

from bus_schemas.errors import Refused
from bus_schemas.event import Contract
from bus_schemas.fields import CredentialKind, ShortText, Utc
from bus_schemas.secret_fields import SecretField, reveal_json

_VISIBLE_ASCII = re.compile(r"[!-~]{1,16384}")
_LOOPBACK = frozenset({"127.0.0.1", "::1", "localhost"})


def _header_safe(secret: SecretStr) -> SecretStr:
    """Refuse line breaks: they would add a header of the writer's choice (RFC 9110 section 5.5)."""
    if not _VISIBLE_ASCII.fullmatch(secret.get_secret_value()):
        raise ValueError(
            "must be 1 to 16384 visible ASCII characters, without spaces or line breaks"
        )
    return secret


def _safe_url(url: str) -> str:
    """Let a credential go to TLS or to this very machine, with nothing hidden in the address."""
    try:
        parts = urlsplit(url)
        here = parts.scheme == "http" and parts.hostname in _LOOPBACK
        plain = "@" not in parts.netloc and not parts.query and not parts.fragment
        safe = (parts.scheme == "https" or here) and plain and parts.hostname and parts.port != 0
    except ValueError:  # its words would repeat a part of what was typed
        safe = False
    if not safe:
        raise ValueError("must be https:// (http:// on loopback), without user, query or fragment")
    return url


SecretText = Annotated[SecretField, AfterValidator(_header_safe)]
"""A secret that goes into a header of a request."""

SafeUrl = Annotated[
    str, StringConstraints(pattern=r"^[!-\[\]-~]{1,500}$"), AfterValidator(_safe_url)
]


class OAuthSet(Contract, extra="forbid"):
    """What an OAuth sign-in leaves behind (RFC 6749 section 5.1) and where to refresh it."""

    access_token: SecretText
    refresh_token: SecretText
    expires_at: Utc | None = None
    """When the access token ends, if the provider said so."""
    token_endpoint: SafeUrl
    client_id: Annotated[str, StringConstraints(pattern=r"^[!-~]{1,500}$")]
    issuer: Annotated[str, StringConstraints(min_length=1, max_length=500)]
    account: ShortText | None = None
    """The provider's id of the signed-in account: a subject, or at worst an email address."""
    organisation: ShortText | None = None


class CredentialPayload(Contract, extra="forbid"):
    """One credential in the clear: either `secret` or `oauth`, and where it may be sent.

    Shows no secret in repr, str, `model_dump_json` or errors.
    """

    secret: SecretText | None = None
    oauth: OAuthSet | None = None
    base_url: SafeUrl
    """The provider's address; inside the seal, because one set from outside would take the key."""
    header_style: Annotated[str, StringConstraints(pattern=r"^[a-z0-9-]{1,32}$")]
    """Name of the way the credential goes into a request's headers, from the provider table."""

    @model_validator(mode="after")
    def _exactly_one(self) -> Self:
        if (self.secret is None) == (self.oauth is None):
            raise ValueError("a credential holds either secret or oauth")
        return self

    @property
    def kind(self) -> CredentialKind:
        """Which of the two this is."""
        return CredentialKind.OAUTH if self.secret is None else CredentialKind.API_KEY

    def reveal_json(self) -> bytes:
        """Return the JSON *with the secrets in it*: to seal it or to put it in the vault."""
        return reveal_json(self)

    @classmethod
    def read_json(cls, raw: bytes) -> Self:
        """Return the payload that `reveal_json` wrote. Raises Refused(`bad_payload`)."""
        try:
            return cls.model_validate_json(raw)
        except ValidationError as error:
            count = error.error_count()
        # Raised here and not above: a chained ValidationError would carry the input along.
        raise Refused("bad_payload", f"the sealed JSON is not a credential ({count} faults)")
