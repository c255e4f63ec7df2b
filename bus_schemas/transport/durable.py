"""Read a pre-made durable: how a subscriber gets its banners at its own pace, and acknowledges.

Any NATS client can do the same (`docs/events.md`); this is the one our commands use.
"""

import asyncio
import contextlib
import json
from collections.abc import AsyncGenerator, AsyncIterator
from dataclasses import dataclass

import nats.errors
import structlog
from nats.aio.msg import Msg

from bus_schemas.fields import at_utc
from bus_schemas.transport.connection import Bus
from bus_schemas.transport.target import BusUnavailable

_log = structlog.get_logger(__name__)

_BATCH = 100
_EXPIRES_SECONDS = 5.0
_GRACE_SECONDS = 1.0
_ACK_SECONDS = 5.0
_PAUSE_SECONDS = 0.5
_ENDED = ("404", "408")
"""A pull ends so as it should: there is nothing, or its time is over (NATS ADR-13)."""


@dataclass(frozen=True)
class Delivery:
    """One delivered message. Not acknowledged, it comes again after the durable's ack wait."""

    subject: str
    sequence: int
    """In the stream."""
    stored_at: str
    """RFC 3339, UTC: when the stream took it."""
    data: bytes
    _bus: Bus
    _reply: str

    async def ack(self) -> None:
        """Acknowledge and wait until the server has it. Raises BusUnavailable."""
        await self._bus.request(self._reply, b"+ACK", wait=_ACK_SECONDS)


async def deliveries(bus: Bus, stream: str, durable: str) -> AsyncGenerator[Delivery]:
    """Yield messages for ever. Each pull is short, so a restarted server is noticed soon."""
    while True:
        try:
            async with contextlib.aclosing(_pulls(bus, stream, durable)) as messages:
                async for message in messages:
                    yield _delivery(bus, message)
        except BusUnavailable as error:
            _log.warning("durable_waits", durable=durable, error=str(error))
            await asyncio.sleep(_PAUSE_SECONDS)


async def _pulls(bus: Bus, stream: str, durable: str) -> AsyncGenerator[Msg]:
    """Yield what pull after pull brings to one inbox. Raises BusUnavailable when one breaks off.

    The inbox outlives the single pull: a message that came to one already left behind would be
    lost until the durable's ack wait is over.
    """
    client = await bus.client()
    inbox = client.new_inbox()
    replies: asyncio.Queue[Msg] = asyncio.Queue()

    async def collect(message: Msg) -> None:
        replies.put_nowait(message)

    subject = f"{bus.api}.CONSUMER.MSG.NEXT.{stream}.{durable}"
    request = json.dumps({"batch": _BATCH, "expires": int(_EXPIRES_SECONDS * 1e9)}).encode()
    try:
        subscription = await client.subscribe(inbox, cb=collect)
        try:
            while True:
                await client.publish(subject, request, reply=inbox)
                async for message in _until_status(replies, inbox):
                    yield message
        finally:
            with contextlib.suppress(nats.errors.Error, OSError):
                await subscription.unsubscribe()
    except (TimeoutError, nats.errors.Error, OSError) as error:
        raise BusUnavailable(f"pulling {durable} broke off: {type(error).__name__}") from error


async def _until_status(replies: "asyncio.Queue[Msg]", inbox: str) -> AsyncIterator[Msg]:
    """Yield a pull's messages until it is full or ends. Raises TimeoutError, BusUnavailable."""
    for _ in range(_BATCH):
        async with asyncio.timeout(_EXPIRES_SECONDS + _GRACE_SECONDS):
            reply = await replies.get()
        if reply.subject != inbox:  # a delivery keeps the subject it was stored on
            yield reply
            continue
        status = (reply.headers or {}).get("Status", "")
        if status in _ENDED:
            return
        raise BusUnavailable(f"the pull ended with status {status}")


def _delivery(bus: Bus, message: Msg) -> Delivery:
    # $JS.ACK.<stream>.<durable>.<delivered>.<stream sequence>.<consumer sequence>.<time>.<pending>
    tokens = message.reply.split(".")
    stored_at = at_utc(int(tokens[-2]) / 1e9).isoformat(timespec="microseconds")
    return Delivery(message.subject, int(tokens[-4]), stored_at, message.data, bus, message.reply)
