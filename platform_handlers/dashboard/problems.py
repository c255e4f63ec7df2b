"""Everything that can go wrong at the API, as problem documents (RFC 9457).

A problem never tells whether an id that is not the caller's exists: there is one sentence for both.
"""

import re
from dataclasses import dataclass, field

from starlette.responses import Response

from bus_schemas.api import PROBLEM_TYPE, Problem
from bus_schemas.errors import ByokError

_ID = re.compile(r"[a-z0-9_-]{1,160}")


@dataclass
class ProblemError(ByokError):
    """Stop answering this request and say why."""

    status: int
    code: str
    """Short and stable; becomes `urn:byok:problem:<code>`."""
    title: str
    detail: str
    """Which id, what was wrong, what to do. Never what was sent."""
    headers: dict[str, str] = field(default_factory=dict)

    def __str__(self) -> str:
        return f"{self.status} {self.code}: {self.detail}"

    def response(self) -> Response:
        """Return the HTTP answer."""
        problem = Problem(
            type=f"urn:byok:problem:{self.code}",
            title=self.title,
            status=self.status,
            detail=self.detail,
        )
        body = problem.model_dump_json()
        return Response(body, self.status, self.headers, media_type=PROBLEM_TYPE)


def not_found(kind: str, id_: str, remedy: str) -> ProblemError:
    """Return the one answer for ids that do not exist and for those of other owners."""
    # What cannot be an id may be a pasted key: it is not said again, not even to its sender.
    called = f"called {id_}" if _ID.fullmatch(id_) else "of that name, which no id can have"
    detail = f"You have no {kind} {called}. {remedy}"
    return ProblemError(404, "not-found", f"No such {kind}", detail)


def no_server(server_id: str) -> ProblemError:
    """Return the answer for a server that is not the caller's."""
    return not_found("server", server_id, "GET /api/servers lists yours.")


def no_banner(banner_id: str) -> ProblemError:
    """Return the answer for a banner that is not the caller's."""
    return not_found("banner", banner_id, "GET /api/banners lists yours.")


def unauthenticated() -> ProblemError:
    """Return the answer for a caller without a valid token or session."""
    return ProblemError(
        401,
        "unauthenticated",
        "Who are you?",
        "Send `Authorization: Bearer <token>` with the token your platform gave you; "
        "a token that was replaced is no longer good.",
        {"WWW-Authenticate": 'Bearer realm="byok"'},
    )


def forged() -> ProblemError:
    """Return the answer for a change that the page of this very origin did not ask for."""
    return ProblemError(
        403,
        "not-from-this-page",
        "Not from this page",
        "The request did not carry this session's own proof. Reload the page and try again.",
    )


def unavailable(what: str) -> ProblemError:
    """Return the answer when something behind the API cannot be reached now."""
    detail = f"{what} Nothing was changed; try again in a few seconds."
    return ProblemError(503, "unavailable", "Not right now", detail, {"Retry-After": "3"})
