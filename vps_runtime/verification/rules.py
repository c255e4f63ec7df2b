"""Which call tells a good credential from a bad one, where it may go, and what its answer says.

Pure: `judge` sends the call. ADR-26 gives the reasons.

Where a call may go `Provider.verify_url` decides, from the address inside the seal: a base URL that
was set from outside once sent keys to strangers (CVE-2026-21852).
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final

from bus_schemas.credential import CredentialPayload
from bus_schemas.events.health import Validity
from bus_schemas.providers import HeaderStyle, VerifyCall, load_providers

NO_CHECK: Final = "no_check"
"""No documented call can judge this credential, or none at the address it was sealed for."""
UNDOCUMENTED: Final = "undocumented_answer"
"""The provider answered, and its documentation does not say what that means."""
UNREACHABLE: Final = "provider_unreachable"
TIMED_OUT: Final = "provider_timed_out"

MAX_BODY: Final = 64 * 1024
"""Of an answer whose body has a say; a longer one is not what was documented."""
_USER_AGENT = "byok-vps"  # api.github.com wants one; ours names no version


@dataclass(frozen=True, slots=True)
class Check:
    """One call, ready to be sent, and what its answer will mean."""

    method: str
    url: str
    headers: Mapping[str, str] = field(repr=False)
    """With the credential in it."""
    body: bytes | None
    rules: VerifyCall = field(repr=False)


def check_for(provider_id: str, payload: CredentialPayload) -> Check | None:
    """Return the call that judges *payload*; None if no documented one does, or may be made."""
    provider = load_providers().get(provider_id)
    if provider is None or payload.kind not in provider.verify.kinds:
        return None
    url, own = provider.verify_url(payload.base_url), _own_headers(payload)
    if url is None or own is None:
        return None
    call = provider.verify
    return Check(
        call.method,
        url,
        {
            "accept": "application/json",
            "accept-encoding": "identity",
            "user-agent": _USER_AGENT,
            **({"content-type": "application/json"} if call.body is not None else {}),
            **call.headers,
            **(call.oauth_headers if payload.oauth else {}),
            **own,
        },
        None if call.body is None else call.body.encode(),
        call,
    )


def validity(call: VerifyCall, status: int, body: bytes | None) -> Validity:
    """Return what an answer says; *body* is None if it was too long, and read only where it counts.

    A field of the body can only take away from a status that says `valid`.
    """
    said = call.verdict(status)
    if call.only_with.get(status, "").encode() not in (body or b""):
        return Validity.UNKNOWN
    if said is not Validity.VALID or not call.flags:
        return said
    told = _json_object(body)
    if told is None:  # the documented answer has an object
        return Validity.UNKNOWN
    for flag in call.flags:
        found = told.get(flag.field, not flag.value)
        if found is flag.value:
            return flag.verdict
        if not isinstance(found, bool):
            return Validity.UNKNOWN
    return said


def wants_body(call: VerifyCall, status: int) -> bool:
    """Whether the body of an answer with *status* has a say."""
    flagged = bool(call.flags) and call.verdict(status) is Validity.VALID
    return flagged or status in call.only_with


def _own_headers(payload: CredentialPayload) -> Mapping[str, str] | None:
    """Return the header that carries the credential; None if its style is none we know."""
    if payload.oauth:
        return {"authorization": f"Bearer {payload.oauth.access_token.get_secret_value()}"}
    if payload.secret is None:  # CredentialPayload has one of the two
        return None
    secret = payload.secret.get_secret_value()
    match payload.header_style:
        case HeaderStyle.BEARER:
            return {"authorization": f"Bearer {secret}"}
        case HeaderStyle.X_API_KEY | HeaderStyle.X_GOOG_API_KEY:
            return {payload.header_style: secret}
        case _:
            return None


def _json_object(body: bytes | None) -> Mapping[str, object] | None:
    try:
        told = json.loads(body or b"")
    except (ValueError, RecursionError):
        return None
    return told if isinstance(told, dict) else None
