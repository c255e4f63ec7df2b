"""Read a pre-made durable: how a subscriber gets its banners at its own pace, and acknowledges.

Any NATS client can do the same (`docs/events.md`); this is the one our commands use.
"""

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator
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


async def deliveries(bus: Bus, stream: str, durable: str) -> AsyncIterator[Delivery]:
    """Yield messages for ever. Each pull is short, so a restarted server is noticed soon."""
    while True:
        try:
            batch = await _pull(bus, stream, durable)
        except BusUnavailable as error:
            _log.warning("durable_waits", durable=durable, error=str(error))
            await asyncio.sleep(_PAUSE_SECONDS)
            continue
        for message in batch:
            yield _delivery(bus, message)


async def _pull(bus: Bus, stream: str, durable: str) -> list[Msg]:
    """Return what is there, waiting a little for the first message."""
    client = await bus.client()
    inbox = client.new_inbox()
    replies: asyncio.Queue[Msg] = asyncio.Queue()

    async def collect(message: Msg) -> None:
        replies.put_nowait(message)

    request = {"batch": _BATCH, "expires": int(_EXPIRES_SECONDS * 1e9)}
    try:
        subscription = await client.subscribe(inbox, cb=collect)
        try:
            subject = f"{bus.api}.CONSUMER.MSG.NEXT.{stream}.{durable}"
            await client.publish(subject, json.dumps(request).encode(), reply=inbox)
            async with asyncio.timeout(_EXPIRES_SECONDS + _GRACE_SECONDS):
                return await _some(replies)
        finally:
            with contextlib.suppress(nats.errors.Error, OSError):
                await subscription.unsubscribe()
    except (TimeoutError, nats.errors.Error, OSError) as error:
        raise BusUnavailable(f"pulling {durable} broke off: {type(error).__name__}") from error


async def _some(replies: "asyncio.Queue[Msg]") -> list[Msg]:
    """Return the first message and whatever came with it; [] when the pull ran out."""
    batch: list[Msg] = []
    while not batch or not replies.empty():
        reply = await replies.get()
        if (reply.headers or {}).get("Status"):
            return batch
        batch.append(reply)
    return batch


def _delivery(bus: Bus, message: Msg) -> Delivery:
    # $JS.ACK.<stream>.<durable>.<delivered>.<stream sequence>.<consumer sequence>.<time>.<pending>
    tokens = message.reply.split(".")
    stored_at = at_utc(int(tokens[-2]) / 1e9).isoformat(timespec="microseconds")
    return Delivery(message.subject, int(tokens[-4]), stored_at, message.data, bus, message.reply)
