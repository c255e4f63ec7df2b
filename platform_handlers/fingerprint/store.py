"""The projection on disk: rows, offset and announcements in one SQLite transaction per batch.

The projection lives in memory and decides there; only what changed is written, in a handful of
`executemany` calls. If a write fails, memory is ahead of the disk, so it is thrown away and read
again: the batch is then folded anew from the same facts.
"""

from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import aiosqlite
from pydantic import TypeAdapter

from bus_schemas.fields import Basis, Strength
from bus_schemas.transport.database import open_database, transaction
from bus_schemas.transport.ledger import Batch, Fact, Position
from bus_schemas.transport.outbox import OUTBOX_SCHEMA, put
from platform_handlers.banner.announcer import ANNOUNCEMENTS_SCHEMA, enqueue
from platform_handlers.banner.lifecycle import Banner, Cause, announcement
from platform_handlers.fingerprint.holders import Holding, SlotKey, Standing, TagKey
from platform_handlers.fingerprint.pins import Pins
from platform_handlers.fingerprint.projection import Dirty, Projection, Server
from platform_handlers.fingerprint.rotations import NOTHING, Mark, Rotation

_SCHEMA = f"""
CREATE TABLE IF NOT EXISTS position (
    only INTEGER PRIMARY KEY CHECK (only = 1),
    created TEXT NOT NULL, sequence INTEGER NOT NULL, digest TEXT NOT NULL,
    ticks INTEGER NOT NULL, minute INTEGER NOT NULL
) STRICT;
CREATE TABLE IF NOT EXISTS servers (
    server_id TEXT PRIMARY KEY, owner_id TEXT NOT NULL, active INTEGER NOT NULL,
    incarnation INTEGER NOT NULL, n INTEGER NOT NULL, renewed_tick INTEGER NOT NULL,
    nkey TEXT NOT NULL, pins TEXT NOT NULL
) STRICT, WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS holdings (
    server_id TEXT NOT NULL, slot_id TEXT NOT NULL, epoch TEXT NOT NULL, tag TEXT NOT NULL,
    owner_id TEXT NOT NULL, provider TEXT NOT NULL, basis TEXT NOT NULL, strength TEXT NOT NULL,
    revision INTEGER NOT NULL, standing TEXT NOT NULL, joined INTEGER NOT NULL,
    seen_tick INTEGER NOT NULL,
    PRIMARY KEY (server_id, slot_id, epoch, tag)
) STRICT, WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS rotations (
    server_id TEXT NOT NULL, slot_id TEXT NOT NULL,
    asked INTEGER NOT NULL, asked_tick INTEGER NOT NULL, asked_ages INTEGER NOT NULL,
    stored INTEGER NOT NULL, stored_tick INTEGER NOT NULL, stored_ages INTEGER NOT NULL,
    used INTEGER NOT NULL, used_tick INTEGER NOT NULL, used_ages INTEGER NOT NULL,
    ended INTEGER NOT NULL,
    PRIMARY KEY (server_id, slot_id)
) STRICT, WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS banners (banner_id TEXT PRIMARY KEY, body TEXT NOT NULL)
    STRICT, WITHOUT ROWID;
{ANNOUNCEMENTS_SCHEMA}
{OUTBOX_SCHEMA}
"""

POSITION_QUERY = "SELECT created, sequence, digest FROM position"
"""The row of a `Position`: beside it lies the time of the projection, so the table is our own."""

_BANNER = TypeAdapter(Banner)
_PINS = TypeAdapter(Pins | None)


