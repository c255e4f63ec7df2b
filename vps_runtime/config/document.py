"""Reads the server's own desired document back, whenever it may have changed.

Level-triggered: lost, repeated, reordered and forged nudges change nothing. Not found or
unreadable means *no news*, never "remove".
"""

import asyncio
import contextlib
from collections.abc import AsyncIterator

import structlog
from nats.aio.msg import Msg

from bus_schemas.codec import decode
from bus_schemas.errors import ContractError
from bus_schemas.events.config import ConfigDesired
from bus_schemas.streams import CONFIG
from bus_schemas.transport.back_off import jittered
from bus_schemas.transport.connection import Bus
from bus_schemas.transport.jetstream import StoredMessage, read_last
from vps_runtime.config.plan import Known, acceptable
from vps_runtime.state import Settings

_log = structlog.get_logger(__name__)

READS = 5
"""How often a document or a sealing is read again: a lagging replica may have answered."""

_FIRST_PAUSE = 0.05
_DEBOUNCE_SECONDS = 0.02
_LOOK_ANYWAY_SECONDS = 180.0


class DesiredDocument:
    """The document of one server, for one reader of it."""

    def __init__(self, bus: Bus, settings: Settings) -> None:
        self._bus = bus
        self._settings = settings
        self._subject = ConfigDesired.template.fill({"server_id": settings.server_id})
        self._nudged = asyncio.Event()

    @property
    def nudged(self) -> bool:
        """Whether something came up since the last `next`."""
        return self._nudged.is_set()

    def nudge(self) -> None:
        """Ask for a look soon."""
        self._nudged.set()

    async def listen(self) -> None:
        """Be nudged by the bus from now on, and begin with a look."""

        async def heard(message: Msg) -> None:
            if _is_document(message):
                self.nudge()

        self._bus.on_ready(self.nudge)  # anything may have been missed meanwhile
        await self._bus.listen(self._subject, heard)
        self.nudge()

    async def next(self) -> bool:
        """Wait for a nudge, or until it is time to look anyway; say which."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(jittered(_LOOK_ANYWAY_SECONDS)):
                await self._nudged.wait()
            await asyncio.sleep(_DEBOUNCE_SECONDS)  # many nudges, one look
            self._nudged.clear()
            return True
        return False

    async def read(self, known: int, *, expect_news: bool = False) -> ConfigDesired | None:
        """Return the document, unless it is older than generation *known*. Raises BusUnavailable.

        With *expect_news* one no newer than the known one is read again a few times.
        """
        await self._bus.client()  # an outage is the link's to tell
        settings, found = self._settings, None
        async for _ in attempts(READS if expect_news else 1):
            message = await read_last(self._bus, CONFIG.name, self._subject)
            document = decoded(message) if message else None
            where = Known(settings.server_id, settings.owner_id, known)
            if not isinstance(document, ConfigDesired) or not acceptable(document, where):
                continue
            found = document
            if document.generation > known:
                break
        return found


def _is_document(message: Msg) -> bool:
    """Whether *message* can be news: what config writers send, for the server it is sent to.

    A neighbour can have an answer to its own question delivered here, since nats-server checks no
    reply subject; that must not make this server read its document again and again.
    """
    try:
        return isinstance(decode(message.data, message.subject).data, ConfigDesired)
    except ContractError:
        return False


def decoded(message: StoredMessage) -> object:
    """Return the event in *message*, None if it is unreadable: that is no news, said once."""
    try:
        return decode(message.data, message.subject).data
    except ContractError as error:
        _log.warning("unreadable", subject=message.subject, error=str(error))
        return None


async def attempts(most: int) -> AsyncIterator[int]:
    """Count up to *most* attempts, pausing longer and longer between them."""
    for attempt in range(most):
        if attempt:
            await asyncio.sleep(jittered(_FIRST_PAUSE * 2**attempt))
        yield attempt
