"""Reports health every minute, straight to the bus.

An old report is worth nothing, so none is kept for later.
"""

import asyncio
import importlib.metadata
import random
import time
from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial

import structlog

from bus_schemas.errors import ByokError
from bus_schemas.events.health import HealthReported
from bus_schemas.transport.connection import Bus
from bus_schemas.transport.fresh import fresh
from bus_schemas.transport.jetstream import store
from vps_runtime.facts.store import Facts
from vps_runtime.facts.told import notes
from vps_runtime.health.projection import slot_health
from vps_runtime.health.signs import Signs, Summary
from vps_runtime.keys.calls import Answer
from vps_runtime.orders.rules import is_locked
from vps_runtime.vault.credentials import CredentialStore

_log = structlog.get_logger(__name__)


@dataclass(frozen=True)
class Sources:
    """What an unlocked server's reports are made from, besides its memory."""

    credentials: CredentialStore
    last: Mapping[str, Answer]
    """`Calls.last`."""
    signs: Signs


class Reporter:
    """The one task that reports health."""

    def __init__(
        self,
        bus: Bus,
        facts: Facts,
        interval: float,
        sources: Sources | None = None,
    ) -> None:
        """*interval* is in seconds; the platform expects one report a minute.

        Without *sources*, as while the server is locked, it reports what was told as held.
        """
        self._bus = bus
        self._facts = facts
        self._interval = interval
        self._sources = sources
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
        draft = partial(self._as_of_now, await self._facts.depth())
        await store(self._bus, fresh(await self._facts.numbered(draft)))

    def _as_of_now(
        self, outbox_depth: int, *, server_id: str, incarnation: int, n: int
    ) -> HealthReported:
        """Return the report numbered *n*.

        It is made while that number is given out, so it speaks of the keys as they were after every
        fact with a lower number and before every fact with a higher one: readers rely on it.
        """
        told, sources = self._facts.told, self._sources
        held = notes(told) if sources is None else sources.credentials.held.values()
        slots = slot_health(held, told, {} if sources is None else sources.last, time.time())
        mine = [slot.slot_id for slot in slots]
        seen = Summary() if sources is None else sources.signs.summary(mine)
        return HealthReported(
            server_id=server_id,
            incarnation=incarnation,
            n=n,
            observed_generation=int(told.get("generation", 0)),
            runtime_version=self._version,
            outbox_depth=outbox_depth,
            slots=slots,
            locked=is_locked(told) or None,
            link=seen.link,
            agent=seen.agent,
            provider=seen.provider,
        )


def runtime_version() -> str:
    """Return the version of this build, `0` when it runs from a bare checkout."""
    try:
        return importlib.metadata.version("byok-bus")
    except importlib.metadata.PackageNotFoundError:
        return "0"
