"""The config handler as a running thing: writer, view, ledger reader, outbox and purger."""

import asyncio
from typing import Self

import structlog

from bus_schemas.flows import Role
from bus_schemas.streams import LEDGER
from bus_schemas.transport.connection import Bus
from bus_schemas.transport.database import StorageFull
from bus_schemas.transport.jetstream import StreamError
from bus_schemas.transport.ledger import Batch, LedgerReader, Position
from bus_schemas.transport.outbox import OutboxPump
from bus_schemas.transport.pulse import watched
from bus_schemas.transport.target import BusTarget, BusUnavailable
from bus_schemas.transport.wake import woken
from platform_handlers.authority.installation import Installation
from platform_handlers.authority.role_bus import role_bus
from platform_handlers.config.orders.writer import OrderWriter
from platform_handlers.config.purger import purge_stored
from platform_handlers.config.reports import LastReports
from platform_handlers.config.store import FILE_NAME, ConfigStore
from platform_handlers.config.view import ConfigView
from platform_handlers.config.writer import ConfigWriter, ServerOwners

_log = structlog.get_logger(__name__)

_PURGE_AGAIN_SECONDS = 5.0
_LOOK_ANYWAY_SECONDS = 30.0
"""An idle purger still takes a step now and then: `pulse` tells it from one that is stuck."""
_STUCK_SECONDS = 120.0
"""A task that took no step for so long is stuck (`pulse`)."""


class ConfigHandler:
    """Build it with `open`, ask `writer` and `view`, keep `run` running, then `close`."""

    def __init__(
        self, store: ConfigStore, bus: Bus, owners: ServerOwners, platform_key: bytes | None = None
    ) -> None:
        """Join the parts; *platform_key* is the public half of the platform's order key."""
        self._store = store
        self._pump = OutboxPump(store.database, bus)
        self._bus = bus
        self._folded = asyncio.Event()
        self.writer = ConfigWriter(bus, owners)
        self.orders = OrderWriter(bus, store, platform_key)
        self.view = ConfigView(store, self.writer, LastReports(bus))
        self.reader = LedgerReader(bus, LEDGER, "config", self)

    @classmethod
    async def open(
        cls, installation: Installation, target: BusTarget, owners: ServerOwners
    ) -> Self:
        """Open the store and begin to connect. Raises StorageFull."""
        path = installation.platform / FILE_NAME
        bus = role_bus(installation, target, Role.CONFIG).open_in_background()
        store = await ConfigStore.open(path)
        return cls(store, bus, owners, installation.orders_public_key())

    async def run(self) -> None:
        """Read, tell and purge until cancelled. Raises ReaderMustStop."""
        async with asyncio.TaskGroup() as tasks:
            for name, work in (
                ("config reader", self.reader.run()),
                ("config outbox", self._pump.run()),
                ("config purger", self._keep_purging()),
            ):
                tasks.create_task(
                    watched(name, work, within=_STUCK_SECONDS, needs=self._bus), name=name
                )

    async def close(self) -> None:
        """Close everything."""
        await self._bus.close()
        await self._store.close()

    async def position(self) -> Position | None:
        """Return the store's position (`LedgerStore`)."""
        return await self._store.position()

    async def apply(self, batch: Batch) -> None:
        """Fold a batch, then wake those who act on it (`LedgerStore`)."""
        await self._store.apply(batch)
        self._folded.set()
        self._pump.wake()

    async def _keep_purging(self) -> None:
        while True:
            self._folded.clear()
            try:
                await purge_stored(self._bus, self._store)
                await self.orders.withdraw_answered()
            except (BusUnavailable, StreamError, StorageFull) as error:
                _log.warning("purge_waits", error=str(error))
                await asyncio.sleep(_PURGE_AGAIN_SECONDS)
            else:
                await woken(self._folded, _LOOK_ANYWAY_SECONDS)
