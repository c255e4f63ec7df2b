"""The client that calls the providers: it keeps no cookies, follows nothing, adds nothing."""

import contextlib
import ssl
from collections.abc import Callable, Iterator
from contextvars import ContextVar
from typing import Final

import aiohttp

from vps_runtime.gateway.problem import BROKE_OFF, NO_ANSWER, NOT_TRUSTED, UNREACHABLE, Problem

HEAD_SECONDS: Final = 600.0
"""To the head of an answer, the body of the call included, and from each part of the answer to
the next: thinking models are slow."""
_CONNECT_SECONDS: Final = 30.0
_IDLE_SECONDS: Final = 15.0
"""A connection is kept for the next call; less than any provider keeps it, so that no call is
sent into one that is just being closed."""
_LONGEST_HEADER: Final = 32 * 1024
_OWN_HEADERS: Final = ("User-Agent", "Accept", "Accept-Encoding", "Content-Type")
"""What the library would add to a call that has none."""

_last_look: ContextVar[Callable[[], None]] = ContextVar("last_look", default=lambda: None)


@contextlib.contextmanager
def looking_again(look: Callable[[], None]) -> Iterator[None]:
    """Call *look* in here each time a call is about to be written to a connection.

    Getting the connection (DNS, TCP, TLS) takes up to half a minute, and the library tries some
    calls twice: time enough for an order. What *look* raises ends the call, and nothing is sent.
    """
    before = _last_look.set(look)
    try:
        yield
    finally:
        _last_look.reset(before)


class _LookingAgain(aiohttp.ClientRequest):
    async def send(self, conn: aiohttp.connector.Connection) -> aiohttp.ClientResponse:
        _last_look.get()()
        return await super().send(conn)


def open_client() -> aiohttp.ClientSession:
    """Return a client; TLS is verified against the system's CAs, environment proxies are not used.

    To be opened in a running loop, and closed.
    """
    return aiohttp.ClientSession(
        connector=aiohttp.TCPConnector(limit=0, keepalive_timeout=_IDLE_SECONDS),
        request_class=_LookingAgain,
        cookie_jar=aiohttp.DummyCookieJar(),
        skip_auto_headers=_OWN_HEADERS,
        auto_decompress=False,
        trust_env=False,
        timeout=aiohttp.ClientTimeout(total=None, connect=_CONNECT_SECONDS, sock_read=HEAD_SECONDS),
        max_line_size=_LONGEST_HEADER,
        max_field_size=_LONGEST_HEADER,
    )


def problem_of(error: Exception) -> Problem:
    """Return what *error*, of a call that got no answer, means to the agent; never its words."""
    if isinstance(error, aiohttp.ClientConnectorCertificateError | ssl.SSLError):
        return NOT_TRUSTED
    if isinstance(error, TimeoutError):
        return NO_ANSWER
    if isinstance(error, aiohttp.ClientConnectorError):
        return UNREACHABLE
    return BROKE_OFF
