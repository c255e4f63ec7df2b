"""Who is calling: a machine with its owner's token, or a person's browser with a session.

A session counts for changes only with the proof that the request comes from our own page: a CSRF
token bound to the session, and a browser that does not itself say otherwise (Fetch Metadata).
"""

import base64
import hashlib
import hmac
from dataclasses import dataclass, field

from starlette.requests import Request

from platform_handlers.dashboard.ports import Neighbours
from platform_handlers.dashboard.problems import forged, unauthenticated

COOKIE = "__Host-byok-session"
"""The prefix makes browsers insist on Secure, Path=/ and no Domain (RFC 6265bis 4.1.3)."""
CSRF_HEADER = "x-csrf-token"
_MAX_SECRET = 512
_SAFE = {"GET", "HEAD"}


@dataclass(frozen=True)
class Caller:
    """Somebody we know, and how they may be called in a fact."""

    owner_id: str
    who: str
    session: str | None = field(default=None, repr=False)


async def caller_of(request: Request, neighbours: Neighbours) -> Caller:
    """Return who is calling. Raises ProblemError 401, or 403 for a forged change."""
    header = request.headers.get("authorization")
    if header is not None:
        token = _bearer(header)
        owner = await neighbours.tokens.owner_of_token(token) if token else None
        if owner is None:
            raise unauthenticated()
        return Caller(owner, f"{owner} (API token)")
    caller = await visitor_of(request, neighbours)
    if caller is None:
        raise unauthenticated()
    if request.method not in _SAFE:
        check_csrf(request, caller, request.headers.get(CSRF_HEADER, ""))
    return caller


async def visitor_of(request: Request, neighbours: Neighbours) -> Caller | None:
    """Return whose browser this is, None without a living session."""
    session = request.cookies.get(COOKIE, "")
    if not 0 < len(session) <= _MAX_SECRET:
        return None
    owner = await neighbours.sessions.owner_of_session(session)
    return Caller(owner, f"{owner} (dashboard)", session) if owner else None


def csrf_token(session: str) -> str:
    """Return the proof that only a page made for this session can know."""
    digest = hashlib.sha256(b"byok/csrf/v1\0" + session.encode()).digest()
    return base64.urlsafe_b64encode(digest).rstrip(b"=").decode("ascii")


def check_csrf(request: Request, caller: Caller, shown: str) -> None:
    """Raise ProblemError 403 unless the page of *caller*'s session asked for this change."""
    check_same_origin(request)
    expected = csrf_token(caller.session or "")
    if not hmac.compare_digest(expected.encode(), shown.encode()):
        raise forged()


def check_same_origin(request: Request) -> None:
    """Raise ProblemError 403 when the browser itself says that another site is behind it."""
    if request.headers.get("sec-fetch-site", "same-origin") != "same-origin":
        raise forged()


def _bearer(header: str) -> str | None:
    scheme, _, token = header.partition(" ")
    token = token.strip()
    return token if scheme.lower() == "bearer" and 0 < len(token) <= _MAX_SECRET else None
