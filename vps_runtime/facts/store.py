"""The server's own facts on their way to the ledger: numbered, kept, and remembered as told.

A fact, its number and the memory of having told it are one transaction, so a kill between two
facts leaves exactly the rest to tell. What was told is compared with what is held (`told` against
the vault), never assumed.
"""

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType
from typing import Protocol

import aiosqlite

from bus_schemas.event import ServerFact
from bus_schemas.transport.connection import Bus
from bus_schemas.transport.database import open_database, transaction
from bus_schemas.transport.fresh import fresh
from bus_schemas.transport.outbox import OUTBOX_SCHEMA, OutboxPump, depth, put

_SCHEMA = (
    OUTBOX_SCHEMA
    + """
CREATE TABLE IF NOT EXISTS counter (
    only_row INTEGER PRIMARY KEY CHECK (only_row = 1),
    n INTEGER NOT NULL
) STRICT;
INSERT OR IGNORE INTO counter VALUES (1, 0);
CREATE TABLE IF NOT EXISTS last_unlock ( -- a locked server tells facts, too
    only_row INTEGER PRIMARY KEY CHECK (only_row = 1),
    incarnation INTEGER NOT NULL
) STRICT;
INSERT OR IGNORE INTO last_unlock VALUES (1, 0);
CREATE TABLE IF NOT EXISTS told (
    key TEXT PRIMARY KEY,
    value TEXT NOT NULL
) STRICT, WITHOUT ROWID;
"""
)


class Draft(Protocol):
    """A fact that lacks only its stamp, such as `partial(PinsChanged, pinned=…)`."""

    def __call__(self, *, server_id: str, incarnation: int, n: int) -> ServerFact:
        """Return the fact with its stamp."""
        ...


@dataclass(frozen=True, slots=True)
class Telling:
    """Facts to tell and what to keep in mind of them: all or nothing."""

    drafts: Sequence[Draft] = ()
    remember: Mapping[str, str] = field(default_factory=dict)
    forget: Collection[str] = ()


class Facts:
    """One server's counter, outbox and memory, in one database."""

    def __init__(self, database: aiosqlite.Connection, server_id: str, incarnation: int) -> None:
        self._database = database
        self._server_id = server_id
        self.incarnation = incarnation
        self._told: dict[str, str] = {}
        self._pump: OutboxPump | None = None

    @classmethod
    async def open(cls, path: Path, server_id: str, incarnation: int = 0) -> "Facts":
        """Open (or create) the database at *path*; *incarnation* 0 stands for the last one known.

        Raises StorageFull.
        """
        facts = cls(await open_database(path, _SCHEMA), server_id, incarnation)
        facts._told = await _read_told(facts._database)
        facts.incarnation = await facts._begin(incarnation)
        return facts

    async def close(self) -> None:
        """Close the database; what waits is sent after the next start."""
        await self._database.close()

    @property
    def told(self) -> Mapping[str, str]:
        """What was told, by key; read only."""
        return MappingProxyType(self._told)

    async def depth(self) -> int:
        """Return how many facts the ledger does not have yet."""
        return await depth(self._database)

    async def tell(
        self,
        *drafts: Draft,
        remember: Mapping[str, str] | None = None,
        forget: Iterable[str] = (),
    ) -> None:
        """Put the facts of *drafts* into the outbox, and change the memory, all or nothing.

        Raises StorageFull: nothing was told then.
        """
        telling = Telling(drafts, dict(remember or {}), list(forget))
        await self.decide(lambda _told: telling)

    async def decide(self, decision: Callable[[Mapping[str, str]], Telling]) -> None:
        """Tell what *decision* makes of the memory; nothing comes between the two.

        So of two who change the same key at once, the second sees what the first has done. Raises
        StorageFull, and what *decision* raises: nothing was told then.
        """
        async with transaction(self._database):
            telling = decision(self.told)
            drafts, kept, gone = telling.drafts, telling.remember, telling.forget
            facts = [self._stamped(draft, await self._next_n()) for draft in drafts]
            await put(self._database, map(fresh, facts))
            await self._database.executemany(
                "DELETE FROM told WHERE key = ?", [(key,) for key in gone]
            )
            await self._database.executemany(
                "INSERT OR REPLACE INTO told VALUES (?, ?)", list(kept.items())
            )
        for key in gone:
            self._told.pop(key, None)
        self._told |= kept
        if self._pump and drafts:
            self._pump.wake()

    async def numbered(self, draft: Draft) -> ServerFact:
        """Return *draft* with a number of its own, for a report that skips the outbox."""
        async with transaction(self._database):
            return self._stamped(draft, await self._next_n())

    async def _begin(self, incarnation: int) -> int:
        """Remember *incarnation*, unless it is 0; return the last one."""
        async with transaction(self._database):
            rows = await self._database.execute_fetchall(
                "UPDATE last_unlock SET incarnation = ifnull(nullif(?, 0), incarnation)"
                " RETURNING incarnation",
                (incarnation,),
            )
        return int(next(iter(rows))[0])

    async def pump(self, bus: Bus) -> None:
        """Send what waits, for ever; cancel to stop."""
        self._pump = OutboxPump(self._database, bus)
        await self._pump.run()

    async def sent(self) -> None:
        """Wait until the ledger has everything, if it is being sent at all."""
        if self._pump:
            await self._pump.drained()

    def _stamped(self, draft: Draft, n: int) -> ServerFact:
        return draft(server_id=self._server_id, incarnation=self.incarnation, n=n)

    async def _next_n(self) -> int:
        """Count on; the number is used up if the transaction commits."""
        rows = await self._database.execute_fetchall("UPDATE counter SET n = n + 1 RETURNING n")
        return int(next(iter(rows))[0])


async def _read_told(database: aiosqlite.Connection) -> dict[str, str]:
    rows = await database.execute_fetchall("SELECT key, value FROM told")
    return {str(key): str(value) for key, value in rows}
