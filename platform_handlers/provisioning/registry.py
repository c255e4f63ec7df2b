"""The registry of owners and servers: one SQLite file for the commands and the running platform.

Of every secret only the SHA-256 is kept, and found by look-up; a fact about a change leaves
through the outbox of the same transaction. The rules are in `records`, joining in `enrolment`,
sign-ins in `sign_ins`, and what the bus is told of a revocation in `claims_log`.
"""

import secrets
import sqlite3
import time
from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import Final, Self

import aiosqlite

from bus_schemas.errors import Refused
from bus_schemas.event import Event
from bus_schemas.events import (
    ServerDeprovisioned,
    ServerRevoked,
)
from bus_schemas.transport.database import fetch_all, fetch_one, open_database, transaction
from bus_schemas.transport.fresh import fresh
from bus_schemas.transport.outbox import put
from platform_handlers.provisioning.records import (
    JOIN_SECONDS,
    JoinUse,
    ServerRecord,
    ServerState,
    check_id,
    next_state,
    secret_hash,
)
from platform_handlers.provisioning.schema import REGISTRY_SCHEMA

FILE_NAME: Final = "registry.db"
SECRET_BYTES: Final = 32

_SERVER = (
    "SELECT server_id, owner_id, state, nkey, identity_key, enrolled_at, ended_at, reason,"
    " join_expires_at, join_used_at, join_used_from, join_tried_at, join_tried_from FROM servers"
)


