"""What the API shows of a server's slots: the desired document, and the server's own words."""

from dataclasses import dataclass
from datetime import datetime

from bus_schemas.api import (
    RotationView,
    ServerHealth,
    SlotHistory,
    SlotStep,
    SlotView,
    StepView,
)
from bus_schemas.events import ConfigDesired, HealthReported
from bus_schemas.events.config import DesiredSlot
from bus_schemas.fields import Utc
from bus_schemas.keys import SignedSealingKey
from platform_handlers.config.projection import Progress
from platform_handlers.config.reports import LastReport, LastReports
from platform_handlers.config.store import ConfigStore
from platform_handlers.config.writer import ConfigWriter


@dataclass(frozen=True)
class ServerStanding:
    """How a server and its slots stand."""

    slots: tuple[SlotView, ...] = ()
    """By id."""
    locked: bool | None = None
    """True while a signed order keeps it locked, by its last report."""
    reported_at: datetime | None = None
    """When that report came; None for none within a day."""
    health: ServerHealth | None = None
    """What it says of the server as a whole."""


class ConfigView:
    """Read access to what servers should hold and do hold."""

    def __init__(self, store: ConfigStore, writer: ConfigWriter, reports: LastReports) -> None:
        self._store = store
        self._writer = writer
        self._reports = reports

    async def sealing_key(self, server_id: str) -> SignedSealingKey | None:
        """Return the newest key the server has announced."""
        return await self._store.sealing_key(server_id)

    async def pins(self, server_id: str) -> tuple[str, ...] | None:
        """Return the fingerprints of the owner keys the server says it obeys."""
        return await self._store.pins(server_id)

    async def standing(self, server_id: str) -> ServerStanding:
        """Return how the server and its slots stand. Raises BusUnavailable."""
        last = await self._last_report(server_id)
        report = last.report if last else None
        document = await self._writer.document(server_id)
        slots: tuple[SlotView, ...] = ()
        if document is not None and isinstance(document.data, ConfigDesired):
            progress = await self._store.progress(server_id)
            slots = tuple(
                with_report(
                    slot_view(slot, progress.get(slot.slot_id), written_at=document.time), report
                )
                for slot in document.data.slots
            )
        if last is None:
            return ServerStanding(slots)
        return ServerStanding(slots, last.report.locked, last.at, health_view(last.report))

    async def slots_of(self, server_id: str) -> list[SlotView]:
        """Return the server's slots, by id. Raises BusUnavailable."""
        return list((await self.standing(server_id)).slots)

    async def history(self, server_id: str, slot_id: str) -> SlotHistory:
        """Return the slot's newest rotations; none of a slot that nothing was told of."""
        progress = await self._store.rotations(server_id, slot_id)
        return history_view(server_id, slot_id, progress)

    async def newest_revision(self, server_id: str, slot_id: str) -> int:
        """Return the newest sealed revision of a slot, 0 for none. Raises BusUnavailable."""
        slots = await self.slots_of(server_id)
        return next((slot.revision for slot in slots if slot.slot_id == slot_id), 0)

    async def _last_report(self, server_id: str) -> LastReport | None:
        """Return the server's last report; not that of the machine that was there before."""
        last = await self._reports.of(server_id)
        if last is None or last.report.incarnation <= await self._store.former_start(server_id):
            return None
        return last


def slot_view(slot: DesiredSlot, progress: Progress | None, *, written_at: Utc) -> SlotView:
    """Return one slot as its owner may see it; the document rules, the ledger lags. Pure."""
    known = progress or Progress()
    newest = known.steps if known.revision > slot.revision else ()
    sent = StepView(step=SlotStep.SENT, revision=slot.revision, at=written_at)
    return SlotView(
        slot_id=slot.slot_id,
        provider=slot.provider,
        kind=slot.kind,
        revision=slot.revision,
        steps=newest or known.steps_of(slot.revision) or (sent,),
    )


def with_report(view: SlotView, report: HealthReported | None) -> SlotView:
    """Return *view* with what *report*, the server's last, says of the slot. Pure.

    A revision that waits for the provider's word, or that an order forbids, is held and not used.
    """
    if report is None:
        return view
    health = next((slot for slot in report.slots if slot.slot_id == view.slot_id), None)
    if health is None:
        return view.model_copy(update={"in_use": 0})
    idle = health.pending == health.revision or health.stopped or report.locked
    return view.model_copy(
        update={
            "in_use": 0 if idle else health.revision,
            "validity": health.validity,
            "reason": health.reason,
            "receipt": health.receipt,
            "stopped": health.stopped,
        }
    )


def health_view(report: HealthReported) -> ServerHealth:
    """Return what *report* says of the server as a whole. Pure."""
    return ServerHealth(link=report.link, agent=report.agent, provider=report.provider)


def history_view(server_id: str, slot_id: str, progress: Progress) -> SlotHistory:
    """Return *progress* as the slot's owner may see it. Pure."""
    return SlotHistory(
        server_id=server_id,
        slot_id=slot_id,
        rotations=tuple(
            RotationView(revision=rotation.revision, steps=rotation.steps)
            for rotation in progress.rotations
            if rotation.revision
        ),
    )
