"""What the gateway answers in its own name, in a form that the agents of all providers show. Pure.

The body is right in OpenAI's dialect and in Anthropic's: both read `error.message`.
"""

import json
from dataclasses import dataclass
from typing import Final

PROBLEM_HEADER: Final = "X-Byok-Problem"
"""Tells the gateway's own answers from the provider's, by the problem's code."""

_KINDS: Final = {
    400: "invalid_request_error",
    401: "authentication_error",
    403: "permission_error",
    404: "not_found_error",
    413: "request_too_large",
    429: "rate_limit_error",
}


@dataclass(frozen=True, slots=True)
class Problem:
    """Why a call is not passed on, or has no answer. Never quotes the call."""

    status: int
    code: str
    sentence: str
    """What is wrong and what to do about it."""

    def body(self) -> bytes:
        """Return the JSON."""
        kind = _KINDS.get(self.status, "api_error")
        error = {"type": kind, "code": f"byok_{self.code}", "message": f"byok: {self.sentence}"}
        return json.dumps({"type": "error", "error": error}).encode()


class NotPassedOn(Exception):
    """A call ends here, with *problem* for an answer."""

    def __init__(self, problem: Problem) -> None:
        super().__init__(problem.code)
        self.problem = problem


def no_usable_key(slot_id: str) -> Problem:
    """Return the answer to a call while nothing may be used (ADR-25: 401, never 503)."""
    return Problem(
        401,
        "no_usable_key",
        f"slot {slot_id} has no usable key: none is held, none is verified yet, or an order took"
        " it out of use; `byok-vps status` on this server says which",
    )


WRONG_TOKEN: Final = Problem(
    401,
    "agent_token",
    "this gateway answers its own agent only: give the agent this server's agent token as its API"
    " key (`byok-vps openclaw-config` shows how)",
)
WRONG_PEER: Final = Problem(
    403,
    "agent_user",
    "this socket answers one user only; `byok-vps run --agent-user` names the agent's",
)
WRONG_HOST: Final = Problem(
    403, "host", "call this gateway by a loopback name: http://127.0.0.1, with exactly one Host"
)
FROM_BROWSER: Final = Problem(
    403, "origin", "this gateway is not for browsers: it refuses every call with an Origin"
)
BAD_TARGET: Final = Problem(
    400,
    "path",
    "the path must be /SLOT/PATH in visible ASCII, without empty, `.` or `..` segments, however"
    " they are encoded",
)
BAD_METHOD: Final = Problem(405, "method", "only GET, HEAD, POST, PUT, PATCH and DELETE pass")
BAD_FRAMING: Final = Problem(400, "framing", "the length of the body is not plain to see")
BAD_HEADER: Final = Problem(400, "header", "a header's value is not text")
NO_UPGRADE: Final = Problem(
    501, "upgrade", "WebSockets do not pass this gateway; use the provider's HTTP interface"
)
BAD_EXPECTATION: Final = Problem(417, "expect", "the only expectation that is met is 100-continue")
TOO_LARGE: Final = Problem(413, "too_large", "the body is larger than 64 MiB")
TOO_SLOW: Final = Problem(408, "too_slow", "the body stood still for a minute")
BROKEN_BODY: Final = Problem(400, "broken_body", "the body ended before its length said so")
TOO_MANY: Final = Problem(
    429, "too_many_calls", "too many calls at a time; call again when others have ended"
)
UNKNOWN_STYLE: Final = Problem(
    502,
    "header_style",
    "this credential was sealed with a header style that this version does not know; update byok"
    " on this server, or seal it again",
)
NO_ANSWER: Final = Problem(
    504, "no_answer", "the provider did not answer in time; nothing says that the key is bad"
)
UNREACHABLE: Final = Problem(
    502,
    "unreachable",
    "the provider cannot be reached from this server; nothing says that the key is bad",
)
BROKE_OFF: Final = Problem(
    502,
    "broke_off",
    "the provider closed the connection without an answer; nothing says that the key is bad",
)
NOT_TRUSTED: Final = Problem(
    502,
    "certificate",
    "the provider's TLS certificate is not trusted here, so nothing was sent; check this server's"
    " clock, its CA certificates, and who sits between",
)
BUG: Final = Problem(
    502, "bug", "this is a bug in byok; the server's log says where, please report it"
)
