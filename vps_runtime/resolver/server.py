"""Serves keys on a Unix socket, to one user, inside a window that we open ourselves."""

import asyncio
import contextlib
import json
import os
from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass
from pathlib import Path

import structlog

from bus_schemas.errors import ByokError
from vps_runtime.local_access import peer_uid
from vps_runtime.resolver.delivery import Delivery
from vps_runtime.resolver.rules import (
    MAX_REQUEST,
    Asked,
    Current,
    Window,
    answer,
    read_request,
    sort,
)

_log = structlog.get_logger(__name__)

_SECONDS = 4.0
"""For one request; OpenClaw waits 5 s for all of it."""
_AT_ONCE = 8
_RETRY_SECONDS = 5.0
_BEAT_SECONDS = 60.0


@dataclass(frozen=True)
class Door:
    """Where keys are asked for, and by whom."""

    path: Path
    """Of the socket; its folder is ours."""
    user: int
    """Whose processes are answered: the one that the agent runs as."""


class Resolver:
    """The server of the exec protocol. Nothing leaves it while no window is open."""

    def __init__(
        self,
        door: Door,
        delivery: Delivery,
        current: Current,
        known: Callable[[], Collection[str]],
    ) -> None:
        """*known* returns all slots of this server, with or without a usable key."""
        self._door = door
        self._delivery = delivery
        self._current = current
        self._known = known
        self._window: Window | None = None
        self._checks: set[str] = set()
        self._at_once = asyncio.Semaphore(_AT_ONCE)
        self._strangers: set[int] = set()
        self._on_missed: list[Callable[[], None]] = []
        self.listening = asyncio.Event()
        """Set once the socket is there."""

    def on_missed(self, callback: Callable[[], None]) -> None:
        """Call *callback* when a usable key was asked for while no window was open."""
        self._on_missed.append(callback)

    @contextlib.contextmanager
    def open_window(self) -> Iterator[Window]:
        """Give keys out, each once, until the block ends."""
        window = self._window = Window()
        try:
            yield window
        finally:
            self._window = None

    @contextlib.contextmanager
    def checked(self, slot_id: str) -> Iterator[None]:
        """Answer the next request for *slot_id* with a word that is no key, until the block ends.

        OpenClaw's probe of a profile first runs the resolver to see that it answers; the call it
        then makes has the key of the last reload. Nothing leaves, whoever asks. If that is a reload
        of its own, the probe's request comes second and is missed, so ours follows.
        """
        self._checks.add(slot_id)
        try:
            yield
        finally:
            self._checks.discard(slot_id)

    async def run(self) -> None:
        """Serve until cancelled; a socket that cannot be made is said, and tried again."""
        path, said, server = self._door.path, "", None
        try:
            while True:
                try:
                    server = server or await self._listen(path)
                except OSError as error:
                    reason = error.strerror or type(error).__name__
                    if reason != said:
                        _log.warning("resolver_socket_not_there", path=str(path), reason=reason)
                    said = reason
                await asyncio.sleep(_BEAT_SECONDS if server else _RETRY_SECONDS)
        finally:
            if server:
                server.close()
                path.unlink(missing_ok=True)

    async def _listen(self, path: Path) -> asyncio.Server:
        server = await asyncio.start_unix_server(self._met, path)
        self._let_near(path)
        self.listening.set()
        return server

    def _let_near(self, path: Path) -> None:
        """Let the agent's user reach the socket: `_met` says who is answered."""
        path.chmod(0o600 if self._door.user == os.geteuid() else 0o666)

    async def _met(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(OSError, TimeoutError):
            uid = peer_uid(writer.get_extra_info("socket"))
            if uid != self._door.user:
                self._turned_away(uid)
            elif not self._at_once.locked():  # nobody queues: each would cost a descriptor
                async with self._at_once, asyncio.timeout(_SECONDS):
                    writer.write(await self._answer(await _whole(reader)))
                    await writer.drain()
        writer.close()

    def _turned_away(self, uid: int) -> None:
        if uid not in self._strangers:  # once: a stranger must not fill the log
            self._strangers.add(uid)
            _log.warning("resolver_stranger", uid=uid)

    async def _answer(self, raw: bytes) -> bytes:
        request = read_request(raw)
        if request is None:
            return b""
        asked = await self._given(request.ids)
        if asked.missed:
            for callback in self._on_missed:
                callback()
        return json.dumps(answer(asked)).encode()

    async def _given(self, ids: tuple[str, ...]) -> Asked:
        """Return what is answered. It is noted before it leaves: a kill may come in between."""
        window = self._window
        asked = sort(ids, self._known(), self._current, window, self._checks)
        try:
            await self._delivery.giving(asked.revisions())
        except ByokError as error:
            _log.warning("resolver_cannot_note", error=str(error))
            return Asked({}, asked.revoked, frozenset(), asked.ids, asked.checked)
        still = {
            secret: key
            for secret, key in asked.keys.items()
            if window is self._window and self._current(key.slot_id) == key
        }  # an order or a promotion may have come while it was noted; then it is asked for anew
        return Asked(still, asked.revoked, asked.missed, asked.ids, asked.checked)


async def _whole(reader: asyncio.StreamReader) -> bytes:
    """Return all that is sent up to its end; nothing if that is too much."""
    raw = b""
    while chunk := await reader.read(MAX_REQUEST):
        raw += chunk
        if len(raw) > MAX_REQUEST:
            return b""
    return raw
