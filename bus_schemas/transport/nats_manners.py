"""How to get along with nats-py: headers, reconnecting, closing, and what asyncio says of it."""

import asyncio
import contextlib
import logging
import random
import ssl
from collections.abc import Callable
from typing import Any

import nats.errors
from nats.aio.client import Client, Server

from bus_schemas.transport.target import BusDenied

FIRST_DELAY = 0.1
LONGEST_DELAY = 15.0
"""Seconds between attempts to reconnect, doubled each time."""
LONGEST_REFUSED_DELAY = 900.0
"""The same where our token is refused: only another token helps."""
_CANCEL_AGAIN_SECONDS = 0.1
_CLOSE_SECONDS = 5.0


class SturdyClient(Client):
    """A client whom no sender can silence, and who looks at each handshake whom to trust.

    nats-py reads the status in a message's first header line as UTF-8; what is none ends its read
    loop without a word. Any tenant could so deafen every handler, again and again from the ledger.
    """

    def __init__(self, trust: Callable[[], ssl.SSLContext]) -> None:
        """*trust* makes the TLS context anew, from a file that may have got another CA by now."""
        super().__init__()
        self._trust = trust

    @property
    def ssl_context(self) -> ssl.SSLContext:
        """Return whom to trust in the next handshake; a damaged file leaves it as it was."""
        with contextlib.suppress(BusDenied):
            self.options["tls"] = self._trust()
        context: ssl.SSLContext = self.options["tls"]
        return context

    async def hang_up(self) -> None:
        """Close the socket, whatever nats-py believes.

        It closes a client whose token is refused by itself; cancelled in that, it takes the client
        for closed and leaves the socket open.
        """
        if self._transport is not None:
            self._transport.close()  # type: ignore[no-untyped-call]
            with contextlib.suppress(OSError):
                await self._transport.wait_closed()  # type: ignore[no-untyped-call]

    async def _process_headers(self, headers: bytes) -> dict[str, str] | None:
        try:
            return await super()._process_headers(headers)
        except (ValueError, IndexError):  # the first line is no status of the server's: pass it by
            return self._parse_header_lines(headers.partition(b"\r\n")[2])


def is_useful(record: logging.LogRecord) -> bool:
    """Drop what asyncio says at the end of every connection.

    nats-py turns a plain stream into TLS by hand, so asyncio takes it for a plain one still and
    warns that its answer to the end of the stream "has no effect when using ssl".
    """
    return "returning true from eof_received()" not in str(record.msg)


def jittered(servers: list[Server], _info: dict[str, Any]) -> tuple[Server, float]:
    """Spread a fleet's reconnects: nats-py itself adds no jitter."""
    server = servers[0]
    longest = min(FIRST_DELAY * 2 ** min(server.reconnects, 10), LONGEST_DELAY)
    return server, random.uniform(0, longest)  # noqa: S311 (jitter)


async def ended(task: asyncio.Task[None]) -> None:
    """Cancel *task*, again and again, until it ends.

    nats-py tries to connect for ever, and `asyncio.wait_for` of Python 3.11 forgets a
    cancellation that comes in the same moment as what it waits for.
    """
    while not task.done():
        task.cancel()
        await asyncio.wait({task}, timeout=_CANCEL_AGAIN_SECONDS)
    if not task.cancelled():
        task.exception()  # heard; nobody else will ask


async def shut(client: Client) -> None:
    """Drain and close *client*, within a few seconds even if the server has fallen silent.

    In a task of its own: a reconnect that closing cancels leaves a cancelled future behind, and
    who waits for that (`close` does) seems to have been cancelled too.
    """
    closing = asyncio.create_task(_drain_and_close(client))
    try:
        await asyncio.wait({closing}, timeout=_CLOSE_SECONDS)
    finally:
        await ended(closing)


async def _drain_and_close(client: Client) -> None:
    """Drain if that is possible, close in any case (drain raises while reconnecting)."""
    with contextlib.suppress(nats.errors.Error, TimeoutError, OSError):
        if client.is_connected:
            await client.drain()
    with contextlib.suppress(nats.errors.Error, TimeoutError, OSError):
        await client.close()
    if isinstance(client, SturdyClient):
        await client.hang_up()
