"""Who may call, and what a call's target means. Pure.

Leaves to others: reading the call from a socket, the key, the headers (`headers`).
"""

import hmac
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final
from urllib.parse import unquote, unquote_plus

from bus_schemas.fields import ID_PATTERN
from vps_runtime.gateway.problem import (
    BAD_EXPECTATION,
    BAD_FRAMING,
    BAD_METHOD,
    BAD_TARGET,
    FROM_BROWSER,
    NO_UPGRADE,
    WRONG_HOST,
    NotPassedOn,
)

METHODS: Final = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE"})
"""TRACE would echo the key (RFC 9110 9.3.8); OPTIONS is a browser's, CONNECT no gateway's."""

Pairs = Sequence[tuple[str, str]]
"""Headers as they came, names in lower case."""

_SLOT: Final = re.compile(ID_PATTERN)
_LOCAL_HOST: Final = re.compile(
    r"(?:localhost|127(?:\.\d{1,3}){3}|\[::1\])(?::\d{1,5})?", re.IGNORECASE
)
_VISIBLE: Final = re.compile(r"[!-~]+")
_NEVER_PLAIN: Final = re.compile(r'[\\#<>"{}|^`]')
"""RFC 3986 2.2 has no use for them; parsers differ in what they make of some."""
_TELLING: Final = frozenset(
    {"host", "origin", "content-length", "transfer-encoding", "upgrade", "expect"}
)
_SEPARATORS: Final = re.compile(r"[/\\]")
_MOST_DECODINGS: Final = 8
"""Nobody encodes a path so often; each takes time, in which nothing else is done."""
_CREDENTIAL_PARAMETERS: Final = frozenset({"key", "api_key", "access_token"})
"""Where some interfaces take a key from the query; the gateway's own goes into a header."""


@dataclass(frozen=True, slots=True)
class Target:
    """What a call is for."""

    slot_id: str
    rest: str
    """Path and query below the provider's base URL, as they go on the wire; begins with `/`,
    or is empty."""


def read_target(raw: str) -> Target:
    """Return what the request target *raw* means. Raises NotPassedOn.

    Only the origin form (RFC 9112 3.2.1) passes: an absolute one names a host, and the host is
    none of the caller's business.
    """
    path, _, query = raw.partition("?")
    _, slash, below = path.partition("/")
    slot_id, _, rest = below.partition("/")
    if not raw.startswith("/") or not slash or not _SLOT.fullmatch(slot_id):
        raise NotPassedOn(BAD_TARGET)
    if not _VISIBLE.fullmatch(raw) or _NEVER_PLAIN.search(raw):
        raise NotPassedOn(BAD_TARGET)
    _refuse_detours(rest)
    tail = f"/{rest}" if len(below) > len(slot_id) else ""
    query = _without_credentials(query)
    return Target(slot_id, f"{tail}?{query}" if query else tail)


def _refuse_detours(path: str) -> None:
    """Refuse what could climb out of the base URL's path, at whoever decodes it, however often."""
    if "" in path.split("/")[:-1]:  # `//` could begin an authority
        raise NotPassedOn(BAD_TARGET)
    seen = path
    for _ in range(_MOST_DECODINGS):
        # `..;x` is `..` to servers that cut path parameters off.
        if any(piece.partition(";")[0] in {".", ".."} for piece in _SEPARATORS.split(seen)):
            raise NotPassedOn(BAD_TARGET)
        if any(sign < " " or sign == "\x7f" for sign in seen):
            raise NotPassedOn(BAD_TARGET)
        seen, before = unquote(seen), seen
        if seen == before:
            return
    raise NotPassedOn(BAD_TARGET)  # `%252525…`: else one call would keep the loop for half a minute


def _without_credentials(query: str) -> str:
    if not query:
        return ""
    return "&".join(
        part
        for part in query.split("&")
        if unquote_plus(part.partition("=")[0]).lower() not in _CREDENTIAL_PARAMETERS
    )


def admit(method: str, version: tuple[int, int], headers: Pairs) -> None:
    """Refuse what is not an agent's plain HTTP call. Raises NotPassedOn."""
    telling: dict[str, list[str]] = {}
    for name, value in headers:
        if name in _TELLING:
            telling.setdefault(name, []).append(value.lower())
    if "origin" in telling:  # a page in a browser, whatever name it had rebound to us
        raise NotPassedOn(FROM_BROWSER)
    if method not in METHODS:
        raise NotPassedOn(BAD_METHOD)
    _refuse_strange_hosts(telling.get("host", []), version)
    _refuse_unclear_length(telling, version)
    if any("websocket" in value for value in telling.get("upgrade", ())):
        raise NotPassedOn(NO_UPGRADE)
    if any(value != "100-continue" for value in telling.get("expect", ())):
        raise NotPassedOn(BAD_EXPECTATION)


def _refuse_strange_hosts(hosts: Sequence[str], version: tuple[int, int]) -> None:
    # RFC 9112 3.2: exactly one Host, which HTTP/1.0 may leave out.
    if len(hosts) != 1 and (hosts or version >= (1, 1)):
        raise NotPassedOn(WRONG_HOST)
    # A page whose name was rebound to 127.0.0.1 still says its own name here.
    if not all(map(_LOCAL_HOST.fullmatch, hosts)):
        raise NotPassedOn(WRONG_HOST)


def _refuse_unclear_length(telling: Mapping[str, Sequence[str]], version: tuple[int, int]) -> None:
    # RFC 9112 6.3: two lengths, or a length and an encoding, are how requests are smuggled.
    lengths, encodings = telling.get("content-length", ()), telling.get("transfer-encoding", ())
    if len(lengths) + len(encodings) > 1 or any(value != "chunked" for value in encodings):
        raise NotPassedOn(BAD_FRAMING)
    if encodings and version < (1, 1):  # RFC 9112 6.1: whoever passed it on may not know chunks
        raise NotPassedOn(BAD_FRAMING)


def knows_token(shown: Iterable[str], token: str) -> bool:
    """Whether one of the credentials *shown* is *token*, in a time that tells nothing of it."""
    expected = token.encode()
    # What was no text reached us as lone surrogates.
    given = [one.encode("utf-8", "surrogateescape") for one in shown]
    matches = [hmac.compare_digest(one, expected) for one in given]
    return any(matches)