class Registry:
    """Owners, servers and their one-time secrets."""

    def __init__(
        self, database: aiosqlite.Connection, clock: Callable[[], float] = time.time
    ) -> None:
        self.database = database
        self._clock = clock

    @classmethod
    async def open(cls, path: Path, *, clock: Callable[[], float] = time.time) -> Self:
        """Open or create the registry at *path* (0600). Raises StorageFull."""
        database = await open_database(path, REGISTRY_SCHEMA)
        await database.execute("PRAGMA foreign_keys=ON")
        return cls(database, clock)

    async def close(self) -> None:
        """Close the file."""
        await self.database.close()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        tb: TracebackType | None,
    ) -> None:
        await self.close()

    def now(self) -> int:
        """Return the registry's time in Unix seconds."""
        return int(self._clock())

    async def add_owner(self, owner_id: str) -> str:
        """Add an owner and return the API token, which is shown this once.

        Raises Refused: `bad_id`, `owner_exists`.
        """
        check_id("owner", owner_id)
        token = secrets.token_urlsafe(SECRET_BYTES)
        async with transaction(self.database):
            try:
                await self.database.execute(
                    "INSERT INTO owners VALUES (?, ?, ?)",
                    (owner_id, secret_hash(token), self.now()),
                )
            except sqlite3.IntegrityError:
                raise Refused("owner_exists", f"{owner_id} is an owner already") from None
        return token

    async def owners(self) -> tuple[str, ...]:
        """Return all owner ids, sorted."""
        rows = await fetch_all(self.database, "SELECT owner_id FROM owners ORDER BY 1")
        return tuple(row[0] for row in rows)

    async def owner_of_token(self, token: str) -> str | None:
        """Return whose API token this is, None if nobody's."""
        query = "SELECT owner_id FROM owners WHERE token_hash = ?"
        row = await fetch_one(self.database, query, (secret_hash(token),))
        return str(row[0]) if row else None

    async def add_server(self, owner_id: str, server_id: str) -> str:
        """Issue *server_id* and return its join secret, good for one use within an hour.

        A server that never enrolled gets a new secret in place of the old one. Raises Refused:
        `bad_id`, `unknown_owner`, `server_exists`.
        """
        check_id("server", server_id)
        secret = secrets.token_urlsafe(SECRET_BYTES)
        async with transaction(self.database):
            await self._require_owner(owner_id)
            known = await self.server(server_id)
            was_one = await fetch_one(
                self.database, "SELECT 1 FROM former_keys WHERE server_id = ?", (server_id,)
            )
            mine = known and (known.owner_id, known.state) == (owner_id, ServerState.PENDING)
            if was_one or (known and not mine):
                detail = f"{server_id} was issued before, and server ids are never issued twice"
                raise Refused("server_exists", detail)
            await self.database.execute(
                "INSERT INTO servers (server_id, owner_id, state, join_hash, join_expires_at)"
                " VALUES (?, ?, ?, ?, ?) ON CONFLICT (server_id) DO UPDATE SET"
                " join_hash = excluded.join_hash, join_expires_at = excluded.join_expires_at",
                (
                    server_id,
                    owner_id,
                    ServerState.PENDING,
                    secret_hash(secret),
                    self.now() + JOIN_SECONDS,
                ),
            )
        return secret

    async def server(self, server_id: str) -> ServerRecord | None:
        """Return one server, None if the id was never issued."""
        row = await fetch_one(self.database, f"{_SERVER} WHERE server_id = ?", (server_id,))
        return _record(row) if row else None

    async def require_server(self, server_id: str) -> ServerRecord:
        """Return one server. Raises Refused(`unknown_server`)."""
        record = await self.server(server_id)
        if record is None:
            raise Refused("unknown_server", f"no server {server_id} was ever issued")
        return record

    async def owner_of_active_server(self, server_id: str) -> str | None:
        """Return the owner; None unless the server is active (the config writer asks this)."""
        record = await self.server(server_id)
        return record.owner_id if record and record.active else None

    async def servers(self, owner_id: str | None = None) -> list[ServerRecord]:
        """Return the servers of one owner, or all, by id."""
        query = f"{_SERVER} WHERE ? IS NULL OR owner_id = ?1 ORDER BY server_id"
        rows = await fetch_all(self.database, query, (owner_id,))
        return [_record(row) for row in rows]

    async def void_nkeys(self, server_id: str) -> tuple[str, ...]:
        """Return the nkeys that this server signed in with and may no longer."""
        query = (
            "SELECT nkey FROM former_keys WHERE server_id = ? UNION ALL SELECT nkey FROM servers"
            " WHERE server_id = ?1 AND ended_at NOTNULL AND nkey NOTNULL"
        )
        rows = await fetch_all(self.database, query, (server_id,))
        return tuple(str(row[0]) for row in rows)

    async def set_state(self, server_id: str, state: ServerState, reason: str) -> ServerRecord:
        """Revoke or deprovision: no new tokens from here on, and the bus is to be told.

        Repeating it changes nothing. Raises Refused: `unknown_server`, `already_deprovisioned`.
        """
        async with transaction(self.database):
            record = await self.require_server(server_id)
            if next_state(record, state) is not record.state:
                await self.database.execute(
                    "UPDATE servers SET state = ?, reason = ?, ended_at = coalesce(ended_at, ?)"
                    " WHERE server_id = ?",
                    (state, reason, self.now(), server_id),
                )
                await self.database.execute("UPDATE claims SET wanted = wanted + 1")
                if record.nkey is not None:  # of one that never enrolled nobody has heard
                    await self.tell(_ended(record, state, reason))
            return await self.require_server(server_id)

    async def _require_owner(self, owner_id: str) -> None:
        query = "SELECT 1 FROM owners WHERE owner_id = ?"
        if await fetch_one(self.database, query, (owner_id,)) is None:
            detail = f"no owner {owner_id}; `byok owner add {owner_id}` makes one"
            raise Refused("unknown_owner", detail)

    async def tell(self, event: Event) -> None:
        """Queue a fact inside the caller's transaction."""
        await put(self.database, [fresh(event)])


def _ended(
    record: ServerRecord, state: ServerState, reason: str
) -> ServerRevoked | ServerDeprovisioned:
    kind = ServerRevoked if state is ServerState.REVOKED else ServerDeprovisioned
    return kind(server_id=record.server_id, owner_id=record.owner_id, reason=reason)


def _record(row: sqlite3.Row) -> ServerRecord:
    server_id, owner_id, state, nkey, identity_key, enrolled_at, ended_at, reason, *join = row
    return ServerRecord(
        server_id=server_id,
        owner_id=owner_id,
        state=ServerState(state),
        join=JoinUse(*join),
        nkey=nkey,
        identity_key=identity_key,
        enrolled_at=enrolled_at,
        ended_at=ended_at,
        reason=reason,
    )
