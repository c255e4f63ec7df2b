"""Which headers pass, in both directions, and where the key goes. Pure."""

from collections.abc import Iterable, Iterator, Mapping
from functools import cache
from types import MappingProxyType
from typing import Final

from multidict import CIMultiDict

from bus_schemas.fields import CredentialKind
from bus_schemas.providers import HeaderStyle, load_providers
from vps_runtime.gateway.problem import BAD_HEADER, PROBLEM_HEADER, UNKNOWN_STYLE, NotPassedOn
from vps_runtime.gateway.rules import Pairs

_CREDENTIALS: Final = frozenset({"authorization", "x-api-key", "x-goog-api-key", "api-key"})
_HOP_BY_HOP: Final = frozenset({
    "connection", "keep-alive", "proxy-authenticate", "proxy-authorization", "proxy-connection",
    "proxy-authentication-info", "te", "trailer", "transfer-encoding", "upgrade",
})  # fmt: skip
"""RFC 9110 7.6.1, and what older software sends."""
_NOT_SENT: Final = _HOP_BY_HOP | _CREDENTIALS | {"host", "cookie", "expect", "content-length"}
_NOT_RETURNED: Final = _HOP_BY_HOP | {"set-cookie", "alt-svc", PROBLEM_HEADER.lower()}
"""Cookies would tie calls together that have nothing to do with each other, and the agent has no
use for them; `alt-svc` would send it elsewhere, past the gateway (RFC 7838); the last one would
pass a provider's answer off as the gateway's."""
_STYLES: Final = frozenset(HeaderStyle)


def lowered(headers: Iterable[tuple[str, str]]) -> list[tuple[str, str]]:
    """Return *headers* with names in lower case."""
    return [(name.lower(), value) for name, value in headers]


def shown_credentials(headers: Pairs) -> Iterator[str]:
    """Yield what a caller shows as its API key, in whichever header its provider wants it."""
    for name, value in headers:
        if name in _CREDENTIALS:
            scheme, space, token = value.partition(" ")
            yield token.strip() if space and scheme.lower() == "bearer" else value


def sent(
    headers: Pairs, provider: str, kind: CredentialKind, style: str, secret: str
) -> CIMultiDict[str]:
    """Return the headers that go to *provider*, with its credential as the only one.

    Raises NotPassedOn.
    """
    named = _named_by_connection(headers)
    passed = CIMultiDict(
        (name, _text(value)) for name, value in headers if name not in _NOT_SENT | named
    )
    if kind is CredentialKind.OAUTH:
        for name, value in _oauth_headers(provider).items():
            before = passed.popall(name, [])
            listed = [part.strip() for one in (*before, value) for part in one.split(",")]
            passed[name] = ",".join(dict.fromkeys(filter(None, listed)))
    if kind is CredentialKind.OAUTH or style == HeaderStyle.BEARER:
        passed["authorization"] = f"Bearer {secret}"
    elif style in _STYLES:
        passed[style] = secret
    else:
        raise NotPassedOn(UNKNOWN_STYLE)
    return passed


def returned(headers: Iterable[tuple[str, str]], secret: str) -> CIMultiDict[str]:
    """Return the headers of an answer that go back; none of them repeats *secret*."""
    pairs = list(headers)
    gone = _NOT_RETURNED | _named_by_connection(lowered(pairs))
    passed = CIMultiDict(
        (name, value)
        for name, value in pairs
        if name.lower() not in gone and secret not in value and _is_text(value)
    )
    passed.setdefault("Server", "byok-vps")  # else the library's name and version
    return passed


def _named_by_connection(headers: Pairs) -> frozenset[str]:
    """Return the headers that `Connection` makes hop-by-hop (RFC 9110 7.6.1)."""
    return frozenset(
        option.strip().lower()
        for name, value in headers
        if name == "connection"
        for option in value.split(",")
    )


@cache
def _oauth_headers(provider: str) -> Mapping[str, str]:
    known = load_providers().get(provider)
    return known.verify.oauth_headers if known else MappingProxyType({})


def _text(value: str) -> str:
    if not _is_text(value):
        raise NotPassedOn(BAD_HEADER)
    return value


def _is_text(value: str) -> bool:
    """Whether it was UTF-8; anything else reached us as lone surrogates."""
    return value.isascii() or not any("\ud800" <= sign <= "\udfff" for sign in value)
