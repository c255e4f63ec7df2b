"""Events wait in the sender's own database until the bus has them: nothing said is ever lost."""

import asyncio
import contextlib
import math
import time
from collections.abc import Iterable

import aiosqlite
import structlog

from bus_schemas.codec import encode
from bus_schemas.envelope import Envelope
from bus_schemas.event import Event
from bus_schemas.transport.back_off import BackOff
from bus_schemas.transport.connection import Bus
from bus_schemas.transport.database import StorageFull, fetch_one, transaction
from bus_schemas.transport.jetstream import Later, StreamError, Unusable, store_raw
from bus_schemas.transport.target import BusUnavailable
from bus_schemas.transport.wake import woken

_log = structlog.get_logger(__name__)

OUTBOX_SCHEMA = """
CREATE TABLE IF NOT EXISTS outbox (
    position INTEGER PRIMARY KEY AUTOINCREMENT,
    subject TEXT NOT NULL,
    event_id TEXT NOT NULL,
    body BLOB NOT NULL
) STRICT;
CREATE TABLE IF NOT EXISTS outbox_held (
    only_row INTEGER PRIMARY KEY CHECK (only_row = 1),
    until INTEGER NOT NULL,
    reason TEXT NOT NULL
) STRICT;
"""
"""`outbox_held` has a row while the platform takes no more: until when (Unix time) and why."""

_FIRST_PAUSE = 0.2
_LONGEST_PAUSE = 15.0
_SHORTEST_HOLD = 300
"""Seconds. Asking more often only uses up what grows back."""
_LONGEST_HOLD = 3600
_LOOK_ANYWAY_SECONDS = 30.0
"""An idle pump still takes a step now and then: `pulse` tells it from one that is stuck."""


async def put(database: aiosqlite.Connection, envelopes: Iterable[Envelope[Event]]) -> None:
    """Add *envelopes* inside the caller's transaction, together with the state they tell of."""
    await database.executemany(
        "INSERT INTO outbox (subject, event_id, body) VALUES (?, ?, ?)",
        [(e.data.subject, e.id, encode(e)) for e in envelopes],
    )


async def depth(database: aiosqlite.Connection) -> int:
    """Return how many events wait."""
    row = await fetch_one(database, "SELECT count(*) FROM outbox")
    return int(row[0]) if row else 0


class OutboxPump:
    """Sends what the outbox holds, in order, for as long as it takes.

    One event is in flight at a time unless *in_flight* says more: a server's facts are ordered
    by (incarnation, n), so one that arrived behind its successor would be ignored. A failed
    batch is sent again whole; `Nats-Msg-Id` and the facts' own order make repeats harmless.
    """

    def __init__(self, database: aiosqlite.Connection, bus: Bus, *, in_flight: int = 1) -> None:
        self._database = database
        self._bus = bus
        self._in_flight = in_flight
        self._wake = asyncio.Event()
        self._empty = asyncio.Event()

    def wake(self) -> None:
        """Say that the outbox has something new."""
        self._empty.clear()
        self._wake.set()

    async def drained(self) -> None:
        """Wait until everything is with the bus."""
        await self._empty.wait()

    async def run(self) -> None:
        """Send for ever; cancel to stop. Trouble on the way is retried with jittered back-off."""
        back_off = BackOff(first=_FIRST_PAUSE, longest=_LONGEST_PAUSE)
        while True:
            self._wake.clear()
            try:
                while await self._send_batch():
                    back_off.over()
            except Later as refusal:
                await self._hold(_held_seconds(refusal), refusal)
                continue
            except (BusUnavailable, StreamError, StorageFull) as error:
                pause = back_off.pause()
                _log.warning("outbox_waits", error=str(error), seconds=round(pause, 1))
                await asyncio.sleep(pause)
                continue
            self._empty.set()
            await woken(self._wake, _LOOK_ANYWAY_SECONDS)

    async def _send_batch(self) -> bool:
        query = "SELECT position, subject, event_id, body FROM outbox ORDER BY position LIMIT ?"
        async with transaction(self._database):  # sees committed events only
            rows = await self._database.execute_fetchall(query, (self._in_flight,))
        batch = list(rows)
        if not batch:
            return False
        await self._bus.client()  # an outage is the connection's to tell, once
        await asyncio.gather(*(self._send(*row) for _, *row in batch))
        async with transaction(self._database):
            await self._database.execute("DELETE FROM outbox WHERE position <= ?", (batch[-1][0],))
            await self._database.execute("DELETE FROM outbox_held")
        return True

    async def _send(self, subject: str, event_id: str, body: bytes) -> None:
        """Store one event. One that is never taken must not stand in the way of the others."""
        try:
            await store_raw(self._bus, subject, event_id, body)
        except Unusable as refusal:
            _log.error("event_dropped", subject=subject, id=event_id, reason=refusal.description)

    async def _hold(self, seconds: float, refusal: Later) -> None:
        """Keep what waits for *seconds*; `outbox_held` says so to whoever asks."""
        _log.warning("outbox_held", reason=refusal.description, seconds=round(seconds))
        until = int(time.time() + seconds)
        with contextlib.suppress(StorageFull):  # no more than a word for people
            async with transaction(self._database):
                await self._database.execute(
                    "INSERT OR REPLACE INTO outbox_held VALUES (1, ?, ?)",
                    (until, refusal.description),
                )
        steps = math.ceil(seconds / _LOOK_ANYWAY_SECONDS)
        for _ in range(steps):
            await asyncio.sleep(seconds / steps)


def _held_seconds(refusal: Later) -> float:
    return float(min(max(refusal.seconds, _SHORTEST_HOLD), _LONGEST_HOLD))
