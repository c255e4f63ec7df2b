"""The config handler's memory: progress, sealing keys and pins, with the offset they belong to."""

import json
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Final, Self

import aiosqlite

from bus_schemas.event import ServerFact
from bus_schemas.events import (
    ConfigRequested,
    CredentialStored,
    PinsChanged,
    SealingKeyPublished,
    ServerReenrolled,
    ServerUnlocked,
)
from bus_schemas.events.fingerprint import MAX_SLOTS
from bus_schemas.keys import SignedSealingKey
from bus_schemas.transport.database import fetch_all, fetch_one, open_database, transaction
from bus_schemas.transport.ledger import Batch, Fact, Position
from bus_schemas.transport.outbox import OUTBOX_SCHEMA, put
from bus_schemas.transport.position import POSITION_SCHEMA, read_position, write_position
from platform_handlers.config.orders.book import ORDERS_SCHEMA, fold_answers
from platform_handlers.config.projection import Progress, as_sent, fold, is_slot_fact, slot_of

FILE_NAME: Final = "config.db"
MAX_REPORTED_SLOTS: Final = 2 * MAX_SLOTS
"""Slots of one server that are kept on its own word; one that invents more would slow everybody."""

_Slot = tuple[str, str]
"""Server and slot."""

_SCHEMA = (
    """
CREATE TABLE IF NOT EXISTS progress (
    server_id TEXT NOT NULL,
    slot_id TEXT NOT NULL,
    body TEXT NOT NULL,
    PRIMARY KEY (server_id, slot_id)
) STRICT;
CREATE TABLE IF NOT EXISTS announced (
    server_id TEXT NOT NULL,
    what TEXT NOT NULL CHECK (what IN ('sealing-key', 'pins')),
    incarnation INTEGER NOT NULL,
    n INTEGER NOT NULL,
    body TEXT NOT NULL,
    PRIMARY KEY (server_id, what)
) STRICT;
CREATE TABLE IF NOT EXISTS machines (
    server_id TEXT PRIMARY KEY,
    nkey TEXT NOT NULL
) STRICT;
CREATE TABLE IF NOT EXISTS starts (
    server_id TEXT PRIMARY KEY,
    newest INTEGER NOT NULL, -- as the evaluator tells
    former INTEGER NOT NULL -- the last one of a machine that was replaced; 0 for none
) STRICT;
CREATE TABLE IF NOT EXISTS purges (
    server_id TEXT NOT NULL,
    slot_id TEXT NOT NULL,
    revision INTEGER NOT NULL,
    PRIMARY KEY (server_id, slot_id)
) STRICT;
"""
    + ORDERS_SCHEMA
    + POSITION_SCHEMA
    + OUTBOX_SCHEMA
)


@dataclass(frozen=True)
class Purge:
    """A sealed message that its server has stored: up to *revision* it is needed no more."""

    server_id: str
    slot_id: str
    revision: int


