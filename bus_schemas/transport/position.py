"""Where a reader's own database stands in the ledger, kept beside the state it belongs to."""

import aiosqlite

from bus_schemas.transport.database import fetch_one
from bus_schemas.transport.ledger import Position

POSITION_SCHEMA = """
CREATE TABLE IF NOT EXISTS ledger_position (
    only INTEGER PRIMARY KEY CHECK (only = 1),
    created TEXT NOT NULL,
    sequence INTEGER NOT NULL,
    digest TEXT NOT NULL
) STRICT;
"""

POSITION_QUERY = "SELECT created, sequence, digest FROM ledger_position"
"""The row of a `Position`; nothing before the first batch."""


async def read_position(database: aiosqlite.Connection) -> Position | None:
    """Return the committed position; None before the first batch."""
    row = await fetch_one(database, POSITION_QUERY)
    return Position(row[0], row[1], row[2]) if row else None


async def write_position(database: aiosqlite.Connection, position: Position) -> None:
    """Store *position* inside the caller's transaction, together with what it covers."""
    await database.execute(
        "INSERT OR REPLACE INTO ledger_position VALUES (1, ?, ?, ?)",
        (position.created, position.sequence, position.digest),
    )
