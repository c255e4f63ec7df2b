"""What the token endpoint's answer to a refresh means (RFC 6749 sections 5.1 and 5.2). Pure.

Left to others: asking the endpoint (`endpoint`), and what is done then (`refresher`).
"""

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from pydantic import SecretStr, ValidationError

from bus_schemas.credential import OAuthSet
from bus_schemas.fields import at_utc

INVALID_GRANT: Final = "invalid_grant"
"""The provider takes the refresh token no more: somebody else used it, or signed out."""
ANSWER_LOST: Final = "refresh_answer_lost"
"""The same, after a refresh of our own whose answer never came: it may have been us."""
SPENT: Final = "refresh_token_spent"
"""This server itself used the token up, in another slot or revision; it is not shown again."""
NOT_BEARER: Final = "not_bearer"
"""The tokens are of a type that nobody here knows how to use."""
UNREACHABLE: Final = "token_endpoint_unreachable"
UNDOCUMENTED: Final = "token_endpoint_answer"
"""It answered, and nothing says what that means: asked again later."""

_FINAL: Final = frozenset(
    {
        "invalid_client",
        "invalid_request",
        "invalid_scope",
        "unauthorized_client",
        "unsupported_grant_type",
    }
)
"""RFC 6749 section 5.2, but for `invalid_grant`: no other answer is to be had by asking again."""

_ALSO_INVALID_GRANT: Final = frozenset(
    {"refresh_token_expired", "refresh_token_invalidated", "refresh_token_reused"}
)
"""What OpenAI's issuer says in place of `invalid_grant` (openai/codex, `auth`)."""

_OK: Final = 200
_CLIENT_ERROR: Final = 400
_SERVER_ERROR: Final = 500
_LONGEST_LIFE: Final = 366 * 24 * 3600
_SECONDS = re.compile(r"[0-9]{1,9}")


@dataclass(frozen=True, slots=True)
class Renewed:
    """The endpoint gave new tokens."""

    oauth: OAuthSet = field(repr=False)


@dataclass(frozen=True, slots=True)
class Ended:
    """It never will again, until somebody signs in anew."""

    reason: str
    status: int | None
    keep: OAuthSet | None = field(default=None, repr=False)
    """A refresh token that came all the same; the set's access token is over."""


@dataclass(frozen=True, slots=True)
class TryAgain:
    """Nobody knows; the same request may do later."""

    reason: str
    status: int | None = None
    lost: bool = False
    """The request may have been obeyed: what it gave is gone."""
    after: float | None = None
    """Seconds that the endpoint asked us to wait."""


Outcome = Renewed | Ended | TryAgain


@dataclass(frozen=True, slots=True)
class Answer:
    """What came back from the token endpoint."""

    status: int
    body: bytes | None = field(repr=False)
    """None if it was too long for a token answer."""
    retry_after: str | None = None


def read_answer(old: OAuthSet, answer: Answer, *, asked_at: float) -> Outcome:
    """Return what *answer* to the refresh of *old*, asked at *asked_at* Unix seconds, means."""
    told = _json_object(answer.body)
    if answer.status == _OK:
        return _tokens(old, told, asked_at)
    code = _error_code(told)
    if _CLIENT_ERROR <= answer.status < _SERVER_ERROR and code is not None:
        if code == INVALID_GRANT or code in _ALSO_INVALID_GRANT:
            return Ended(INVALID_GRANT, answer.status)
        if code in _FINAL:
            return Ended(code, answer.status)
    # A server, or whatever stands before it, may fail before or after it has obeyed.
    lost = answer.status >= _SERVER_ERROR
    return TryAgain(UNDOCUMENTED, answer.status, lost, _seconds(answer.retry_after))


def _tokens(old: OAuthSet, told: Mapping[str, Any], asked_at: float) -> Outcome:
    """Read RFC 6749 section 5.1; a new refresh token is kept, whatever the rest is worth."""
    kept = told.get("refresh_token") or old.refresh_token.get_secret_value()
    bearer = str(told.get("token_type", "")).lower() == "bearer"  # RFC 6749 5.1: case insensitive
    access = told.get("access_token")
    if bearer and access:
        ends = _lifetime(told.get("expires_in"))
        # From when we asked, not when it came: rather too early than too late.
        expires_at = None if ends is None else at_utc(asked_at + ends)
        changes = {"access_token": access, "refresh_token": kept, "expires_at": expires_at}
        if (new := _changed(old, changes)) is not None:
            return Renewed(new)
    strange = bool(access) and not bearer
    rotated = kept != old.refresh_token.get_secret_value()
    left = _changed(old, {"refresh_token": kept, "expires_at": at_utc(0)})  # no access any more
    if left is None or not (strange or rotated):
        return TryAgain(UNDOCUMENTED, _OK, lost=True)
    return Ended(NOT_BEARER if strange else UNDOCUMENTED, _OK, left)


def _changed(old: OAuthSet, changes: Mapping[str, Any]) -> OAuthSet | None:
    fields = {name: getattr(old, name) for name in OAuthSet.model_fields}
    secret = {k: SecretStr(v) if isinstance(v, str) else v for k, v in changes.items()}
    try:
        return OAuthSet(**{**fields, **secret})
    except ValidationError:  # no token that may go into a header
        return None


def _lifetime(expires_in: object) -> float | None:
    """Return the seconds in `expires_in`, which some write as text; None if it says nothing."""
    if isinstance(expires_in, str) and _SECONDS.fullmatch(expires_in):
        expires_in = int(expires_in)
    if isinstance(expires_in, bool) or not isinstance(expires_in, int | float):
        return None
    return float(expires_in) if 0 < expires_in <= _LONGEST_LIFE else None


def _error_code(told: Mapping[str, Any]) -> str | None:
    error = told.get("error")
    if isinstance(error, dict):  # OpenAI's issuer: {"error": {"code": …}}
        error = error.get("code")
    return error if isinstance(error, str) else None


def _seconds(retry_after: str | None) -> float | None:
    # The other form, a date (RFC 9110 section 10.2.3), would rest on two clocks.
    return float(retry_after) if retry_after and _SECONDS.fullmatch(retry_after) else None


def _json_object(body: bytes | None) -> Mapping[str, Any]:
    try:
        told = json.loads(body or b"")
    except (ValueError, RecursionError):
        return {}
    return told if isinstance(told, dict) else {}


def blamed(outcome: Ended, *, unsure: bool) -> Ended:
    """Say rightly whose fault an end is, if an earlier answer to the same token was lost."""
    if unsure and outcome.reason == INVALID_GRANT:
        return Ended(ANSWER_LOST, outcome.status, outcome.keep)
    return outcome
