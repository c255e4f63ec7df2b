"""Server-sent events (HTML Living Standard, 9.2): a snapshot, then whatever changes.

`id` is the sequence in BYOK_BANNERS. A client that comes back with its last id hears the newest
state of each banner that changed meanwhile; if the gap cannot be bridged it hears `resync` and a
whole snapshot. Every frame is made for one owner from that owner's part of the board.
"""

import asyncio
import contextlib
import time
from collections.abc import AsyncGenerator, Awaitable, Callable
from dataclasses import dataclass

from starlette.requests import Request
from starlette.types import Receive, Scope, Send

from platform_handlers.banner.board import Entry
from platform_handlers.banner.feed import Feed, Listener
from platform_handlers.banner.view import list_of, view_of
from platform_handlers.dashboard.problems import ProblemError

HEARTBEAT_SECONDS = 15.0
_SEND_SECONDS = 30.0
"""A client that takes nothing for so long is gone, or holds us up on purpose."""
_MAX_CURSOR_DIGITS = 15


@dataclass(frozen=True)
class Audience:
    """Who hears a stream, from where on, and for how long."""

    owner_id: str
    cursor: int | None
    """None asks for the snapshot."""
    still_welcome: Callable[[], Awaitable[bool]]
    """Asked at each heartbeat: a revoked token must not go on listening."""


def cursor_of(request: Request) -> int | None:
    """Return where to resume. Raises ProblemError 400.

    `Last-Event-ID` wins: a browser that reconnects repeats the query it first came with.
    """
    text = request.headers.get("last-event-id") or request.query_params.get("cursor")
    if text is None:
        return None
    if not (text.isascii() and text.isdigit() and len(text) <= _MAX_CURSOR_DIGITS):
        raise ProblemError(
            400,
            "bad-cursor",
            "Not a cursor",
            "A cursor is the `id` of an event of this stream: digits only. "
            "Leave it out to begin with a snapshot.",
        )
    return int(text)


async def frames(
    feed: Feed, audience: Audience, *, heartbeat: float = HEARTBEAT_SECONDS
) -> AsyncGenerator[bytes, None]:
    """Yield the stream for *audience*, for ever or until it is no longer welcome or too slow.

    Raises TooManyListeners before the first frame.
    """
    with feed.listen(audience.owner_id) as listener:
        yield opening(feed, audience)
        due = time.monotonic() + heartbeat
        while True:
            if time.monotonic() >= due:  # by the clock: news without end must not put it off
                if not await audience.still_welcome():
                    return
                due = time.monotonic() + heartbeat
                yield b": still here\n\n"
            try:
                entry = await _next(listener, due - time.monotonic())
            except TimeoutError:
                continue
            if entry is None:
                yield frame("resync", '{"reason":"too slow"}')
                return
            yield _told(entry)


def opening(feed: Feed, audience: Audience) -> bytes:
    """Return the first frames: what the client missed, or everything."""
    board, owner, cursor = feed.board, audience.owner_id, audience.cursor
    begin = b"retry: 2000\n\n"
    missed = None if cursor is None else board.since(owner, cursor)
    if missed is not None:
        return begin + b"".join(map(_told, missed))
    if cursor is not None:
        begin += frame("resync", '{"reason":"the gap is older than the stream"}')
    return begin + frame("snapshot", list_of(board, owner).model_dump_json(), board.cursor)


def frame(event: str, data: str, sequence: int | None = None) -> bytes:
    """Return one event; *data* is JSON on one line."""
    id_ = "" if sequence is None else f"id: {sequence}\n"
    return f"event: {event}\n{id_}data: {data}\n\n".encode()


def _told(entry: Entry) -> bytes:
    return frame("banner", view_of(entry).model_dump_json(), entry.sequence)


async def _next(listener: Listener, seconds: float) -> Entry | None:
    async with asyncio.timeout(seconds):
        return await listener.next()


class EventStream:
    """The ASGI answer that sends frames until they end or the client is gone."""

    def __init__(
        self, source: AsyncGenerator[bytes, None], first: bytes, closing: asyncio.Event
    ) -> None:
        """*first* was taken from *source* already, so that refusals could still be told.

        *closing* ends the stream from our side; browsers come back by themselves.
        """
        self._source = source
        self._first = first
        self._closing = closing

    async def __call__(self, _: Scope, receive: Receive, send: Send) -> None:
        """Send for as long as the client listens."""
        await send(
            {
                "type": "http.response.start",
                "status": 200,
                "headers": [
                    (b"content-type", b"text/event-stream; charset=utf-8"),
                    (b"x-accel-buffering", b"no"),
                ],
            }
        )
        tasks = {
            asyncio.create_task(self._send_all(send)),
            asyncio.create_task(_until_gone(receive)),
            asyncio.create_task(self._closing.wait()),
        }
        try:
            await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
        with contextlib.suppress(OSError):
            await send({"type": "http.response.body", "body": b"", "more_body": False})

    async def _send_all(self, send: Send) -> None:
        async with contextlib.aclosing(self._source) as source:
            with contextlib.suppress(OSError, TimeoutError):  # the client went away
                await _send_one(send, self._first)
                async for chunk in source:
                    await _send_one(send, chunk)


async def _send_one(send: Send, chunk: bytes) -> None:
    async with asyncio.timeout(_SEND_SECONDS):
        await send({"type": "http.response.body", "body": chunk, "more_body": True})


async def _until_gone(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass
