"""Clients whose successor is there: each goes once nobody waits for an answer that comes to it."""

import asyncio
import contextlib
from collections import Counter
from collections.abc import Iterator
from typing import Final

from nats.aio.client import Client

from bus_schemas.transport.nats_manners import shut

_LAST_ANSWERS_SECONDS: Final = 10
"""No answer is waited for longer than that."""


class Retiring:
    """The clients of one connection, as far as they are asked something or on their way out."""

    def __init__(self) -> None:
        self._asking: Counter[Client] = Counter()
        self._answered = asyncio.Event()
        self._closing = False
        self._tasks: set[asyncio.Task[None]] = set()

    @contextlib.contextmanager
    def in_flight(self, client: Client) -> Iterator[None]:
        """Count a question that is asked by *client*."""
        self._asking[client] += 1
        try:
            yield
        finally:
            self._asking[client] -= 1
            if not self._asking[client]:
                del self._asking[client]  # nobody else may hold it: it would never be freed
            self._answered.set()

    def retire(self, client: Client) -> None:
        """Close *client* when its last question is answered."""
        task = asyncio.create_task(self._retire(client), name="bus client retiring")
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def close(self) -> None:
        """Close all that are on their way out, and wait for no answer any more."""
        self._closing = True
        self._answered.set()
        await asyncio.gather(*self._tasks)

    async def _retire(self, client: Client) -> None:
        try:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(_LAST_ANSWERS_SECONDS):
                    while self._asking[client] and not self._closing:
                        self._answered.clear()
                        await self._answered.wait()
        finally:
            await shut(client)
