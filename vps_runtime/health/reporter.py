"""Reports health every minute, straight to the bus.

An old report is worth nothing, so none is kept for later.
"""

import asyncio
import importlib.metadata
import random
import time
from collections.abc import Iterable
from functools import partial

import structlog

from bus_schemas.errors import ByokError
from bus_schemas.events.fingerprint import MAX_SLOTS
from bus_schemas.events.health import HealthReported, SlotHealth, Validity
from bus_schemas.transport.connection import Bus
from bus_schemas.transport.fresh import fresh
from bus_schemas.transport.jetstream import store
from vps_runtime.unlocked import UnlockedServer
from vps_runtime.vault.credentials import Held

_log = structlog.get_logger(__name__)


class Reporter:
    """The one task that reports health."""

    def __init__(self, bus: Bus, server: UnlockedServer, interval: float) -> None:
        """*interval* is in seconds; the platform expects one report a minute."""
        self._bus = bus
        self._server = server
        self._interval = interval
        self._version = runtime_version()

    async def run(self) -> None:
        """Report for ever; cancel to stop. A report that does not get through is dropped."""
        while True:
            try:
                await self.report()
            except ByokError as error:
                _log.warning("health_not_reported", error=str(error))
            await asyncio.sleep(self._interval * random.uniform(0.9, 1.0))  # noqa: S311 (jitter)

    async def report(self) -> None:
        """Send one report. Raises BusUnavailable, StreamError, StorageFull."""
        server = self._server
        draft = partial(
            HealthReported,
            observed_generation=server.generation,
            runtime_version=self._version,
            outbox_depth=await server.facts.depth(),
            slots=slot_health(server.credentials.current.values(), time.time()),
        )
        await store(self._bus, fresh(await server.facts.numbered(draft)))


def slot_health(held: Iterable[Held], now: float) -> tuple[SlotHealth, ...]:
    """Return the report's part about slots; *now* in Unix seconds. Pure."""
    return tuple(
        SlotHealth(
            slot_id=entry.slot_id,
            provider=entry.provider,
            revision=entry.revision,
            validity=Validity.UNKNOWN,  # nobody has asked the provider yet
            age_seconds=max(0, int(now) - entry.stored_at),
        )
        for entry in held
    )[:MAX_SLOTS]


def runtime_version() -> str:
    """Return the version of this build, `0` when it runs from a bare checkout."""
    try:
        return importlib.metadata.version("byok-bus")
    except importlib.metadata.PackageNotFoundError:
        return "0"
