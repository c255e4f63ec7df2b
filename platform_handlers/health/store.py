"""What the ledger says of servers' status, and the facts on their way there."""

import json
import time
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import aiosqlite

from bus_schemas.event import Event
from bus_schemas.events import (
    CredentialInUse,
    CredentialNeedsKey,
    CredentialVerified,
    ServerDeprovisioned,
    ServerProvisioned,
    ServerReenrolled,
    ServerRevoked,
    ServerUnlocked,
    StatusChanged,
    UnlockAnswered,
)
from bus_schemas.transport.database import open_database, transaction
from bus_schemas.transport.fresh import fresh
from bus_schemas.transport.ledger import Batch, Position
from bus_schemas.transport.outbox import OUTBOX_SCHEMA, put
from bus_schemas.transport.position import POSITION_SCHEMA, read_position, write_position
from platform_handlers.health.rules import (
    Known,
    Rejection,
    Start,
    other_key,
    replaced,
    started,
    told,
)

_SCHEMA = f"""
CREATE TABLE IF NOT EXISTS servers (
    server_id TEXT PRIMARY KEY, owner_id TEXT NOT NULL, active INTEGER NOT NULL,
    silent INTEGER NOT NULL, rejected TEXT NOT NULL, keys_at TEXT NOT NULL, starts TEXT NOT NULL,
    clone_told TEXT NOT NULL, nkey TEXT NOT NULL, since REAL NOT NULL
) STRICT, WITHOUT ROWID;
{POSITION_SCHEMA}
{OUTBOX_SCHEMA}
"""


@dataclass
class HealthStore:
    """Folds provisioning and status facts; see `LedgerStore`."""

    database: aiosqlite.Connection
    servers: dict[str, Known] = field(default_factory=dict)
    _position: Position | None = None

    @classmethod
    async def open(cls, path: Path) -> "HealthStore":
        """Open the store and read its state into memory."""
        store = cls(await open_database(path, _SCHEMA))
        for row in await store.database.execute_fetchall("SELECT * FROM servers"):
            store.servers[row[0]] = _known(*row[1:])
        store._position = await read_position(store.database)
        return store

    async def position(self) -> Position | None:
        """Return the last committed position."""
        return self._position

    async def apply(self, batch: Batch) -> None:
        """Commit what *batch* says of servers. Raises StorageFull, changing nothing."""
        async with transaction(self.database):
            servers = dict(self.servers)  # inside: `tell` may have been at work until now
            for fact in batch.facts:
                fold(servers, fact.envelope.data, fact.stored_at.timestamp())
            await self._write(servers)
            await put(self.database, batch.parked)
            await write_position(self.database, batch.position)
        self.servers, self._position = servers, batch.position

    async def tell(self, changes: list[StatusChanged]) -> None:
        """Queue status facts and take them as known at once, so that none is told twice.

        Raises StorageFull, changing nothing.
        """
        async with transaction(self.database):
            servers = dict(self.servers)
            for change in changes:
                fold(servers, change, time.time())
            await self._write(servers)
            await put(self.database, [fresh(change) for change in changes])
        self.servers = servers

    async def _write(self, servers: Mapping[str, Known]) -> None:
        """Write the rows that differ from what is known so far."""
        await self.database.executemany(
            "INSERT OR REPLACE INTO servers VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
            [
                (server_id, *_columns(k))
                for server_id, k in servers.items()
                if self.servers.get(server_id) != k
            ],
        )


def _columns(known: Known) -> tuple[object, ...]:
    lists = (known.rejected, known.keys_at, known.starts, known.clone_told)
    said = map(json.dumps, lists)
    return (known.owner_id, known.active, known.silent, *said, known.nkey, known.since)


def _known(owner_id: str, active: int, silent: int, *rest: Any) -> Known:  # noqa: ANN401 (a row)
    *lists, nkey, since = rest
    rejected, keys_at, starts, clone_told = map(json.loads, lists)
    incarnation, n = keys_at
    return Known(
        owner_id,
        bool(active),
        bool(silent),
        {slot: Rejection(*why) for slot, why in rejected.items()},
        (incarnation, n),
        tuple(Start(*start) for start in starts),
        Start(*clone_told),
        nkey,
        since,
    )


def fold(servers: dict[str, Known], event: Event, at: float) -> None:
    """Note in *servers* what *event* says, which the ledger took at *at* (Unix seconds)."""
    match event:
        case ServerProvisioned():
            servers.setdefault(event.server_id, Known(event.owner_id, nkey=event.nkey))
        case ServerRevoked() | ServerDeprovisioned() if event.server_id in servers:
            servers[event.server_id] = replace(servers[event.server_id], active=False)
        case ServerReenrolled() if event.server_id in servers:
            servers[event.server_id] = replaced(servers[event.server_id], event, at)
        case UnlockAnswered() | ServerUnlocked() if event.server_id in servers:
            servers[event.server_id] = started(servers[event.server_id], event, at)
        case CredentialVerified() | CredentialInUse() | CredentialNeedsKey() if (
            event.server_id in servers
        ):
            servers[event.server_id] = other_key(servers[event.server_id], event)
        case StatusChanged() if event.server_id in servers:
            servers[event.server_id] = told(servers[event.server_id], event, at)
