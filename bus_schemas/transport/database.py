"""SQLite as every store here uses it: one writer, whole transactions, durable commits."""

import asyncio
import contextlib
import os
import sqlite3
from collections.abc import AsyncIterator, Iterable, Iterator
from pathlib import Path
from typing import Any
from weakref import WeakKeyDictionary

import aiosqlite

from bus_schemas.errors import ByokError
from bus_schemas.transport.private_files import give_to_folders_owner

_one_at_a_time: WeakKeyDictionary[aiosqlite.Connection, asyncio.Lock] = WeakKeyDictionary()
"""A connection has one transaction: two tasks inside one would commit each other's halves, and a
pump would send events that are not committed yet."""


class StorageFull(ByokError):
    """The disk is full. The old state is whole; free some space and it goes on by itself."""


class StorageBusy(StorageFull):
    """Another process keeps the database locked. The old state is whole; try again."""


async def open_database(path: Path, schema: str) -> aiosqlite.Connection:
    """Open (or create, 0600) the database at *path* and make sure of *schema*.

    WAL lets the commands read while a handler writes; `synchronous=FULL` makes a commit mean
    "on the disk", since offsets are acknowledged to nobody else. Raises StorageFull.
    """
    _create_private(path)
    database = await aiosqlite.connect(path, isolation_level=None)
    try:
        with _told_plainly(path):
            await database.execute("PRAGMA busy_timeout=5000")  # first: the next line may wait
            await database.execute("PRAGMA journal_mode=WAL")
            await database.execute("PRAGMA synchronous=FULL")
            await database.executescript(schema)
    except BaseException:
        await database.close()
        raise
    return database


def _create_private(path: Path) -> None:
    """Make the file, 0600, unless it is there.

    An existing one is never opened here: closing any descriptor of a file drops all POSIX locks
    the process has on it, SQLite's own among them, and two writers then corrupt it
    (sqlite.org "How To Corrupt An SQLite Database File", section 2.2).
    """
    with contextlib.suppress(FileExistsError):
        handle = os.open(path, os.O_CREAT | os.O_EXCL | os.O_RDWR | os.O_NOFOLLOW, 0o600)
        try:
            give_to_folders_owner(handle, path.parent)
        finally:
            os.close(handle)


@contextlib.asynccontextmanager
async def transaction(database: aiosqlite.Connection) -> AsyncIterator[None]:
    """All or nothing. Raises StorageFull (old state whole) instead of SQLite's own error."""
    lock = _one_at_a_time.setdefault(database, asyncio.Lock())
    async with lock:
        with _told_plainly(None):
            try:  # BEGIN inside: it is carried out even if the wait for it is cancelled
                await database.execute("BEGIN IMMEDIATE")
                yield
                await database.execute("COMMIT")
            except BaseException:
                with contextlib.suppress(sqlite3.Error):  # a full disk may have rolled back already
                    await database.execute("ROLLBACK")
                raise


async def fetch_all(
    database: aiosqlite.Connection, query: str, parameters: Iterable[Any] = ()
) -> list[Any]:
    """Return all rows of *query*, read in one go.

    A cursor that stayed open between two awaits would pin its snapshot, and the connection's next
    transaction, another task's, would fail as out of date (SQLITE_BUSY_SNAPSHOT).
    """
    return list(await database.execute_fetchall(query, parameters))


async def fetch_one(
    database: aiosqlite.Connection, query: str, parameters: Iterable[Any] = ()
) -> Any:  # noqa: ANN401 (a row, as sqlite3 types it)
    """Return the first row of *query* or None; see `fetch_all`."""
    rows = await fetch_all(database, query, parameters)
    return rows[0] if rows else None


@contextlib.contextmanager
def _told_plainly(path: Path | None) -> Iterator[None]:
    try:
        yield
    except sqlite3.OperationalError as error:
        where = f" at {path}" if path else ""
        match error.sqlite_errorcode & 0xFF:  # the primary code (sqlite.org "Result Codes")
            case sqlite3.SQLITE_FULL | sqlite3.SQLITE_IOERR:
                message = (
                    f"the disk is full or failing{where}; nothing was changed, free some space"
                )
                raise StorageFull(message) from error
            case sqlite3.SQLITE_BUSY:
                message = f"another process keeps the database{where} locked; try again"
                raise StorageBusy(message) from error
        raise


def read_beside(path: Path, query: str, parameters: tuple[object, ...] = ()) -> list[sqlite3.Row]:
    """Return rows of another process's database, read beside it; it is never written or made.

    Nothing where the file or the table is not there yet. Blocks. Raises sqlite3.Error.
    """
    if not path.exists():
        return []
    uri = f"{path.absolute().as_uri()}?mode=ro"
    with contextlib.closing(sqlite3.connect(uri, uri=True)) as database:
        try:
            return database.execute(query, parameters).fetchall()
        except sqlite3.OperationalError as error:
            if "no such table" in str(error):
                return []
            raise
