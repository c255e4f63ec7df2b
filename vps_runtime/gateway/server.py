"""The gateway's listeners and limits: a port on loopback, and a Unix socket for one user."""

import asyncio
import contextlib
import logging
import os
import traceback
from collections.abc import Awaitable, Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

import structlog

from bus_schemas.transport.private_files import write_private
from vps_runtime.gateway import web
from vps_runtime.gateway.body import Body, Room
from vps_runtime.gateway.forward import Call, Forwarder
from vps_runtime.gateway.headers import lowered, shown_credentials
from vps_runtime.gateway.problem import (
    BAD_FRAMING,
    BUG,
    PROBLEM_HEADER,
    TOO_MANY,
    WRONG_PEER,
    WRONG_TOKEN,
    NotPassedOn,
    Problem,
    no_usable_key,
)
from vps_runtime.gateway.rules import METHODS, Pairs, admit, knows_token, read_target
from vps_runtime.local_access import agent_token, peer_uid
from vps_runtime.state import StateFolder

_log = structlog.get_logger(__name__)

DEFAULT_PORT: Final = 8319
_MOST_CALLS: Final = 256
_MOST_CONNECTIONS: Final = 300
"""Of each listener; with those to the providers less than the 1024 files a process usually has."""
_KEPT_BODIES: Final = 64 * 1024 * 1024
"""Bytes of bodies that are kept for a repetition at one time; past it, none are."""
_IDLE_SECONDS: Final = 75.0
"""Until the head of a call must have come whole, from the connection or the last call on."""
_LONGEST_HEADER: Final = 8 * 1024
_MOST_HEADERS: Final = 64
"""A head is in memory before anybody knows whose it is: at most half a megabyte a connection."""
_BODY_SECONDS: Final = 60.0
_LINGERING_SECONDS: Final = 5.0
_CLOSING_SECONDS: Final = 1.0
_RETRY_SECONDS: Final = 5.0
_BEAT_SECONDS: Final = 60.0

_BESIDES: Final[Mapping[int, Mapping[str, str]]] = {
    401: {"WWW-Authenticate": 'Bearer realm="byok"'},  # RFC 9110 15.5.2
    405: {"Allow": ", ".join(sorted(METHODS))},  # RFC 9110 15.5.6
    429: {"Retry-After": "1"},
}
# The library would log what it cannot parse, and whatever a handler raised, words and all.
_SILENT: Final = logging.Logger("byok.gateway.silent", logging.CRITICAL + 1)  # noqa: LOG001


@dataclass(frozen=True)
class GatewayOptions:
    """What an operator may set about the gateway."""

    port: int = DEFAULT_PORT
    """On 127.0.0.1; 0 takes a free one."""
    socket: Path | None = None
    """Of the Unix socket; in the state folder unless set."""
    user: int = field(default_factory=os.geteuid)
    """Whom the agent runs as: the Unix socket answers this user's processes."""


_Known = Callable[[web.BaseRequest, Pairs], None]
"""Raises NotPassedOn for a stranger."""


