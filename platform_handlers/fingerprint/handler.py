"""The fingerprint handler: ledger in, banner events out."""

import asyncio
from pathlib import Path

from bus_schemas.streams import LEDGER
from bus_schemas.transport.connection import Bus
from bus_schemas.transport.ledger import Batch, LedgerReader, Position
from bus_schemas.transport.outbox import OutboxPump
from bus_schemas.transport.pulse import watched
from platform_handlers.banner.announcer import Announcer
from platform_handlers.fingerprint.rules import RULES_VERSION
from platform_handlers.fingerprint.store import FingerprintStore

_STUCK_SECONDS = 120.0
"""A task that took no step for so long is stuck (`pulse`)."""


class FingerprintHandler:
    """Runs the store's three companions: the reader, the announcer and the pump for pointers."""

    def __init__(self, store: FingerprintStore, bus: Bus) -> None:
        self._store = store
        self._bus = bus
        self._announcer = Announcer(store.database, bus)
        self._pump = OutboxPump(store.database, bus)
        self.reader = LedgerReader(
            bus, LEDGER, "fingerprint", self, known_rules=frozenset({RULES_VERSION})
        )

    @classmethod
    async def open(cls, folder: Path, bus: Bus) -> "FingerprintHandler":
        """Open the handler's database in *folder*."""
        return cls(await FingerprintStore.open(folder / "fingerprint.db"), bus)

    async def position(self) -> Position | None:
        """Return where the store stands."""
        return await self._store.position()

    async def apply(self, batch: Batch) -> None:
        """Commit *batch*, then have its announcements and pointers sent."""
        await self._store.apply(batch)
        self._announcer.wake()
        self._pump.wake()

    async def run(self) -> None:
        """Run until cancelled. Raises ReaderMustStop inside an ExceptionGroup."""
        try:
            async with asyncio.TaskGroup() as tasks:
                for name, work in (
                    ("fingerprint announcer", self._announcer.run()),
                    ("fingerprint outbox", self._pump.run()),
                    ("fingerprint reader", self.reader.run()),
                ):
                    tasks.create_task(
                        watched(name, work, within=_STUCK_SECONDS, needs=self._bus), name=name
                    )
        finally:
            await self._store.close()
