"""Waiting for what a stream says, woken by the stream itself."""

import asyncio
from collections.abc import Callable
from contextlib import aclosing

from bus_schemas.codec import decode
from bus_schemas.event import Event
from bus_schemas.streams import Stream
from bus_schemas.transport.connection import Bus
from bus_schemas.transport.follow import follow
from bus_schemas.transport.jetstream import StoredMessage


async def messages_once(
    bus: Bus,
    stream: Stream,
    enough: Callable[[list[StoredMessage]], object],
    *,
    seconds: float = 10,
) -> list[StoredMessage]:
    """Return all messages of *stream* once they are *enough*. Raises TimeoutError.

    The role of *bus* must be one that reads the whole stream.
    """
    found: list[StoredMessage] = []
    async with asyncio.timeout(seconds), aclosing(follow(bus, stream, 1)) as batches:
        async for batch in batches:
            found += batch
            if enough(found):
                break
    return found


def events_of(messages: list[StoredMessage]) -> list[Event]:
    """Return what *messages* say."""
    return [decode(message.data, message.subject).data for message in messages]