class Gateway:
    """Listens as long as it runs."""

    def __init__(self, state: StateFolder, options: GatewayOptions) -> None:
        self.options = options
        self._state = state
        self._token: str | None = None
        self._forwarder: Forwarder | None = None
        self._room = Room(_KEPT_BODIES)
        self._running = 0
        self._by_token, self._by_user = _server(self._on_port), _server(self._on_socket)
        self._port: asyncio.Server | None = None
        self._socket: asyncio.Server | None = None
        self._told: set[str] = set()

    @contextlib.contextmanager
    def using(self, forwarder: Forwarder) -> Iterator[None]:
        """Pass calls on by *forwarder*; before and after, no slot has a usable key."""
        self._forwarder = forwarder
        try:
            yield
        finally:
            self._forwarder = None

    @property
    def port(self) -> int:
        """The port on 127.0.0.1; 0 while it does not listen."""
        return int(self._port.sockets[0].getsockname()[1]) if self._port else 0

    async def listen(self) -> None:
        """Listen where it does not yet; what cannot be had is said, once. Raises NotEnrolled.

        The agent's token is made if there is none.
        """
        try:
            self._token = self._token or await asyncio.to_thread(agent_token, self._state)
        except OSError as error:  # a full disk: nobody has the token, so nobody is missed
            self._say_once("agent_token_not_there", error)
            return
        self._port = self._port or await self._listen_on_port()
        self._socket = self._socket or await self._listen_on_socket()

    async def run(self) -> None:
        """Listen until cancelled; try again what could not be had."""
        try:
            while True:
                await self.listen()
                there = self._port and self._socket
                await asyncio.sleep(_BEAT_SECONDS if there else _RETRY_SECONDS)
        finally:
            for listener in filter(None, (self._port, self._socket)):
                listener.close()
            self._state.gateway_url.unlink(missing_ok=True)
            for server in (self._by_token, self._by_user):
                await server.shutdown(_CLOSING_SECONDS)

    async def _listen_on_port(self) -> asyncio.Server | None:
        loop, port = asyncio.get_running_loop(), self.options.port
        self._state.gateway_url.unlink(missing_ok=True)  # of a process that was killed
        try:
            listener = await loop.create_server(_limited(self._by_token), "127.0.0.1", port)
        except OSError as error:
            self._say_once("gateway_port_not_there", error, port=port)
            return None
        url = f"http://127.0.0.1:{listener.sockets[0].getsockname()[1]}"
        try:
            await asyncio.to_thread(write_private, self._state.gateway_url, f"{url}\n".encode())
        except OSError as error:
            self._say_once("gateway_url_not_written", error)
        _log.info("gateway_listens", url=url)
        return listener

    async def _listen_on_socket(self) -> asyncio.Server | None:
        path = self.options.socket or self._state.gateway_socket
        try:
            accept = _limited(self._by_user)
            listener = await asyncio.get_running_loop().create_unix_server(accept, path)
            path.chmod(0o666)  # the folder says who gets here, and `_on_socket` who is answered
        except OSError as error:
            self._say_once("gateway_socket_not_there", error, path=str(path))
            return None
        return listener

    def _say_once(self, event: str, error: OSError, **where: object) -> None:
        if event not in self._told:
            self._told.add(event)
            reason = error.strerror or type(error).__name__
            _log.warning(event, reason=reason, remedy="see docs/operations.md", **where)

    # --- one call ---

    async def _on_port(self, request: web.BaseRequest) -> web.StreamResponse:
        """Answer a call on the port, where anybody on this machine can come."""
        return await self._handle(request, self._has_token)

    async def _on_socket(self, request: web.BaseRequest) -> web.StreamResponse:
        """Answer a call on the Unix socket, whose other end the kernel knows."""
        return await self._handle(request, self._is_the_agents)

    async def _handle(self, request: web.BaseRequest, known: _Known) -> web.StreamResponse:
        try:
            return await self._answer(request, known)
        except NotPassedOn as end:
            return _refusal(end.problem)
        except ConnectionError:  # the agent has gone
            raise
        except Exception as error:  # noqa: BLE001 (its words and its locals might hold the key)
            _log.error("gateway_bug", error=type(error).__name__, at=_places(error))
            return _refusal(BUG)

    async def _answer(self, request: web.BaseRequest, known: _Known) -> web.StreamResponse:
        headers = lowered(request.headers.items())
        admit(request.method, request.version, headers)
        known(request, headers)
        target = read_target(request.raw_path)
        if self._forwarder is None:
            raise NotPassedOn(no_usable_key(target.slot_id))
        if self._running >= _MOST_CALLS:
            raise NotPassedOn(TOO_MANY)
        body = Body(request, self._room, _BODY_SECONDS)
        self._running += 1
        try:
            return await self._forwarder.pass_on(Call(request, target, headers, body))
        finally:
            self._running -= 1
            body.forget()

    def _has_token(self, _request: web.BaseRequest, headers: Pairs) -> None:
        if self._token is None or not knows_token(shown_credentials(headers), self._token):
            raise NotPassedOn(WRONG_TOKEN)

    def _is_the_agents(self, request: web.BaseRequest, _headers: Pairs) -> None:
        transport = request.transport
        connection = transport.get_extra_info("socket") if transport else None
        if connection is None or peer_uid(connection) != self.options.user:
            raise NotPassedOn(WRONG_PEER)


def _server(handler: Callable[[web.BaseRequest], Awaitable[web.StreamResponse]]) -> web.Server:
    """Return a server that logs nothing and ends a call when its caller goes away."""
    return web.Server(
        handler,
        handler_cancellation=True,
        access_log=None,
        logger=_SILENT,
        auto_decompress=False,
        keepalive_timeout=_IDLE_SECONDS,
        lingering_time=_LINGERING_SECONDS,
        max_line_size=_LONGEST_HEADER,
        max_field_size=_LONGEST_HEADER,
        max_headers=_MOST_HEADERS,
        tcp_keepalive=False,
    )


class _TurnedAway(asyncio.Protocol):
    """One connection too many."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """End it."""
        transport.close()


def _limited(server: web.Server) -> Callable[[], asyncio.Protocol]:
    def accept() -> asyncio.Protocol:
        return server() if len(server.connections) < _MOST_CONNECTIONS else _TurnedAway()

    return accept


def _refusal(problem: Problem) -> web.Response:
    headers = {PROBLEM_HEADER: problem.code, "Server": "byok-vps", "Cache-Control": "no-store"}
    headers |= _BESIDES.get(problem.status, {})
    response = web.Response(
        status=problem.status,
        body=problem.body(),
        headers=headers,
        content_type="application/json",
    )
    if problem is BAD_FRAMING:  # where the next call begins nobody knows (RFC 9112 6.3)
        response.force_close()
    return response


def _places(error: BaseException) -> list[str]:
    """Return where *error* was raised: files and lines, none of their values."""
    frames = traceback.extract_tb(error.__traceback__)
    return [f"{Path(frame.filename).name}:{frame.lineno}" for frame in frames]
