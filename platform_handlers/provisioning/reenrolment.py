"""Re-enrolment: another machine is to take a server's place, and the old one stops being it.

The old machine's keys are void from this moment and not only once the new one has come: whoever
has them may be the reason (ADR-22).
"""

import secrets

from bus_schemas.transport.database import fetch_one, transaction
from platform_handlers.provisioning.records import (
    JOIN_SECONDS,
    ServerState,
    check_replaceable,
    secret_hash,
)
from platform_handlers.provisioning.registry import SECRET_BYTES, Registry


class Reenrolments:
    """Who may be replaced in a registry."""

    def __init__(self, registry: Registry) -> None:
        self._registry = registry
        self._database = registry.database

    async def begin(self, server_id: str) -> str:
        """Make the server's keys void and return a new join secret: an hour, one use.

        The ledger hears of it when the new machine enrols. Asked for again before that, the newer
        secret replaces the older. Raises Refused: `unknown_server`, `server_deprovisioned`,
        `never_enrolled`.
        """
        secret = secrets.token_urlsafe(SECRET_BYTES)
        async with transaction(self._database):
            record = await self._registry.require_server(server_id)
            before = await fetch_one(
                self._database, "SELECT 1 FROM former_keys WHERE server_id = ?", (server_id,)
            )
            check_replaceable(record, had_keys=before is not None)
            now = self._registry.now()
            moved = await self._database.execute(
                "INSERT INTO former_keys SELECT nkey, identity_key, server_id,"
                " coalesce(ended_at, ?) FROM servers WHERE server_id = ? AND nkey NOTNULL",
                (now, server_id),
            )
            if moved.rowcount:
                await self._database.execute("UPDATE claims SET wanted = wanted + 1")
            await self._database.execute(
                "UPDATE servers SET state = ?, nkey = NULL, identity_key = NULL, ended_at = NULL,"
                " reason = NULL, enrolled_at = NULL, join_hash = ?, join_expires_at = ?,"
                " join_used_at = NULL, join_used_from = NULL, join_tried_at = NULL,"
                " join_tried_from = NULL WHERE server_id = ?",
                (ServerState.PENDING, secret_hash(secret), now + JOIN_SECONDS, server_id),
            )
        return secret
