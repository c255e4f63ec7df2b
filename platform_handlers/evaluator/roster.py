"""Who is a server right now: a machine may ask before the news of its enrolment has come."""

import asyncio
import contextlib
from collections.abc import AsyncIterator
from typing import Final

from platform_handlers.evaluator.servers import KnownServer, ServerStore, require_active

_NEWS_SECONDS: Final = 2.0
"""How long a machine is kept waiting for the news of itself."""


class Roster:
    """The servers of the store, as far as the ledger has told of them, and a little patience.

    Who asks holds a place in *room*, and leaves it while it waits for news: else as many badly
    signed requests as there are places would keep everybody out.
    """

    def __init__(self, servers: ServerStore, room: asyncio.Semaphore) -> None:
        self._servers = servers
        self._room = room
        self._news = asyncio.Condition()
        self._doubted: set[str] = set()

    async def heard_news(self) -> None:
        """Say that the ledger told of an enrolment: that machine may be waiting."""
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

        One at a time waits so for a server: there are no more waiting than servers.
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
        async with _outside(self._room):
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(_NEWS_SECONDS), self._news:
                    while True:
                        known = await self._servers.server(server_id)
                        if known is not None and known.enrolment >= enrolment:
                            break
                        await self._news.wait()
        return known


@contextlib.asynccontextmanager
async def _outside(room: asyncio.Semaphore) -> AsyncIterator[None]:
    """Give the caller's place in *room* to others meanwhile."""
    room.release()
    try:
        yield
    finally:
        await room.acquire()
