"""The evaluator's keys, two files: one unlock key per server, one fingerprint key per epoch.

They are kept apart so that either can be backed up, or destroyed, without the other. A key is its
32-byte seed. `secure_delete` overwrites what is deleted, and the write-ahead log is emptied after
a deletion: destroying an unlock key makes every copy of that server's disk unreadable.

Several processes may have the files open; nothing of them is kept in memory.
"""

import secrets
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Self

import aiosqlite

from bus_schemas.errors import Refused
from bus_schemas.oprf import SEED_LENGTH, OprfKey
from bus_schemas.transport.database import (
    StorageBusy,
    fetch_all,
    fetch_one,
    open_database,
    transaction,
)

UNLOCK_FILE: Final = "unlock-keys.db"
EPOCH_FILE: Final = "epoch-keys.db"
FIRST_EPOCH: Final = "e1"

_UNLOCK_SCHEMA = """
PRAGMA secure_delete=ON;
CREATE TABLE IF NOT EXISTS unlock_keys (
    server_id TEXT PRIMARY KEY,
    seed BLOB -- NULL once it was destroyed; the row stays, so that it is never made anew
) STRICT;
CREATE TABLE IF NOT EXISTS unlock_key_enrolments (
    server_id TEXT PRIMARY KEY,
    enrolment INTEGER NOT NULL -- which enrolment the seed is for; without a row it is the first
) STRICT;
"""
_EPOCH_SCHEMA = """
PRAGMA secure_delete=ON;
CREATE TABLE IF NOT EXISTS epoch_keys (
    position INTEGER PRIMARY KEY,
    epoch TEXT NOT NULL UNIQUE,
    seed BLOB NOT NULL
) STRICT;
"""
_FIND = """
SELECT keys.seed, coalesce(of.enrolment, 1)
FROM unlock_keys AS keys LEFT JOIN unlock_key_enrolments AS of USING (server_id)
WHERE server_id = ?
"""


@dataclass(frozen=True)
class EpochKey:
    """The fingerprint key of one epoch."""

    epoch: str
    key: OprfKey


class KeyStore:
    """Both files, open."""

    def __init__(self, unlock: aiosqlite.Connection, epochs: aiosqlite.Connection) -> None:
        self._unlock = unlock
        self._epochs = epochs

    @classmethod
    async def open(cls, folder: Path) -> Self:
        """Open or create both files in the evaluator's own *folder*. Raises StorageFull."""
        unlock = await open_database(folder / UNLOCK_FILE, _UNLOCK_SCHEMA)
        try:
            return cls(unlock, await open_database(folder / EPOCH_FILE, _EPOCH_SCHEMA))
        except BaseException:
            await unlock.close()
            raise

    async def close(self) -> None:
        """Close both."""
        await self._unlock.close()
        await self._epochs.close()

    async def find(self, server_id: str, enrolment: int = 1) -> OprfKey | None:
        """Return k_server of that enrolment or a later one, None before it was made.

        Raises Refused(`unlock_key_shredded`).
        """
        row = await fetch_one(self._unlock, _FIND, (server_id,))
        return None if row is None or row[1] < enrolment else _key(server_id, row[0])

    async def unlock_key(self, server_id: str, enrolment: int = 1) -> OprfKey:
        """Return k_server of that enrolment, made at the first call.

        The key of an earlier enrolment is destroyed. One of a later is not: a ledger that is
        read anew tells of all enrolments in turn. Raises Refused(`unlock_key_shredded`).
        """
        found = await self.find(server_id, enrolment)
        if found is not None:
            return found
        return _key(server_id, await self._make(server_id, enrolment))

    async def renew(self, server_id: str, enrolment: int) -> None:
        """Destroy the key of an enrolment before *enrolment*; `unlock_key` makes a new one.

        Not here: where the file came from an older back-up, the new one was made already.
        Raises StorageBusy; see `empty_log`.
        """
        async with transaction(self._unlock):
            row = await fetch_one(self._unlock, _FIND, (server_id,))
            outlived = row is not None and row[1] < enrolment and row[0] is not None
            if outlived:
                await self._unlock.execute(
                    "UPDATE unlock_keys SET seed = NULL WHERE server_id = ?", (server_id,)
                )
        if outlived:
            await self.empty_log()

    async def shred(self, server_id: str, enrolment: int = 1) -> None:
        """Destroy k_server for good, its traces in the file and its log included.

        A machine that is enrolled in its place after *enrolment* gets a new key.
        Raises StorageBusy: it is destroyed, but other processes keep the log open; do it again.
        """
        async with transaction(self._unlock):
            await self._unlock.execute(
                "INSERT INTO unlock_keys VALUES (?, NULL)"
                " ON CONFLICT (server_id) DO UPDATE SET seed = NULL",
                (server_id,),
            )
            await self._unlock.execute(
                "INSERT OR REPLACE INTO unlock_key_enrolments VALUES (?, ?)",
                (server_id, enrolment),
            )
        await self.empty_log()

    async def epochs(self) -> tuple[EpochKey, ...]:
        """Return the epochs in use, oldest first; the last one is current."""
        query = "SELECT epoch, seed FROM epoch_keys ORDER BY position"
        rows = await fetch_all(self._epochs, query)
        return tuple(EpochKey(row[0], OprfKey.from_seed(row[1])) for row in rows)

    async def first_epoch(self) -> EpochKey:
        """Return the newest epoch, making the very first one if there is none."""
        async with transaction(self._epochs):
            await self._epochs.execute(
                "INSERT INTO epoch_keys SELECT 1, ?, ? WHERE NOT EXISTS (SELECT 1 FROM epoch_keys)",
                (FIRST_EPOCH, secrets.token_bytes(SEED_LENGTH)),
            )
        return (await self.epochs())[-1]

    async def empty_log(self) -> None:
        """Cut the write-ahead log, where a destroyed seed may still stand. Raises StorageBusy."""
        busy, *_ = await fetch_one(self._unlock, "PRAGMA wal_checkpoint(TRUNCATE)")
        if busy:  # still, after the busy timeout
            raise StorageBusy("the key is destroyed, but its log is in use; do it once more")

    async def _make(self, server_id: str, enrolment: int) -> bytes | None:
        """Put a fresh seed in the place of an older enrolment's, unless somebody was faster."""
        async with transaction(self._unlock):
            row = await fetch_one(self._unlock, _FIND, (server_id,))
            if row is not None and row[1] >= enrolment:
                return bytes(row[0]) if row[0] is not None else None
            seed = secrets.token_bytes(SEED_LENGTH)
            await self._unlock.execute(
                "INSERT OR REPLACE INTO unlock_keys VALUES (?, ?)", (server_id, seed)
            )
            await self._unlock.execute(
                "INSERT OR REPLACE INTO unlock_key_enrolments VALUES (?, ?)",
                (server_id, enrolment),
            )
        if row is not None:
            await self.empty_log()
        return seed


def _key(server_id: str, seed: bytes | None) -> OprfKey:
    if seed is None:
        detail = f"the unlock key of {server_id} was destroyed; no copy of its disk opens"
        raise Refused("unlock_key_shredded", detail)
    return OprfKey.from_seed(seed)
