"""Which servers the evaluator knows and serves: folded from the ledger, in a file of its own.

Several processes fold the same ledger into the one file: whatever another has folded already is
passed over, so the position never goes back and no fact counts twice.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Self

import aiosqlite
from pydantic import ValidationError

from bus_schemas.errors import ContractError, Refused
from bus_schemas.event import Event
from bus_schemas.events import (
    MessageParked,
    PinsChanged,
    RatchetAdvanced,
    ServerDeprovisioned,
    ServerProvisioned,
    ServerReenrolled,
    ServerRevoked,
    ServerUnlocked,
)
from bus_schemas.transport.database import fetch_all, fetch_one, open_database, transaction
from bus_schemas.transport.fresh import fresh
from bus_schemas.transport.ledger import Batch, Position
from bus_schemas.transport.outbox import OUTBOX_SCHEMA, depth, put
from bus_schemas.transport.position import POSITION_SCHEMA, read_position, write_position
from platform_handlers.evaluator.approvers import ToldPins, fold_pins
from platform_handlers.evaluator.rules import Circumstances, check_allowance, incarnation_of

FILE_NAME: Final = "state.db"
_DAY_SECONDS = 24 * 3600
_MOST_COPIES = 32
"""Of one server, within a day."""

_SCHEMA = (
    """
CREATE TABLE IF NOT EXISTS servers (
    server_id TEXT PRIMARY KEY,
    identity_key BLOB NOT NULL,
    active INTEGER NOT NULL
) STRICT;
CREATE TABLE IF NOT EXISTS reenrolments (
    server_id TEXT NOT NULL,
    identity_key BLOB NOT NULL,
    PRIMARY KEY (server_id, identity_key)
) STRICT;
CREATE TABLE IF NOT EXISTS incarnations (
    server_id TEXT PRIMARY KEY,
    incarnation INTEGER NOT NULL
) STRICT;
CREATE TABLE IF NOT EXISTS evaluations (
    server_id TEXT PRIMARY KEY,
    day INTEGER NOT NULL,
    spent INTEGER NOT NULL
) STRICT;
CREATE TABLE IF NOT EXISTS ratchets (
    server_id TEXT PRIMARY KEY,
    state TEXT NOT NULL
) STRICT;
CREATE TABLE IF NOT EXISTS pins ( -- fingerprints, with spaces between
    server_id TEXT PRIMARY KEY,
    incarnation INTEGER NOT NULL,
    pinned TEXT NOT NULL,
    dropped TEXT NOT NULL
) STRICT;
CREATE TABLE IF NOT EXISTS refused_copies (
    server_id TEXT NOT NULL,
    code TEXT NOT NULL,
    at INTEGER NOT NULL,
    PRIMARY KEY (server_id, code)
) STRICT;
CREATE TABLE IF NOT EXISTS recovery (
    only INTEGER PRIMARY KEY CHECK (only = 1),
    until INTEGER NOT NULL
) STRICT;
"""
    + POSITION_SCHEMA
    + OUTBOX_SCHEMA
)
_FIND = """
SELECT identity_key, active,
    1 + (SELECT count(*) FROM reenrolments AS again WHERE again.server_id = servers.server_id),
    coalesce(incarnation, 0)
