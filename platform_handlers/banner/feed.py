"""Keeps the board live from BYOK_BANNERS and tells the listeners of the owner concerned.

A listener belongs to one owner from its first moment, and an event is only ever offered to the
listeners of its own owner: there is no filter that could be forgotten.
"""

import asyncio
import contextlib
from collections import defaultdict
from collections.abc import Iterator

import structlog

from bus_schemas.codec import UnknownEvent, decode
from bus_schemas.errors import ContractError, ReaderMustStop
from bus_schemas.streams import BANNERS
from bus_schemas.transport.connection import Bus
from bus_schemas.transport.follow import follow
from bus_schemas.transport.jetstream import StoredMessage
from platform_handlers.banner.board import Board, Entry

_log = structlog.get_logger(__name__)

QUEUE = 256
"""Events that may wait for one listener."""
LISTENERS_PER_OWNER = 32


class TooManyListeners(Exception):
    """One owner holds more open streams than anybody needs."""


class Listener:
    """One open stream of one owner."""

    def __init__(self, size: int) -> None:
        self._queue: asyncio.Queue[Entry] = asyncio.Queue(size)
        self._lost = False

    def offer(self, entry: Entry) -> bool:
        """Queue *entry*; False when the listener is too slow and is given up."""
        try:
            self._queue.put_nowait(entry)
        except asyncio.QueueFull:
            self._lost = True
        return not self._lost

    async def next(self) -> Entry | None:
        """Wait for the next entry; None once something was lost: read everything anew."""
        return None if self._lost else await self._queue.get()


class Feed:
    """The board of one dashboard process, and who listens to it."""

    def __init__(self, *, queue: int = QUEUE) -> None:
        self.board = Board()
        self._queue = queue
        self._listeners: dict[str, set[Listener]] = defaultdict(set)
        self._caught_up = asyncio.Event()

    async def run(self, bus: Bus) -> None:
        """Follow the stream for ever over *bus* (role DASHBOARD); cancel to stop.

        Raises ReaderMustStop at an event of a newer major: skipping it would show old news.
        """
        async for batch in follow(bus, BANNERS, self.board.cursor + 1):
            for message in batch:
                self.take(message)
            if not batch:
                self._caught_up.set()

    def take(self, message: StoredMessage) -> None:
        """Take in one stored message. Raises ReaderMustStop."""
        try:
            envelope = decode(message.data, message.subject)
        except ContractError as error:
            if isinstance(error, UnknownEvent) and error.reason == "unknown_major":
                remedy = f"{error.type} is newer than this build; upgrade the dashboard"
                raise ReaderMustStop("unknown_major", message.sequence, remedy) from None
            # A reader may not write, so it cannot park; the handlers' own readers do.
            _log.warning("banner_unreadable", sequence=message.sequence, reason=error.reason)
            self.board.pass_by(message.sequence)
            return
        entry = self.board.apply(envelope, message.sequence)
        if entry is not None:
            self._tell(entry)

    async def caught_up(self) -> None:
        """Wait until everything stored so far is on the board."""
        await self._caught_up.wait()

    @contextlib.contextmanager
    def listen(self, owner_id: str) -> Iterator[Listener]:
        """Hear what happens to *owner_id*'s banners from now on. Raises TooManyListeners."""
        mine = self._listeners[owner_id]
        if len(mine) >= LISTENERS_PER_OWNER:
            raise TooManyListeners
        listener = Listener(self._queue)
        mine.add(listener)
        try:
            yield listener
        finally:
            mine.discard(listener)

    def _tell(self, entry: Entry) -> None:
        listeners = self._listeners.get(entry.banner.owner_id, set())
        for listener in tuple(listeners):
            if not listener.offer(entry):
                listeners.discard(listener)
