"""Reports health every minute, straight to the bus.

An old report is worth nothing, so none is kept for later.
"""

import asyncio
import importlib.metadata
import random
import time
from collections.abc import Callable, Collection, Iterable
from functools import partial

import structlog

from bus_schemas.errors import ByokError
from bus_schemas.events.fingerprint import MAX_SLOTS
from bus_schemas.events.health import HealthReported, SlotHealth, Validity
from bus_schemas.transport.connection import Bus
from bus_schemas.transport.fresh import fresh
from bus_schemas.transport.jetstream import store
from vps_runtime.facts.store import Facts
from vps_runtime.facts.told import StoredNote, newest_notes
from vps_runtime.orders.rules import is_locked, stopped
from vps_runtime.vault.credentials import Held

_log = structlog.get_logger(__name__)


class Reporter:
    """The one task that reports health."""

    def __init__(
        self,
        bus: Bus,
        facts: Facts,
        interval: float,
        held: Callable[[], Iterable[Held | StoredNote]] | None = None,
    ) -> None:
        """*interval* is in seconds; the platform expects one report a minute.

        Without *held*, as while the server is locked, it reports what was told as held.
        """
        self._bus = bus
        self._facts = facts
        self._interval = interval
        self._held = held or (lambda: newest_notes(facts.told))
        self._version = runtime_version()

    async def run(self) -> None:
        """Report for ever; cancel to stop. A report that does not get through is dropped."""
        while True:
            await self._bus.client()  # an outage is the link's to tell
            try:
                await self.report()
            except ByokError as error:
                _log.warning("health_not_reported", error=str(error))
            await asyncio.sleep(self._interval * random.uniform(0.9, 1.0))  # noqa: S311 (jitter)

    async def report(self) -> None:
        """Send one report. Raises BusUnavailable, StreamError, StorageFull."""
        told = self._facts.told
        draft = partial(
            HealthReported,
            observed_generation=int(told.get("generation", 0)),
            runtime_version=self._version,
            outbox_depth=await self._facts.depth(),
            slots=slot_health(self._held(), time.time(), stopped(told)),
            locked=is_locked(told) or None,
        )
        await store(self._bus, fresh(await self._facts.numbered(draft)))


def slot_health(
    held: Iterable[Held | StoredNote], now: float, stopped_slots: Collection[str] = ()
) -> tuple[SlotHealth, ...]:
    """Return the report's part about slots; *now* in Unix seconds. Pure."""
    return tuple(
        SlotHealth(
            slot_id=entry.slot_id,
            provider=entry.provider,
            revision=entry.revision,
            validity=Validity.UNKNOWN,  # nobody has asked the provider yet
            age_seconds=max(0, int(now) - entry.stored_at),
            stopped=entry.slot_id in stopped_slots or None,
        )
        for entry in held
    )[:MAX_SLOTS]


def runtime_version() -> str:
    """Return the version of this build, `0` when it runs from a bare checkout."""
    try:
        return importlib.metadata.version("byok-bus")
    except importlib.metadata.PackageNotFoundError:
        return "0"
