"""Who is a server right now: a machine may ask before the news of its enrolment has come."""

import asyncio
import contextlib
from typing import Final

from platform_handlers.evaluator.servers import KnownServer, ServerStore, require_active

_NEWS_SECONDS: Final = 2.0
"""How long a machine is kept waiting for the news of itself."""


class Roster:
    """The servers of the store, as far as the ledger has told of them, and a little patience."""

    def __init__(self, servers: ServerStore) -> None:
        self._servers = servers
        self._news = asyncio.Condition()
        self._doubted: set[str] = set()

    async def heard_news(self) -> None:
        """Say that the ledger told something: whoever just enrolled may be waiting."""
        async with self._news:
            self._news.notify_all()

    async def active(self, server_id: str) -> KnownServer:
        """Return an active server. Raises Refused: `unknown_server`, `server_not_active`."""
        known = await self._servers.server(server_id)
        if known is None:
            known = await self._heard_of(server_id, 1)
        return require_active(server_id, known)

    async def newer(self, server: KnownServer) -> KnownServer:
        """Return *server* as it is after a moment, in which it may have been enrolled again.

        One at a time waits so for a server: badly signed requests must not take all the room.
        """
        server_id = server.server_id
        if server_id in self._doubted:
            return server
        self._doubted.add(server_id)
        try:
            known = await self._heard_of(server_id, server.enrolment + 1)
        finally:
            self._doubted.discard(server_id)
        return require_active(server_id, known)

    async def _heard_of(self, server_id: str, enrolment: int) -> KnownServer | None:
        """Return the server, waiting a moment for the news of that *enrolment*."""
        known = None
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(_NEWS_SECONDS), self._news:
                while True:
                    known = await self._servers.server(server_id)
                    if known is not None and known.enrolment >= enrolment:
                        break
                    await self._news.wait()
        return known
