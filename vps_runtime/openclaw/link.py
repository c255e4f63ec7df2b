"""One connection to a running OpenClaw's gateway, over its WebSocket."""

import asyncio
import contextlib
import stat
import uuid
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import aiohttp

from bus_schemas.errors import ByokError, Refused
from vps_runtime.openclaw.protocol import (
    CHALLENGE,
    CONNECT,
    Event,
    Response,
    connect_params,
    read_frame,
    request,
    server_version,
)

_CONNECT_SECONDS = 20.0
_HEARTBEAT_SECONDS = 20.0
_MAX_FRAME = 8 * 1024 * 1024
"""Bytes; its greeting lists some hundred methods, its configuration may be long."""
_LOOPBACK = frozenset({"127.0.0.1", "::1", "localhost"})


@dataclass
class OpenClawUnreachable(ByokError):
    """Nothing that speaks OpenClaw's protocol answers; trying again may help."""

    detail: str

    def __str__(self) -> str:
        return self.detail


@dataclass
class OpenClawRefused(ByokError):
    """OpenClaw turned a request down and said why."""

    method: str
    why: str

    def __str__(self) -> str:
        return f"OpenClaw refused {self.method}: {self.why or 'it gave no reason'}"


@dataclass(frozen=True)
class Target:
    """Where OpenClaw's gateway is, and the file with its token."""

    url: str
    token_file: Path

    def checked_url(self) -> str:
        """Return the address. Raises Refused(`plain_address`): the token is as good as the keys."""
        parts = urlsplit(self.url)
        if parts.scheme == "wss" or (parts.scheme == "ws" and parts.hostname in _LOOPBACK):
            return self.url
        detail = f"{self.url}: OpenClaw's token travels to ws:// on this machine or to wss:// only"
        raise Refused("plain_address", detail)

    def token(self) -> str:
        """Return the token, read anew: it may have been changed. Raises Refused, OSError."""
        if self.token_file.stat().st_mode & (stat.S_IROTH | stat.S_IWOTH):
            detail = f"anybody may read {self.token_file}; run: chmod o= {self.token_file}"
            raise Refused("open_token", detail)
        token = self.token_file.read_text("utf-8").strip()
        if not token:
            raise Refused("no_token", f"{self.token_file} is empty; put OpenClaw's token there")
        return token


class Connection:
    """An open connection, signed in. Made by `connected`."""

    def __init__(self, socket: aiohttp.ClientWebSocketResponse) -> None:
        self._socket = socket
        self._waiting: dict[str, asyncio.Future[Response]] = {}
        self.version = ""
        """OpenClaw's."""

    async def ask(
        self, method: str, params: Mapping[str, Any] | None = None, *, seconds: float = 30.0
    ) -> Mapping[str, Any]:
        """Return what OpenClaw answers. Raises OpenClawRefused, OpenClawUnreachable."""
        id_ = str(uuid.uuid4())
        answer: asyncio.Future[Response] = asyncio.get_running_loop().create_future()
        self._waiting[id_] = answer
        try:
            async with asyncio.timeout(seconds):
                await self._socket.send_str(request(id_, method, params or {}))
                response = await answer
        except (TimeoutError, aiohttp.ClientError, ConnectionError) as error:
            why = "not in time" if isinstance(error, TimeoutError) else type(error).__name__
            raise OpenClawUnreachable(f"OpenClaw did not answer {method}: {why}") from None
        finally:
            del self._waiting[id_]
        if not response.ok:
            raise OpenClawRefused(method, response.error)
        return response.payload

    async def sign_in(self, token: str) -> None:
        """Wait for the challenge, then say who we are."""
        while True:
            frame = await self._next()
            if isinstance(frame, Event) and frame.name == CHALLENGE:
                break
        id_ = "connect"
        await self._socket.send_str(request(id_, CONNECT, connect_params(token)))
        while True:
            frame = await self._next()
            if isinstance(frame, Response) and frame.id == id_:
                break
        if not frame.ok:
            raise OpenClawRefused(CONNECT, frame.error)
        self.version = server_version(frame.payload)

    async def listen(self) -> None:
        """Hand answers to those who wait for them, until the connection ends.

        Raises OpenClawUnreachable, always.
        """
        try:
            while True:
                frame = await self._next()
                if isinstance(frame, Response):
                    waiting = self._waiting.get(frame.id)
                    if waiting and not waiting.done():
                        waiting.set_result(frame)
        except OpenClawUnreachable as error:
            for waiting in self._waiting.values():
                if not waiting.done():
                    waiting.set_exception(OpenClawUnreachable(error.detail))
            raise

    async def _next(self) -> Response | Event | None:
        message = await self._socket.receive()
        if message.type is aiohttp.WSMsgType.TEXT:
            return read_frame(message.data)
        if message.type is aiohttp.WSMsgType.BINARY:
            return None
        said = f"{self._socket.close_code or 'no reason'} {message.extra or ''}".strip()
        raise OpenClawUnreachable(f"OpenClaw closed the connection ({said})")


@contextlib.asynccontextmanager
async def connected(session: aiohttp.ClientSession, target: Target) -> AsyncIterator[Connection]:
    """Connect and sign in; whoever uses it also runs `listen`.

    Raises OpenClawUnreachable, OpenClawRefused, Refused, OSError (of the token's file).
    """
    token = await asyncio.to_thread(target.token)
    try:
        async with asyncio.timeout(_CONNECT_SECONDS):
            socket = await session.ws_connect(
                target.checked_url(),
                heartbeat=_HEARTBEAT_SECONDS,
                max_msg_size=_MAX_FRAME,
                autoclose=True,
            )
    except (aiohttp.ClientError, TimeoutError, ConnectionError) as error:
        detail = f"{target.url} does not answer ({type(error).__name__}); is OpenClaw running?"
        raise OpenClawUnreachable(detail) from None
    try:
        connection = Connection(socket)
        try:
            async with asyncio.timeout(_CONNECT_SECONDS):
                await connection.sign_in(token)
        except TimeoutError:
            raise OpenClawUnreachable(f"{target.url} did not let us in in time") from None
        yield connection
    finally:
        with contextlib.suppress(aiohttp.ClientError, ConnectionError):
            await socket.close()