@dataclass
class FingerprintStore:
    """Folds batches of the ledger; see `LedgerStore`."""

    database: aiosqlite.Connection
    projection: Projection
    _position: Position | None = None

    @classmethod
    async def open(cls, path: Path) -> "FingerprintStore":
        """Open the store and read its state into memory."""
        store = cls(await open_database(path, _SCHEMA), Projection())
        await store.reload()
        return store

    async def close(self) -> None:
        """Close the database."""
        await self.database.close()

    async def position(self) -> Position | None:
        """Return the last committed position."""
        return self._position

    async def apply(self, batch: Batch) -> None:
        """Fold *batch* and commit everything it changed. Raises StorageFull, changing nothing."""
        announced = [
            (banner, cause)
            for fact in batch.facts
            for cause in [cause_of(fact, self.projection.ticks)]
            for banner in self.projection.apply(fact.envelope.data, cause)
        ]
        try:
            async with transaction(self.database):
                await self._write_dirty()
                await self._write_position(batch.position)
                await enqueue(self.database, [announcement(b, c) for b, c in announced])
                await put(self.database, batch.parked)
        except BaseException:
            await self.reload()
            raise
        self._position = batch.position

    async def reload(self) -> None:
        """Read the committed state, forgetting what was in memory."""
        fresh = Projection()
        async for row in _rows(self.database, "SELECT * FROM servers"):
            server_id, owner_id, active, incarnation, n, tick, nkey, pins = row
            fresh.servers[server_id] = Server(
                owner_id, (incarnation, n), tick, nkey, bool(active), _PINS.validate_json(pins)
            )
        async for row in _rows(self.database, "SELECT * FROM holdings"):
            fresh.holders.put(_holding(row))
        async for (body,) in _rows(self.database, "SELECT body FROM banners"):
            fresh.banners.keep(_BANNER.validate_json(body))
        self._position = None
        async for row in _rows(self.database, "SELECT * FROM position"):
            _, created, sequence, digest, fresh.ticks, fresh.minute = row
            self._position = Position(created, sequence, digest)
        async for row in _rows(self.database, "SELECT * FROM rotations"):
            fresh.rotations.put(SlotKey(*row[:2]), _rotation(row), fresh.ticks)
        self.projection = fresh

    async def _write_position(self, position: Position) -> None:
        await self.database.execute(
            "INSERT OR REPLACE INTO position VALUES (1, ?, ?, ?, ?, ?)",
            (
                position.created,
                position.sequence,
                position.digest,
                self.projection.ticks,
                self.projection.minute,
            ),
        )

    async def _write_dirty(self) -> None:
        state, dirty = self.projection, self.projection.dirty
        await self.database.executemany(
            "INSERT OR REPLACE INTO servers VALUES (?, ?, ?, ?, ?, ?, ?, ?)",
            [(name, *_columns(state.servers[name])) for name in dirty.servers],
        )
        held = {key: state.holders.of_slot(key[0]).get(key[1]) for key in dirty.holdings}
        await self.database.executemany(
            "INSERT OR REPLACE INTO holdings VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
            [_row(holding) for holding in held.values() if holding],
        )
        await self.database.executemany(
            "DELETE FROM holdings WHERE (server_id, slot_id, epoch, tag) = (?, ?, ?, ?)",
            [(*slot, *tag) for (slot, tag), holding in held.items() if holding is None],
        )
        await self._write_rotations(state, dirty)
        await self.database.executemany(
            "INSERT OR REPLACE INTO banners VALUES (?, ?)",
            [
                (key.banner_id, _BANNER.dump_json(banner).decode())
                for key in dirty.banners
                if (banner := state.banners.get(key))
            ],
        )
        await self.database.executemany(
            "DELETE FROM banners WHERE banner_id = ?",
            [(key.banner_id,) for key in dirty.banners if state.banners.get(key) is None],
        )
        state.dirty = Dirty()

    async def _write_rotations(self, state: Projection, dirty: Dirty) -> None:
        found = [(slot, state.rotations.get(slot)) for slot in dirty.rotations]
        await self.database.executemany(
            "INSERT OR REPLACE INTO rotations VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
            [
                (*slot, *known.asked, *known.stored, *known.used, known.ended)
                for slot, known in found
                if known != NOTHING
            ],
        )
        await self.database.executemany(
            "DELETE FROM rotations WHERE (server_id, slot_id) = (?, ?)",
            [slot for slot, known in found if known == NOTHING],
        )


def cause_of(fact: Fact, tick: int) -> Cause:
    """Return *fact* as the cause of whatever it sets off."""
    envelope = fact.envelope
    return Cause(fact.sequence, fact.stored_at, envelope.id, envelope.correlationid, tick)


def _columns(server: Server) -> tuple[object, ...]:
    pins = _PINS.dump_json(server.pins).decode()
    return (server.owner_id, server.active, *server.stamp, server.renewed_tick, server.nkey, pins)


def _row(holding: Holding) -> tuple[object, ...]:
    return (
        *holding.slot,
        *holding.key,
        holding.owner_id,
        holding.provider,
        holding.basis.value,
        holding.strength.value,
        holding.revision,
        holding.standing.value,
        holding.joined,
        holding.seen_tick,
    )


def _holding(row: tuple[Any, ...]) -> Holding:
    server_id, slot_id, epoch, tag, owner_id, provider, basis, strength, *rest = row
    revision, standing, joined, seen_tick = rest
    return Holding(
        SlotKey(server_id, slot_id),
        owner_id,
        TagKey(epoch, tag),
        provider,
        Basis(basis),
        Strength(strength),
        revision,
        Standing(standing),
        joined,
        seen_tick,
    )


def _rotation(row: tuple[Any, ...]) -> Rotation:
    asked, stored, used = (Mark(row[at], row[at + 1], bool(row[at + 2])) for at in (2, 5, 8))
    return Rotation(asked, stored, used, row[11])


async def _rows(database: aiosqlite.Connection, query: str) -> AsyncIterator[Any]:
    async with database.execute(query) as rows:
        async for row in rows:
            yield row