FROM servers LEFT JOIN incarnations USING (server_id)
WHERE server_id = ?
"""
_REMEMBER = """
INSERT INTO incarnations VALUES (?, ?)
ON CONFLICT (server_id) DO UPDATE SET incarnation = excluded.incarnation
WHERE excluded.incarnation > incarnation
"""


@dataclass(frozen=True)
class KnownServer:
    """A server that enrolled."""

    server_id: str
    identity_key: bytes
    """Ed25519 public key, 32 bytes."""
    active: bool
    enrolment: int = 1
    """How often a machine has become this server."""
    incarnation: int = 0
    """The highest that was told; 0 before the first unlock."""


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
            known = await read_position(self.database)
            done = known.sequence if known else 0
            if done >= batch.position.sequence:  # another evaluator was faster
                return
            for fact in batch.facts:
                if fact.sequence > done:
                    await self._fold(fact.envelope.data)
            await put(self.database, [p for p in batch.parked if _sequence(p.data) > done])
            await write_position(self.database, batch.position)

    async def server(self, server_id: str) -> KnownServer | None:
        """Return one server, None if the ledger has not told of it."""
        # In a turn of its own: on this one connection a read in the middle of a fold would see
        # the new machine's enrolment with the old machine's key, and turn the new one away.
        async with transaction(self.database):
            row = await fetch_one(self.database, _FIND, (server_id,))
        return KnownServer(server_id, row[0], bool(row[1]), row[2], row[3]) if row else None

    async def reenrolled(self) -> Iterable[tuple[str, int]]:
        """Return the servers that another machine took over, and their newest enrolment."""
        query = "SELECT server_id, 1 + count(*) FROM reenrolments GROUP BY server_id"
        return [(row[0], row[1]) for row in await fetch_all(self.database, query)]

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

    async def circumstances(self, server: KnownServer, *, now: int) -> Circumstances:
        """Return what a decision about *server* at *now* (Unix seconds) rests on."""
        row = await fetch_one(self.database, "SELECT until FROM recovery")
        until = int(row[0]) if row else 0
        told = await self._told_pins(server.server_id)
        state = await self.remembered(server.server_id)
        return Circumstances(
            now,
            server.enrolment,
            server.incarnation,
            until,
            told,
            None if state is None else incarnation_of(state),
        )

    async def note_copy(self, server_id: str, code: str, *, now: int) -> None:
        """Remember for a day that the disk *code* was refused at *now*. Raises StorageFull.

        Of too many none gives way: who invents them would drive out the one that is restored.
        """
        async with transaction(self.database):
            await self.database.execute(
                "DELETE FROM refused_copies WHERE server_id = ? AND at <= ?",
                (server_id, now - _DAY_SECONDS),
            )
            await self.database.execute(
                "INSERT INTO refused_copies SELECT ?1, ?2, ?3 WHERE (SELECT count(*)"
                " FROM refused_copies WHERE server_id = ?1) < ?4"
                " ON CONFLICT (server_id, code) DO UPDATE SET at = excluded.at",
                (server_id, code, now, _MOST_COPIES),
            )

    async def forget_copy(self, server_id: str, code: str) -> None:
        """Forget that the disk *code* was refused: it came in. Raises StorageFull."""
        async with transaction(self.database):
            await self.database.execute(
                "DELETE FROM refused_copies WHERE server_id = ? AND code = ?", (server_id, code)
            )

    async def refused_copies(self, server_id: str, *, now: int) -> frozenset[str] | None:
        """Return the codes of the disks refused within a day; None if some may be missing."""
        query = "SELECT code FROM refused_copies WHERE server_id = ? AND at > ?"
        rows = await fetch_all(self.database, query, (server_id, now - _DAY_SECONDS))
        return frozenset(row[0] for row in rows) if len(rows) < _MOST_COPIES else None

    async def open_recovery(self, until: int) -> None:
        """Open a recovery window to *until* (Unix seconds), in place of the one before."""
        async with transaction(self.database):
            await self.database.execute("INSERT OR REPLACE INTO recovery VALUES (1, ?)", (until,))

    async def remember(self, state: RatchetAdvanced) -> None:
        """Keep a state that was stored on the bus, for the day when another lies in its place."""
        async with transaction(self.database):
            await self.database.execute(
                "INSERT OR REPLACE INTO ratchets VALUES (?, ?)",
                (state.server_id, state.model_dump_json(exclude_none=True)),
            )

    async def remembered(self, server_id: str) -> RatchetAdvanced | None:
        """Return the state that was last stored, None if this folder knows of none.

        Raises ContractError(`damaged_memory`).
        """
        query = "SELECT state FROM ratchets WHERE server_id = ?"
        row = await fetch_one(self.database, query, (server_id,))
        try:
            return RatchetAdvanced.model_validate_json(row[0]) if row else None
        except ValidationError as error:
            detail = f"{FILE_NAME} holds no state of {server_id}: {error.error_count()} faults"
            raise ContractError("damaged_memory", detail) from None

    async def tell(self, event: Event) -> None:
        """Put a fact into the outbox. Raises StorageFull."""
        async with transaction(self.database):
            await put(self.database, [fresh(event)])

    async def tell_unlocked(self, server_id: str, incarnation: int) -> None:
        """Put the fact of an unlock into the outbox, unless that incarnation was told already."""
        async with transaction(self.database):
            done = await self.database.execute(_REMEMBER, (server_id, incarnation))
            if done.rowcount > 0:
                fact = ServerUnlocked(server_id=server_id, incarnation=incarnation)
                await put(self.database, [fresh(fact)])

    async def waiting(self) -> int:
        """Return how many facts the bus does not have yet, other processes' included."""
        return await depth(self.database)

    async def _fold(self, event: Event) -> None:
        if isinstance(event, ServerProvisioned):
            # Ids are never issued twice: a second one, whatever it says, changes nothing.
            await self.database.execute(
                "INSERT OR IGNORE INTO servers VALUES (?, ?, 1)",
                (event.server_id, event.identity_key),
            )
        elif isinstance(event, ServerReenrolled):
            await self._enrol_again(event)
        elif isinstance(event, PinsChanged):
            await self._fold_pins(event)
        elif isinstance(event, ServerUnlocked):
            await self.database.execute(_REMEMBER, (event.server_id, event.incarnation))
        elif isinstance(event, ServerRevoked | ServerDeprovisioned):
            await self.database.execute(
                "UPDATE servers SET active = 0 WHERE server_id = ?", (event.server_id,)
            )

    async def _fold_pins(self, event: PinsChanged) -> None:
        server_id, state = event.server_id, await self.remembered(event.server_id)
        committed = (state.owner_pins if state else None) or ()
        before = await self._told_pins(server_id)
        told = fold_pins(before, committed, event.pinned, event.incarnation)
        await self.database.execute(
            "INSERT OR REPLACE INTO pins VALUES (?, ?, ?, ?)",
            (server_id, told.incarnation, " ".join(told.pinned), " ".join(told.dropped)),
        )

    async def _told_pins(self, server_id: str) -> ToldPins | None:
        query = "SELECT incarnation, pinned, dropped FROM pins WHERE server_id = ?"
        row = await fetch_one(self.database, query, (server_id,))
        return ToldPins(row[0], *(frozenset(row[n].split()) for n in (1, 2))) if row else None

    async def _enrol_again(self, event: ServerReenrolled) -> None:
        """Take the new machine's key. A fact that lies in the ledger twice must count once.

        A second count would destroy the unlock key in use.
        """
        key = (event.server_id, event.identity_key)
        query = "SELECT 1 FROM servers WHERE server_id = ? AND identity_key = ?"
        if await fetch_one(self.database, query, key):
            return
        done = await self.database.execute("INSERT OR IGNORE INTO reenrolments VALUES (?, ?)", key)
        if done.rowcount > 0:
            await self.database.execute(
                "INSERT INTO servers VALUES (?, ?, 1) ON CONFLICT (server_id)"
                " DO UPDATE SET identity_key = excluded.identity_key, active = 1",
                key,
            )
            # The new machine counts its starts on, and has given up nothing.
            await self.database.execute("DELETE FROM pins WHERE server_id = ?", (event.server_id,))


def require_known(server_id: str, known: KnownServer | None) -> KnownServer:
    """Return *known*. Raises Refused(`unknown_server`). Pure."""
    if known is None:
        raise Refused("unknown_server", f"the ledger tells of no server {server_id}")
    return known


def require_active(server_id: str, known: KnownServer | None) -> KnownServer:
    """Return *known*. Raises Refused: `unknown_server`, `server_not_active`. Pure."""
    known = require_known(server_id, known)
    if not known.active:
        raise Refused("server_not_active", f"{server_id} was revoked or deprovisioned")
    return known


def _sequence(pointer: Event) -> int:
    """Return which message a parked pointer is about."""
    return pointer.sequence if isinstance(pointer, MessageParked) else 0
