"""Publish banner events: one outstanding per banner, many banners at once.

Two handlers may announce the same banner. Each write says which message it follows; on a conflict
the subject's last message tells whether the other handler has said it already.
"""

import asyncio
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import aiosqlite
import structlog

from bus_schemas.codec import decode, encode
from bus_schemas.envelope import Envelope
from bus_schemas.errors import ContractError
from bus_schemas.event import Event
from bus_schemas.events import BannerEvent
from bus_schemas.streams import BANNERS
from bus_schemas.transport.connection import Bus
from bus_schemas.transport.database import StorageFull, fetch_one, transaction
from bus_schemas.transport.jetstream import (
    Conflict,
    Expect,
    StoredMessage,
    StreamError,
    read_last,
    store_raw,
)
from bus_schemas.transport.target import BusUnavailable
from bus_schemas.transport.wake import woken

_log = structlog.get_logger(__name__)

ANNOUNCEMENTS_SCHEMA = """
CREATE TABLE IF NOT EXISTS announcements (
    position INTEGER PRIMARY KEY AUTOINCREMENT,
    subject TEXT NOT NULL, event_id TEXT NOT NULL, revision INTEGER NOT NULL, body BLOB NOT NULL
) STRICT;
CREATE TABLE IF NOT EXISTS announced (
    subject TEXT PRIMARY KEY, sequence INTEGER NOT NULL, revision INTEGER NOT NULL
) STRICT, WITHOUT ROWID;
"""

_AT_ONCE = 256
_PAUSE_SECONDS = 0.5
_ATTEMPTS = 5
_LOOK_ANYWAY_SECONDS = 30.0
"""An idle announcer still takes a step now and then: `pulse` tells it from one that is stuck."""


async def enqueue(database: aiosqlite.Connection, envelopes: Iterable[Envelope[Event]]) -> None:
    """Queue banner events inside the caller's transaction."""
    await database.executemany(
        "INSERT INTO announcements (subject, event_id, revision, body) VALUES (?, ?, ?, ?)",
        [
            (envelope.data.subject, envelope.id, envelope.data.revision, encode(envelope))
            for envelope in envelopes
            if isinstance(envelope.data, BannerEvent)
        ],
    )


@dataclass(frozen=True)
class _Announcement:
    position: int
    subject: str
    event_id: str
    revision: int
    body: bytes


@dataclass(frozen=True)
class _Last:
    """The newest event known to be on a banner's subject."""

    sequence: int = 0
    revision: int = 0


class Announcer:
    """Drains the queue of announcements into the banner stream."""

    def __init__(self, database: aiosqlite.Connection, bus: Bus) -> None:
        self._database = database
        self._bus = bus
        self._wake = asyncio.Event()

    def wake(self) -> None:
        """Say that something was queued."""
        self._wake.set()

    async def run(self) -> None:
        """Announce for ever; cancel to stop."""
        while True:
            self._wake.clear()
            try:
                while queued := await self._queued():
                    await self._announce(queued)
            except (BusUnavailable, StreamError, Conflict, StorageFull) as error:
                _log.warning("announcer_waits", error=str(error))
                await asyncio.sleep(_PAUSE_SECONDS)
                continue
            await woken(self._wake, _LOOK_ANYWAY_SECONDS)

    async def _queued(self) -> list[_Announcement]:
        query = "SELECT * FROM announcements ORDER BY position LIMIT ?"
        async with transaction(self._database):  # sees committed announcements only
            rows = await self._database.execute_fetchall(query, (_AT_ONCE,))
        return [_Announcement(*row) for row in rows]

    async def _announce(self, queued: Sequence[_Announcement]) -> None:
        by_subject: dict[str, list[_Announcement]] = {}
        for item in queued:
            by_subject.setdefault(item.subject, []).append(item)
        last = await self._last_announced(by_subject)
        done = await asyncio.gather(
            *(self._one_banner(items, last[subject]) for subject, items in by_subject.items()),
            return_exceptions=True,
        )
        reached = {
            subject: result
            for subject, result in zip(by_subject, done, strict=True)
            if isinstance(result, _Last)
        }
        finished = [(item.position,) for subject in reached for item in by_subject[subject]]
        async with transaction(self._database):
            await self._database.executemany(
                "INSERT OR REPLACE INTO announced VALUES (?, ?, ?)",
                [(subject, last.sequence, last.revision) for subject, last in reached.items()],
            )
            delete = "DELETE FROM announcements WHERE position = ?"
            await self._database.executemany(delete, finished)
        for result in done:
            if isinstance(result, BaseException):
                raise result

    async def _last_announced(self, subjects: Iterable[str]) -> dict[str, _Last]:
        last = dict.fromkeys(subjects, _Last())
        for subject in last:
            query = "SELECT sequence, revision FROM announced WHERE subject = ?"
            if row := await fetch_one(self._database, query, (subject,)):
                last[subject] = _Last(*row)
        return last

    async def _one_banner(self, items: Sequence[_Announcement], last: _Last) -> _Last:
        """Publish one banner's events in order; return the last on its subject."""
        for item in items:
            last = await self._publish(item, last)
        return last

    async def _publish(self, item: _Announcement, last: _Last) -> _Last:
        """Publish *item* unless it, or something newer, is there already.

        A rebuilt handler comes upon this: what it folds anew was said long before, so it must not
        be said again behind newer events, however long ago the stream last saw the ids.
        """
        for _ in range(_ATTEMPTS):
            if last.revision >= item.revision:
                return last
            try:
                expect = Expect(last_on_subject=last.sequence)
                stored = await store_raw(self._bus, item.subject, item.event_id, item.body, expect)
            except Conflict:
                there = await read_last(self._bus, BANNERS.name, item.subject)
                last = _Last(there.sequence, _revision(there)) if there else _Last()
            else:
                return _Last(stored, item.revision)
        raise Conflict(item.subject)


def _revision(message: StoredMessage) -> int:
    """Return the revision of a banner event; 0 for what is none, so that it is written over."""
    try:
        event = decode(message.data, message.subject).data
    except ContractError:
        return 0
    return event.revision if isinstance(event, BannerEvent) else 0
