"""Obeys the orders in the desired document, whether this server is locked or not.

A task of its own: an order must not wait behind a credential that is being fetched.
"""

import asyncio
import contextlib

import structlog

from bus_schemas.errors import ByokError
from bus_schemas.transport.back_off import jittered
from bus_schemas.transport.connection import Bus
from vps_runtime.config.document import DesiredDocument
from vps_runtime.orders.obey import Orders
from vps_runtime.state import Settings

_log = structlog.get_logger(__name__)

_PAUSE_SECONDS = 1.0


class OrderWatch:
    """The one task that obeys."""

    def __init__(self, bus: Bus, settings: Settings, orders: Orders) -> None:
        self._document = DesiredDocument(bus, settings)
        self._orders = orders

    async def run(self) -> None:
        """Obey for ever; cancel to stop. Raises LockOrdered."""
        await self._document.listen()
        while True:
            await self._once()

    async def until_unlocked(self) -> None:
        """Obey until an order has lifted the lock."""
        await self._document.listen()
        while self._orders.locked:
            await self._once()

    async def _once(self) -> None:
        nudged = await self._document.next()
        try:
            await self._look(expect_news=nudged)
        except (ByokError, OSError) as error:
            _log.warning("orders_wait", error=str(error))
            await asyncio.sleep(jittered(_PAUSE_SECONDS))
            self._document.nudge()

    async def _look(self, *, expect_news: bool) -> None:
        with contextlib.suppress(ByokError, OSError):  # a lock behind it must not wait for that
            await self._orders.finish()  # now: there may be no document to read
        known = self._orders.generation
        document = await self._document.read(known, expect_news=expect_news)
        if document is None:
            await self._orders.finish()
        else:
            await self._orders.obey(document)