class ConfigStore:
    """Folds the ledger (`LedgerStore`) and answers from what it folded."""

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
        """Commit the new state, the parked pointers and the position together."""
        async with transaction(self.database):
            for facts in _machine_by_machine(batch.facts):
                await self._fold(facts)
            await put(self.database, batch.parked)
            await write_position(self.database, batch.position)

    async def progress(self, server_id: str) -> dict[str, Progress]:
        """Return the progress of a server's slots, by slot."""
        found = await self._load([server_id])
        return {slot_id: progress for (_, slot_id), progress in found.items()}

    async def sealing_key(self, server_id: str) -> SignedSealingKey | None:
        """Return the newest key the server announced; its signature is the sealer's to check."""
        body = await self._announced(server_id, "sealing-key")
        return SignedSealingKey.model_validate_json(body) if body else None

    async def pins(self, server_id: str) -> tuple[str, ...] | None:
        """Return the fingerprints the server says it obeys; None before it said so."""
        body = await self._announced(server_id, "pins")
        return tuple(json.loads(body)) if body else None

    async def rotations(self, server_id: str, slot_id: str) -> Progress:
        """Return the newest rotations of one slot; none of a slot that nothing was told of."""
        found = await self._load_slots([(server_id, slot_id)])
        return found.get((server_id, slot_id), Progress())

    async def former_start(self, server_id: str) -> int:
        """Return the last start of the machine that was there before; 0 for none."""
        query = "SELECT former FROM starts WHERE server_id = ?"
        row = await fetch_one(self.database, query, (server_id,))
        return int(row[0]) if row else 0

    async def purges(self) -> list[Purge]:
        """Return what waits to be purged."""
        rows = await fetch_all(self.database, "SELECT * FROM purges LIMIT 256")
        return [Purge(*row) for row in rows]

    async def purged(self, purge: Purge) -> None:
        """Forget *purge*, unless a newer revision has been stored meanwhile. Raises StorageFull."""
        async with transaction(self.database):
            await self.database.execute(
                "DELETE FROM purges WHERE server_id = ? AND slot_id = ? AND revision <= ?",
                (purge.server_id, purge.slot_id, purge.revision),
            )

    async def _fold(self, facts: Sequence[Fact]) -> None:
        """Fold *facts*, of which only the first may put another machine in a server's place."""
        if isinstance(first := facts[0].envelope.data, ServerReenrolled):
            await self._forget_machine(first)
        await self._note_starts(facts)
        facts = await self._of_present_machines(facts)
        kept = await self._fold_slots(facts)
        await self._announce(facts)
        await fold_answers(self.database, facts)
        await self.database.executemany(
            "INSERT INTO purges VALUES (?, ?, ?) ON CONFLICT (server_id, slot_id)"
            " DO UPDATE SET revision = max(revision, excluded.revision)",
            [
                (stored.server_id, stored.slot_id, stored.revision)
                for stored in (fact.envelope.data for fact in facts)
                if isinstance(stored, CredentialStored) and slot_of(stored) in kept
            ],
        )

    async def _note_starts(self, facts: Iterable[Fact]) -> None:
        await self.database.executemany(
            "INSERT INTO starts VALUES (?, ?, 0) ON CONFLICT (server_id)"
            " DO UPDATE SET newest = max(newest, excluded.newest)",
            [
                (start.server_id, start.incarnation)
                for start in (fact.envelope.data for fact in facts)
                if isinstance(start, ServerUnlocked)
            ],
        )

    async def _of_present_machines(self, facts: Sequence[Fact]) -> Sequence[Fact]:
        """Leave out what former machines said: it may come late, or once more."""
        query = "SELECT server_id, former FROM starts WHERE former > 0"
        former = {row[0]: row[1] for row in await fetch_all(self.database, query)}
        return [
            fact
            for fact in facts
            if not isinstance(event := fact.envelope.data, ServerFact)
            or event.incarnation > former.get(event.server_id, 0)
        ]

    async def _fold_slots(self, facts: Iterable[Fact]) -> set[_Slot]:
        """Fold what is told of slots; return those that are kept."""
        mine = [
            (event, fact.stored_at) for fact in facts if is_slot_fact(event := fact.envelope.data)
        ]
        known = await self._load_slots({slot_of(event) for event, _ in mine})
        kept_of = await self._count_slots({event.server_id for event, _ in mine})
        for event, stored_at in mine:
            key = slot_of(event)
            if key not in known:
                own_word = not isinstance(event, ConfigRequested)
                if own_word and kept_of[event.server_id] >= MAX_REPORTED_SLOTS:
                    continue
                kept_of[event.server_id] += 1
            known[key] = fold(known.get(key, Progress()), event, at=stored_at)
        await self._keep(known)
        return set(known)

    async def _keep(self, progress: Mapping[_Slot, Progress]) -> None:
        await self.database.executemany(
            "INSERT OR REPLACE INTO progress VALUES (?, ?, ?)",
            [(*slot, known.model_dump_json()) for slot, known in progress.items()],
        )

    async def _load_slots(self, slots: Iterable[_Slot]) -> dict[_Slot, Progress]:
        query = (
            "SELECT progress.* FROM json_each(?) AS wanted JOIN progress"
            " ON server_id = json_extract(value, '$[0]') AND slot_id = json_extract(value, '$[1]')"
        )
        rows = await fetch_all(self.database, query, (json.dumps(sorted(slots)),))
        return {(r[0], r[1]): Progress.model_validate_json(r[2]) for r in rows}

    async def _count_slots(self, server_ids: Iterable[str]) -> Counter[str]:
        query = (
            "SELECT server_id, count(*) FROM progress"
            " WHERE server_id IN (SELECT value FROM json_each(?)) GROUP BY server_id"
        )
        rows = await fetch_all(self.database, query, (json.dumps(sorted(server_ids)),))
        return Counter({row[0]: row[1] for row in rows})

    async def _load(self, server_ids: Iterable[str]) -> dict[tuple[str, str], Progress]:
        query = "SELECT * FROM progress WHERE server_id IN (SELECT value FROM json_each(?))"
        rows = await fetch_all(self.database, query, (json.dumps(sorted(server_ids)),))
        return {(r[0], r[1]): Progress.model_validate_json(r[2]) for r in rows}

    async def _announce(self, facts: Iterable[Fact]) -> None:
        """Keep the newest of what servers say of themselves; an older one may come again."""
        newest: list[tuple[str, str, int, int, str]] = []
        for event in (fact.envelope.data for fact in facts):
            if isinstance(event, SealingKeyPublished):
                # Whose key it is, is checked here too: the ids inside were only read as data.
                if event.signed_key.server_id != event.server_id:
                    continue
                what, body = "sealing-key", event.signed_key.model_dump_json()
            elif isinstance(event, PinsChanged):
                what, body = "pins", json.dumps(event.pinned)
            else:
                continue
            newest.append((event.server_id, what, event.incarnation, event.n, body))
        await self._write_announced(newest)

    async def _forget_machine(self, event: ServerReenrolled) -> None:
        """Forget all that a server's former machine said, which may have been a thief.

        What the platform sent stays: of that the new machine says that it has none.

        Not the numbers it counted with tell what was its own, but the evaluator's: each start that
        was told of by now. The first of the new machine has a higher number. The same fact again
        must not take from the new machine what it has said since.
        """
        told = await self.database.execute(
            "INSERT INTO machines VALUES (?, ?) ON CONFLICT (server_id)"
            " DO UPDATE SET nkey = excluded.nkey WHERE nkey <> excluded.nkey",
            (event.server_id, event.nkey),
        )
        if told.rowcount <= 0:
            return
        sent = {key: as_sent(one) for key, one in (await self._load([event.server_id])).items()}
        for table in ("announced", "progress", "order_answers"):
            await self.database.execute(
                f"DELETE FROM {table} WHERE server_id = ?",  # noqa: S608 (our own three)
                (event.server_id,),
            )
        await self._keep({key: progress for key, progress in sent.items() if progress.rotations})
        await self.database.execute(
            "UPDATE starts SET former = newest WHERE server_id = ?", (event.server_id,)
        )

    async def _write_announced(self, newest: Iterable[tuple[str, str, int, int, str]]) -> None:
        await self.database.executemany(
            "INSERT INTO announced VALUES (?, ?, ?, ?, ?) ON CONFLICT (server_id, what)"
            " DO UPDATE SET incarnation = excluded.incarnation, n = excluded.n,"
            " body = excluded.body WHERE (excluded.incarnation, excluded.n) > (incarnation, n)",
            newest,
        )

    async def _announced(self, server_id: str, what: str) -> str | None:
        query = "SELECT body FROM announced WHERE server_id = ? AND what = ?"
        row = await fetch_one(self.database, query, (server_id, what))
        return str(row[0]) if row else None


def _machine_by_machine(facts: Sequence[Fact]) -> Iterator[Sequence[Fact]]:
    """Part *facts* before each that puts another machine in a server's place. Pure."""
    begins = [i for i, f in enumerate(facts) if isinstance(f.envelope.data, ServerReenrolled)]
    for begin, end in pairwise(sorted({0, *begins, len(facts)})):
        yield facts[begin:end]
