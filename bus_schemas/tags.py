"""Blind fingerprints of credentials (docs/protocol.md, "Fingerprints").

Pure. Between `tag_input` and `tag` lies the blind evaluation of `bus_schemas.oprf`.
"""

import hashlib
import re
from dataclasses import dataclass, field

from bus_schemas.credential import CredentialPayload, OAuthSet
from bus_schemas.encoding import lp
from bus_schemas.fields import Basis, Strength

_RANDOM_LOOKING = re.compile(r"(?=.*[0-9])[^@\s]{16,}")
"""At least 16 characters with a digit, no `@`: UUIDs, `user-…`, 21-digit subjects."""


@dataclass(frozen=True, slots=True)
class TagInput:
    """What to have evaluated for one credential."""

    basis: Basis
    strength: Strength
    value: bytes = field(repr=False)
    """32 bytes; not shown, since the one of a guessable account can be searched for."""


def tag_input(basis: Basis, provider: str, *parts: str) -> bytes:
    """Return the 32 bytes that are blinded and evaluated."""
    fields = lp(basis) + lp(provider) + b"".join(map(lp, parts))
    return hashlib.sha256(b"byok/fp/v1\0" + fields).digest()


def tag(epoch: str, basis: Basis, y: bytes) -> str:
    """Return the tag, 64 lowercase hex digits; *y* is the 64-byte output of the evaluation."""
    return hashlib.sha256(b"byok/fp/tag/v1\0" + lp(epoch) + lp(basis) + y).hexdigest()


def credential_inputs(payload: CredentialPayload, provider: str) -> list[TagInput]:
    """Return what is fingerprinted of *payload*: the key, or the grant and then the account.

    Access tokens are left out (they change hourly), and so is an account nobody named.
    """
    found = []
    if payload.secret is not None:
        key = tag_input(Basis.API_KEY, provider, payload.secret.get_secret_value())
        found.append(TagInput(Basis.API_KEY, Strength.SECRET, key))
    if payload.oauth is not None:
        refresh_token = payload.oauth.refresh_token.get_secret_value()
        grant = tag_input(Basis.OAUTH_GRANT, provider, refresh_token)
        found.append(TagInput(Basis.OAUTH_GRANT, Strength.SECRET, grant))
        if payload.oauth.account:
            found.append(_account_input(payload.oauth, payload.oauth.account, provider))
    return found


def _account_input(oauth: OAuthSet, account: str, provider: str) -> TagInput:
    # An email address is one account however it is written.
    account = account.strip().casefold() if "@" in account else account
    value = tag_input(
        Basis.OAUTH_ACCOUNT, provider, oauth.issuer, account, oauth.organisation or ""
    )
    # Whatever does not look random could be typed by somebody who wants to frame or to probe.
    opaque = _RANDOM_LOOKING.fullmatch(account)
    return TagInput(Basis.OAUTH_ACCOUNT, Strength.OPAQUE if opaque else Strength.GUESSABLE, value)
