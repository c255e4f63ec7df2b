"""What byok knows about each AI provider, read from `providers.toml` beside this module.

Leaves to others: sending the verify call, putting the credential into its header, acting on the
verdict. The two functions that see a secret compare its beginning and its length and keep
nothing; neither may ever be cached.
"""

import tomllib
from collections.abc import Mapping
from enum import StrEnum
from functools import cache
from importlib.resources import files
from types import MappingProxyType
from typing import Annotated, Literal, TypeVar

from pydantic import AfterValidator, Field, PlainSerializer, StringConstraints

from bus_schemas.event import Contract
from bus_schemas.events.health import Validity
from bus_schemas.fields import CredentialKind, HttpStatus, ProviderId, ShortText

K = TypeVar("K")
V = TypeVar("V")

FrozenMap = Annotated[Mapping[K, V], AfterValidator(MappingProxyType), PlainSerializer(dict)]
"""Read-only, because every caller shares the one loaded table."""

HttpsUrl = Annotated[str, StringConstraints(pattern=r"^https://[a-z0-9.-]+(/[!-~]*)?$")]
"""No port, no user: the credential goes to the host that is plain to read."""

Headers = FrozenMap[
    Annotated[str, StringConstraints(pattern=r"^[a-z0-9-]{1,64}$")],
    Annotated[str, StringConstraints(pattern=r"^[!-~]{1,200}$")],
]
Documented = Literal[Validity.VALID, Validity.INVALID, Validity.LIMITED]


class HeaderStyle(StrEnum):
    """How an API key travels. An OAuth access token is always a bearer token (RFC 6750 2.1)."""

    BEARER = "bearer"
    X_API_KEY = "x-api-key"
    X_GOOG_API_KEY = "x-goog-api-key"


class KeyShape(Contract, extra="forbid"):
    """A hint for recognising a pasted key; never a reason to refuse one."""

    prefix: Annotated[str, StringConstraints(pattern=r"^[!-~]{3,32}$")]
    min_length: Annotated[int, Field(ge=8, le=200)] = 20
    """Characters of the whole key, prefix included."""

    def fits(self, secret: str) -> bool:
        """Say whether *secret* has this shape."""
        return len(secret) >= self.min_length and secret.startswith(self.prefix)


ErrorWord = Annotated[str, StringConstraints(pattern=r"^[A-Z_]{4,64}$")]
"""A provider's own name for an error, which occurs in no other."""


class BodyFlag(Contract, extra="forbid"):
    """A field of a good answer's JSON object that takes the good word back."""

    field: Annotated[str, StringConstraints(pattern=r"^[a-z_]{1,64}$")]
    value: bool
    """What it says of a credential that is no use."""
    verdict: Literal[Validity.INVALID, Validity.LIMITED]


class VerifyCall(Contract, extra="forbid"):
    """The cheapest call whose status tells a good credential from a bad one."""

    method: Literal["GET", "POST"]
    url: HttpsUrl
    kinds: tuple[CredentialKind, ...] = (CredentialKind.API_KEY,)
    """The kinds it can judge; do not make it with another: its answer would mean nothing."""
    headers: Headers = Field(default_factory=dict, validate_default=True)
    """Sent besides the credential's own header."""
    oauth_headers: Headers = Field(default_factory=dict, validate_default=True)
    """Sent besides those when the credential is an OAuth access token."""
    body: str | None = None
    """JSON text, ready to send as `application/json`; none on a GET."""
    statuses: FrozenMap[HttpStatus, Documented]
    """What the provider's documentation says each status means for the credential."""
    only_with: FrozenMap[HttpStatus, ErrorWord] = Field(default_factory=dict, validate_default=True)
    """The word in the body without which a status, which has another cause too, says nothing."""
    flags: tuple[BodyFlag, ...] = ()
    """Documented fields of a `valid` answer's body that say otherwise; empty: no body is read."""

    def verdict(self, status: int) -> Validity:
        """Return what *status* says of the credential; an undocumented one says `unknown`."""
        return self.statuses.get(status, Validity.UNKNOWN)


class Links(Contract, extra="forbid"):
    """Pages for the owner's browser; where no deeper one is sure, the console's front page."""

    console: HttpsUrl
    """Where keys are made."""
    revoke: HttpsUrl
    """Where a key, or the grant of a sign-in, is taken back."""
    limits: HttpsUrl
    """Where spending is capped, or topped up if prepaid."""
    usage: HttpsUrl
    """Where the provider shows what was used."""


class Provider(Contract, extra="forbid"):
    """One AI provider."""

    id: ProviderId
    name: ShortText
    auth: Annotated[tuple[CredentialKind, ...], Field(min_length=1)]
    """The kinds of credential it accepts, the usual one first."""
    key_shapes: tuple[KeyShape, ...] = ()
    """Empty if its keys have no shape to know them by."""
    base_url: HttpsUrl
    """Where its models are called, unless the owner sealed another address."""
    header_style: HeaderStyle
    verify: VerifyCall
    links: Links

    def verify_url(self, sealed: str) -> str | None:
        """Return where `verify` goes for a credential whose sealed base URL is *sealed*.

        For the catalogue's own that is the catalogue's; for another it is the same path below that
        one, so that no credential goes to a host it was not sealed for. None if there is no such
        path: the check is at another host, or above the base URL.
        """
        ours, theirs = self.base_url.rstrip("/"), sealed.rstrip("/")
        if ours == theirs:
            return self.verify.url
        path = self.verify.url.removeprefix(ours)
        below = path != self.verify.url and path.startswith("/")
        return theirs + path if below else None

    def match_length(self, secret: str) -> int:
        """Return the length of the longest prefix that fits *secret*, 0 if none does."""
        return max(
            (len(shape.prefix) for shape in self.key_shapes if shape.fits(secret)), default=0
        )

    def looks_like(self, secret: str) -> bool:
        """Say whether *secret* has a known shape. False refuses nothing: shapes change."""
        return self.match_length(secret) > 0


@cache
def load_providers() -> Mapping[ProviderId, Provider]:
    """Return the catalogue in its own order, read on the first call.

    Raises pydantic's ValidationError if the shipped file is wrong.
    """
    table = tomllib.loads(files("bus_schemas").joinpath("providers.toml").read_text("utf-8"))
    found = [Provider.model_validate({"id": name, **entry}) for name, entry in table.items()]
    return MappingProxyType({provider.id: provider for provider in found})


def recognise(secret: str) -> tuple[ProviderId, ...]:
    """Return the providers whose keys look like *secret*, longest prefix first.

    A tie keeps the catalogue's order. Empty means no hint fits, not that the key is bad.
    """
    lengths = {name: entry.match_length(secret) for name, entry in load_providers().items()}
    return tuple(sorted(filter(lengths.get, lengths), key=lambda name: -lengths[name]))
