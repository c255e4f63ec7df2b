"""The health handler: reads reports, tells the ledger only what changed."""

import asyncio
import time
from datetime import datetime
from pathlib import Path

import structlog

from bus_schemas.codec import decode
from bus_schemas.errors import ContractError
from bus_schemas.events import HealthReported, StatusChanged
from bus_schemas.streams import HEALTH, LEDGER
from bus_schemas.transport.connection import Bus
from bus_schemas.transport.database import StorageFull
from bus_schemas.transport.follow import follow
from bus_schemas.transport.jetstream import StoredMessage
from bus_schemas.transport.ledger import Batch, LedgerReader, Position
from bus_schemas.transport.outbox import OutboxPump
from bus_schemas.transport.pulse import watched
from platform_handlers.doors.rules import Allowance, Door
from platform_handlers.health.rules import on_report, on_silence
from platform_handlers.health.store import HealthStore

_log = structlog.get_logger(__name__)
_LOOK_SECONDS = 10.0
_SLOT_CHANGES = Allowance(burst=256, per_second=256 / (24 * 3600), at_once=1)
"""What one server's reports may add to the ledger: all slots' keys refused and taken, twice."""
_STUCK_SECONDS = 120.0
"""A task that took no step for so long is stuck (`pulse`)."""


class HealthHandler:
    """Folds the ledger, follows the reports, and minds the silence."""

    def __init__(self, store: HealthStore, bus: Bus) -> None:
        self._store = store
        self._bus = bus
        self._pump = OutboxPump(store.database, bus)
        self._reader = LedgerReader(bus, LEDGER, "health", self)
        self._last_report: dict[str, float] = {}
        self._door = Door(_SLOT_CHANGES)
        self._listening_since = time.time()
        bus.on_ready(self._listen_anew)

    @classmethod
    async def open(cls, folder: Path, bus: Bus) -> "HealthHandler":
        """Open the handler's database in *folder*."""
        return cls(await HealthStore.open(folder / "health.db"), bus)

    async def position(self) -> Position | None:
        """Return where the store stands."""
        return await self._store.position()

    async def apply(self, batch: Batch) -> None:
        """Commit *batch*, then have its pointers sent."""
        await self._store.apply(batch)
        self._pump.wake()

    async def run(self) -> None:
        """Run until cancelled. Raises ReaderMustStop inside an ExceptionGroup."""
        try:
            async with asyncio.TaskGroup() as tasks:
                for name, work in (
                    ("health outbox", self._pump.run()),
                    ("health reader", self._reader.run()),
                    ("health silence", self._mind_silence()),
                ):
                    tasks.create_task(
                        watched(name, work, within=_STUCK_SECONDS, needs=self._bus), name=name
                    )
                tasks.create_task(self._follow_reports(), name="health reports")
        finally:
            await self._store.database.close()

    async def _follow_reports(self) -> None:
        await self._reader.caught_up()  # however long that takes: the reader is watched itself
        reports = self._take_reports()
        await watched("health reports", reports, within=_STUCK_SECONDS, needs=self._bus)

    async def _take_reports(self) -> None:
        async for messages in follow(self._bus, HEALTH, 1):
            for message in messages:
                await self._take(message)

    async def _take(self, message: StoredMessage) -> None:
        try:
            report = decode(message.data, message.subject).data
        except ContractError as error:
            _log.warning("report_unusable", subject=message.subject, reason=error.reason)
            return
        if isinstance(report, HealthReported):
            reported = datetime.fromisoformat(message.stored_at).timestamp()
            self._last_report[report.server_id] = reported
            known = self._store.servers.get(report.server_id)
            if known and known.active:
                changes = on_report(known, report, at=reported, now=time.time())
                await self._tell([change for change in changes if self._may_tell(change)])

    def _may_tell(self, change: StatusChanged) -> bool:
        """Whether to tell a slot's change now: a server could say this, then that, for ever.

        What is held back is told by a later report. What is said of the server as a whole is not
        counted: its thief must not be able to use that up.
        """
        if change.slot_id is None:
            return True
        away = self._door.spend(change.server_id, now=time.monotonic())
        if away is not None and away.worth_telling:
            _log.warning("status_held_back", server=change.server_id, count=away.count)
        return away is None

    async def _mind_silence(self) -> None:
        while True:
            await asyncio.sleep(_LOOK_SECONDS)
            if self._bus.connected:
                await self._tell(self._silent_now())

    def _silent_now(self) -> list[StatusChanged]:
        return on_silence(
            self._store.servers,
            self._last_report,
            listening_since=self._listening_since,
            now=time.time(),
        )

    def _listen_anew(self) -> None:
        """Give everybody time to be heard again after an outage of the bus."""
        self._listening_since = time.time()

    async def _tell(self, changes: list[StatusChanged]) -> None:
        if not changes:
            return
        try:
            await self._store.tell(changes)
            self._pump.wake()
        except StorageFull as error:  # the next report, or the next look, tells it again
            _log.warning("status_not_told", error=str(error))
