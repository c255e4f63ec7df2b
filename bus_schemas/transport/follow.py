"""Follow a stream from a sequence on, without a consumer.

At the head the reader subscribes for exactly one nudge (`max_msgs = 1`), so the wait costs the
server one message however busy the stream is. The nudge is nats-server's own word that a message
was stored, and where. Only a replica that lags may not have it yet: then the read is repeated a few
times. Because nudges can be lost, the head is looked at every few seconds anyway.
"""

import asyncio
import contextlib
from collections.abc import AsyncGenerator

import nats.errors
import structlog
from nats.aio.msg import Msg

from bus_schemas.streams import Stream
from bus_schemas.transport.connection import Bus
from bus_schemas.transport.jetstream import SEQUENCE, StoredMessage, read_batch
from bus_schemas.transport.target import BusUnavailable
from bus_schemas.transport.wake import woken

_log = structlog.get_logger(__name__)

BATCH = 512
_RETRIES_AFTER_NUDGE = (0.001, 0.002, 0.004, 0.008, 0.016, 0.032, 0.064, 0.128)
_LOOK_ANYWAY_SECONDS = 5.0
_DIGITS = 20
"""No sequence has so many; longer ones are slow to read."""
_BACK_OFF_SECONDS = 0.5


async def follow(
    bus: Bus, stream: Stream, start: int, *, size: int = BATCH
) -> AsyncGenerator[list[StoredMessage], None]:
    """Yield batches in stream order from sequence *start* on, for ever.

    An empty list is yielded once whenever the head is reached, so a caller can tell "caught up".
    Trouble with the bus is waited out; nothing is skipped.
    """
    position = start
    nudge = _Nudge(bus, stream)
    try:
        while True:
            try:
                batch = await _next_batch(bus, stream, position, size, nudge)
            except BusUnavailable as error:
                _log.warning("follow_waits", stream=stream.name, error=str(error))
                await asyncio.sleep(_BACK_OFF_SECONDS)
                continue
            if batch:
                position = batch[-1].sequence + 1
            yield batch
            if not batch:
                await nudge.wait()
    finally:
        await nudge.stop()


async def _next_batch(
    bus: Bus, stream: Stream, position: int, size: int, nudge: "_Nudge"
) -> list[StoredMessage]:
    """Read on; at the head arm the nudge first and look once more, which closes the race."""
    batch = await read_batch(bus, stream.name, position, size)
    if batch:
        return batch
    lags = nudge.take() >= position
    await nudge.arm()
    for pause in (0.0, *(_RETRIES_AFTER_NUDGE if lags else ())):
        await asyncio.sleep(pause)
        batch = await read_batch(bus, stream.name, position, size)
        if batch:
            return batch
    return []


class _Nudge:
    """One pending wake-up over all that a stream keeps."""

    def __init__(self, bus: Bus, stream: Stream) -> None:
        self._bus = bus
        self._stream = stream
        self._rang = asyncio.Event()
        self._stored = 0
        self._armed: list[object] = []
        bus.on_ready(self._rang.set)  # after a reconnect anything may have been missed

    def take(self) -> int:
        """Return the sequence that was told since the last time; 0 for none."""
        stored, self._stored = self._stored, 0
        self._rang.clear()
        return stored

    async def arm(self) -> None:
        """Subscribe for one message."""
        await self.stop()

        async def ring(message: Msg) -> None:
            self._stored = max(self._stored, _sequence(message))
            self._rang.set()

        client = await self._bus.client()
        try:
            for subject in self._stream.nudges:
                subscription = await client.subscribe(subject, cb=ring)
                await subscription.unsubscribe(limit=1)
                self._armed.append(subscription)
            # No flush: the read that follows on this connection comes after the subscriptions,
            # and a cancelled flush makes nats-py drop the connection at the PONG.
        except (nats.errors.Error, TimeoutError, OSError) as error:
            raise BusUnavailable(f"cannot listen on {self._stream.name}") from error

    async def wait(self) -> None:
        """Wait until it rings, or a few seconds."""
        await woken(self._rang, _LOOK_ANYWAY_SECONDS)

    async def stop(self) -> None:
        """Forget what was armed."""
        for subscription in self._armed:
            with contextlib.suppress(nats.errors.Error, OSError):
                await subscription.unsubscribe()  # type: ignore[attr-defined]
        self._armed.clear()


def _sequence(message: Msg) -> int:
    """Return where the message lies that a nudge tells of; 0 where it does not say.

    In a stream that servers write to, a header of theirs may stand in nats-server's place: a wrong
    number costs a few reads.
    """
    told = (message.headers or {}).get(SEQUENCE, "")
    return int(told) if told.isascii() and told.isdecimal() and len(told) < _DIGITS else 0
