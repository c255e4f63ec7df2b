"""How a person reaches the dashboard: a one-time link, then a session in a cookie."""

import secrets

from bus_schemas.errors import Refused
from bus_schemas.transport.database import fetch_one, transaction
from platform_handlers.provisioning.records import (
    LINK_SECONDS,
    SESSION_SECONDS,
    Session,
    secret_hash,
)
from platform_handlers.provisioning.registry import SECRET_BYTES, Registry


class SignIns:
    """Links and sessions of the owners in a registry; only their hashes are kept."""

    def __init__(self, registry: Registry) -> None:
        self._registry = registry
        self._database = registry.database

    async def make_link(self, owner_id: str) -> str:
        """Return the secret of a new link: 15 minutes, one use. Raises Refused(`unknown_owner`)."""
        secret = secrets.token_urlsafe(SECRET_BYTES)
        now = self._registry.now()
        if owner_id not in await self._registry.owners():
            raise Refused("unknown_owner", f"no owner {owner_id}")
        async with transaction(self._database):
            await self._sweep("links", now)
            await self._database.execute(
                "INSERT INTO links VALUES (?, ?, ?)",
                (secret_hash(secret), owner_id, now + LINK_SECONDS),
            )
        return secret

    async def redeem_link(self, secret: str) -> Session | None:
        """Use up a link and return a new session of 12 hours; None if the link is no good."""
        now = self._registry.now()
        session = secrets.token_urlsafe(SECRET_BYTES)
        async with transaction(self._database):
            await self._sweep("links", now)
            await self._sweep("sessions", now)
            query = "DELETE FROM links WHERE hash = ? RETURNING owner_id"
            found = await fetch_one(self._database, query, (secret_hash(secret),))
            if found is None:
                return None
            await self._database.execute(
                "INSERT INTO sessions VALUES (?, ?, ?)",
                (secret_hash(session), found[0], now + SESSION_SECONDS),
            )
        return Session(str(found[0]), session, now + SESSION_SECONDS)

    async def session(self, secret: str) -> Session | None:
        """Return the living session of this cookie."""
        query = "SELECT owner_id, expires_at FROM sessions WHERE hash = ? AND expires_at > ?"
        key = (secret_hash(secret), self._registry.now())
        row = await fetch_one(self._database, query, key)
        return Session(str(row[0]), secret, int(row[1])) if row else None

    async def open_session(self, link_secret: str) -> str | None:
        """Use up a link and return the new session's secret (the dashboard's `Sessions`)."""
        session = await self.redeem_link(link_secret)
        return session.secret if session else None

    async def owner_of_session(self, session: str) -> str | None:
        """Return whose living session this is."""
        found = await self.session(session)
        return found.owner_id if found else None

    async def end_session(self, session: str) -> None:
        """Forget the session."""
        await self._database.execute("DELETE FROM sessions WHERE hash = ?", (secret_hash(session),))

    async def _sweep(self, table: str, now: int) -> None:
        await self._database.execute(f"DELETE FROM {table} WHERE expires_at <= ?", (now,))  # noqa: S608 (two names, both above)
