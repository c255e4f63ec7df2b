"""How to get along with nats-py: reconnecting, closing, and what it makes asyncio say."""

import contextlib
import logging
import random
from typing import Any

import nats.errors
from nats.aio.client import Client, Server

FIRST_DELAY = 0.1
LONGEST_DELAY = 15.0
"""Seconds between attempts to reconnect, doubled each time."""


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


async def shut(client: Client) -> None:
    """Drain if that is possible, close in any case (drain raises while reconnecting)."""
    with contextlib.suppress(nats.errors.Error, TimeoutError, OSError):
        if client.is_connected:
            await client.drain()
    with contextlib.suppress(nats.errors.Error, TimeoutError, OSError):
        await client.close()
