"""Enrolment: a join secret is spent once, and a machine becomes a server."""

import sqlite3
from dataclasses import dataclass
from typing import Final

from bus_schemas.errors import Refused
from bus_schemas.events import ServerProvisioned, ServerReenrolled
from bus_schemas.nkeys import public_bytes
from bus_schemas.transport.database import fetch_all, fetch_one, transaction
from platform_handlers.provisioning.records import (
    JoinAttempt,
    ServerRecord,
    ServerState,
    check_joinable,
    joiner_name,
    secret_hash,
)
from platform_handlers.provisioning.registry import Registry

KEPT_ATTEMPTS: Final = 16
"""Of each server the newest, beside every enrolment: repeating one must not fill the disk."""


@dataclass(frozen=True)
class Enrolment:
    """A server's request to enrol, and where it came from."""

    server_id: str
    secret: str
    nkey: str
    identity_key: bytes
    source: str
    """Address of the machine, as the bus saw it."""
    joiner: str
    """Name of the NATS user that asks (`joiner_name`), as the bus vouches for it."""

    def __repr__(self) -> str:
        return f"Enrolment({self.server_id} from {self.source})"


class Enrolments:
    """Who joins a registry."""

    def __init__(self, registry: Registry) -> None:
        self._registry = registry
        self._database = registry.database

    async def enrol(self, wish: Enrolment) -> ServerRecord:
        """Spend the join secret and make the server active; its fact goes to the outbox.

        Of two machines with one token the first whose transaction begins is the server. It may
        ask again within the hour, its answer may have got lost. Raises
        Refused: `bad_join_secret`, `join_token_used`, `join_token_expired`, `bad_nkey`,
        `key_in_use`, `server_revoked`, `server_deprovisioned`.
        """
        _check_nkey(wish.nkey)
        try:
            async with transaction(self._database):
                record = await self._admit(wish)
        except sqlite3.IntegrityError:
            error = Refused("key_in_use", f"the keys of {wish.server_id} belong to another server")
        except Refused as refused:
            error = refused
        else:
            return record
        await self._note_refusal(wish, error.reason)
        raise error

    async def _admit(self, wish: Enrolment) -> ServerRecord:
        query = "SELECT 1 FROM servers WHERE server_id = ? AND join_hash = ?"
        key = (wish.server_id, secret_hash(wish.secret))
        if await fetch_one(self._database, query, key) is None:
            raise Refused("bad_join_secret", f"not the join token of {wish.server_id}")
        record = await self._registry.require_server(wish.server_id)
        now = self._registry.now()
        enrols = check_joinable(record, wish.nkey, wish.identity_key, at=now)
        await self._note(wish, "enrolled" if enrols else "again")
        if enrols:
            kind = await self._kind(wish)
            await self._database.execute(
                "UPDATE servers SET state = ?, nkey = ?, identity_key = ?, enrolled_at = ?,"
                " join_used_at = ?4, join_used_from = ? WHERE server_id = ?",
                (
                    ServerState.ACTIVE,
                    wish.nkey,
                    wish.identity_key,
                    now,
                    wish.source,
                    wish.server_id,
                ),
            )
            await self._registry.tell(
                kind(
                    server_id=wish.server_id,
                    owner_id=record.owner_id,
                    nkey=wish.nkey,
                    identity_key=wish.identity_key,
                )
            )
        return await self._registry.require_server(wish.server_id)

    async def _kind(self, wish: Enrolment) -> type[ServerProvisioned | ServerReenrolled]:
        """Say which fact tells of *wish*. Raises Refused(`key_in_use`): a void key stays void."""
        query = "SELECT server_id, nkey, identity_key FROM former_keys WHERE server_id = ?"
        query += " OR nkey = ? OR identity_key = ?"
        ids = (wish.server_id, wish.nkey, wish.identity_key)
        former = await fetch_all(self._database, query, ids)
        if any(wish.nkey == nkey or wish.identity_key == key for _, nkey, key in former):
            detail = "these keys were a former machine's; remove its state folder and join anew"
            raise Refused("key_in_use", detail)
        return ServerReenrolled if former else ServerProvisioned

    async def attempts(self, server_id: str) -> list[JoinAttempt]:
        """Return who used the server's join tokens or tried to, oldest first."""
        query = (
            "SELECT at, source, outcome FROM join_attempts WHERE server_id = ? ORDER BY position"
        )
        rows = await fetch_all(self._database, query, (server_id,))
        return [JoinAttempt(*row) for row in rows]

    async def _note(self, wish: Enrolment, outcome: str) -> None:
        """Leave a trace, for `byok server show`."""
        await self._database.execute(
            "INSERT INTO join_attempts (server_id, at, source, outcome) VALUES (?, ?, ?, ?)",
            (wish.server_id, self._registry.now(), wish.source, outcome),
        )
        await self._database.execute(
            "DELETE FROM join_attempts WHERE position IN (SELECT position FROM join_attempts"
            " WHERE server_id = ? AND outcome != 'enrolled'"
            " ORDER BY position DESC LIMIT -1 OFFSET ?)",
            (wish.server_id, KEPT_ATTEMPTS),
        )

    async def _note_refusal(self, wish: Enrolment, reason: str) -> None:
        """Leave a trace at the server whose token was used, and at no other.

        Else the holder of any token could write what it likes into another server's attempts, and
        push out the true ones.
        """
        async with transaction(self._database):
            query = "SELECT join_hash FROM servers WHERE server_id = ?"
            row = await fetch_one(self._database, query, (wish.server_id,))
            if row is None or joiner_name(row[0]) != wish.joiner:
                return
            await self._note(wish, reason)
            await self._database.execute(
                "UPDATE servers SET join_tried_at = ?, join_tried_from = ? WHERE server_id = ?",
                (self._registry.now(), wish.source, wish.server_id),
            )


def _check_nkey(nkey: str) -> None:
    try:
        public_bytes(nkey)
    except ValueError:
        raise Refused("bad_nkey", "the server's nkey has a wrong checksum") from None
