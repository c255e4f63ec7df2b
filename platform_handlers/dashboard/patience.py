"""Connections of people who never ask: they are let go, and there are never too many of them.

uvicorn waits for ever for a first request. The API shares its process, and so its number of open
files, with every handler: a stranger who only connects could stop them all.
"""

import asyncio
from typing import Final

from uvicorn.protocols.http.h11_impl import H11Protocol

SILENCE_SECONDS: Final = 20.0
MOST_CONNECTIONS: Final = 512
"""At once, open streams included; half of the files a process may usually have open."""


class PatientProtocol(H11Protocol):
    """HTTP/1.1 with an end to waiting."""

    silence_seconds = SILENCE_SECONDS
    most_connections = MOST_CONNECTIONS
    _looking: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Take a connection, or close it at once when there are too many."""
        super().connection_made(transport)
        if len(self.connections) > self.most_connections:
            transport.abort()
        else:
            self._look_again()

    def connection_lost(self, exc: Exception | None) -> None:
        """Forget it."""
        if self._looking:
            self._looking.cancel()
        super().connection_lost(exc)

    def _look_again(self) -> None:
        self._looking = self.loop.call_later(self.silence_seconds, self._look)

    def _look(self) -> None:
        """Close a connection without a request in progress; half a header is none."""
        # Before the first request there is no cycle, which uvicorn's types do not say.
        if getattr(self.cycle, "response_complete", True):
            self.transport.abort()
        else:
            self._look_again()
