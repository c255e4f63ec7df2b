"""Which servers the evaluator knows and serves: folded from the ledger, in a file of its own."""

from dataclasses import dataclass
from pathlib import Path
from typing import Final, Self

import aiosqlite

from bus_schemas.errors import Refused
from bus_schemas.event import Event
from bus_schemas.events import ServerDeprovisioned, ServerProvisioned, ServerRevoked
from bus_schemas.transport.database import fetch_one, open_database, transaction
from bus_schemas.transport.fresh import fresh
from bus_schemas.transport.ledger import Batch, Position
from bus_schemas.transport.outbox import OUTBOX_SCHEMA, put
from bus_schemas.transport.position import POSITION_SCHEMA, read_position, write_position
from platform_handlers.evaluator.rules import check_allowance

FILE_NAME: Final = "state.db"
_DAY_SECONDS = 24 * 3600

_SCHEMA = (
    """
CREATE TABLE IF NOT EXISTS servers (
    server_id TEXT PRIMARY KEY,
    identity_key BLOB NOT NULL,
    active INTEGER NOT NULL
) STRICT;
CREATE TABLE IF NOT EXISTS evaluations (
    server_id TEXT PRIMARY KEY,
    day INTEGER NOT NULL,
    spent INTEGER NOT NULL
) STRICT;
"""
    + POSITION_SCHEMA
    + OUTBOX_SCHEMA
)


@dataclass(frozen=True)
class KnownServer:
    """A server that enrolled."""

    identity_key: bytes
    """Ed25519 public key, 32 bytes."""
    active: bool


class ServerStore:
    """The evaluator's memory apart from its keys (`LedgerStore`)."""

    def __init__(self, database: aiosqlite.Connection) -> None:
        self.database = database

    @classmethod
    async def open(cls, path: Path) -> Self:
        """Open or create the store. Raises StorageFull."""
        return cls(await open_database(path, _SCHEMA))

    async def close(self) -> None:
        """Close the file."""
        await self.database.close()

    async def position(self) -> Position | None:
        """Return the last committed position."""
        return await read_position(self.database)

    async def apply(self, batch: Batch) -> None:
        """Commit who came and went, the parked pointers and the position together."""
        async with transaction(self.database):
            for fact in batch.facts:
                await self._fold(fact.envelope.data)
            await put(self.database, batch.parked)
            await write_position(self.database, batch.position)

    async def server(self, server_id: str) -> KnownServer | None:
        """Return one server, None if the ledger has not told of it."""
        query = "SELECT identity_key, active FROM servers WHERE server_id = ?"
        row = await fetch_one(self.database, query, (server_id,))
        return KnownServer(row[0], bool(row[1])) if row else None

    async def spend(self, server_id: str, wanted: int, *, now: int) -> None:
        """Take *wanted* evaluations off today's allowance. Raises Refused, StorageFull."""
        day = now // _DAY_SECONDS
        async with transaction(self.database):
            query = "SELECT spent FROM evaluations WHERE server_id = ? AND day = ?"
            row = await fetch_one(self.database, query, (server_id, day))
            spent = int(row[0]) if row else 0
            check_allowance(spent, wanted, server_id)
            await self.database.execute(
                "INSERT OR REPLACE INTO evaluations VALUES (?, ?, ?)",
                (server_id, day, spent + wanted),
            )

    async def tell(self, event: Event) -> None:
        """Put a fact into the outbox. Raises StorageFull."""
        async with transaction(self.database):
            await put(self.database, [fresh(event)])

    async def _fold(self, event: Event) -> None:
        if isinstance(event, ServerProvisioned):
            # Ids are never issued twice: a second one, whatever it says, changes nothing.
            await self.database.execute(
                "INSERT OR IGNORE INTO servers VALUES (?, ?, 1)",
                (event.server_id, event.identity_key),
            )
        elif isinstance(event, ServerRevoked | ServerDeprovisioned):
            await self.database.execute(
                "UPDATE servers SET active = 0 WHERE server_id = ?", (event.server_id,)
            )


def require_active(server_id: str, known: KnownServer | None) -> KnownServer:
    """Return *known*. Raises Refused: `unknown_server`, `server_not_active`. Pure."""
    if known is None:
        raise Refused("unknown_server", f"the ledger tells of no server {server_id}")
    if not known.active:
        raise Refused("server_not_active", f"{server_id} was revoked or deprovisioned")
    return known
