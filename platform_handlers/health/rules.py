"""Which transitions a report, or its absence, means. Pure; time comes in as an argument.

The known state is what the ledger says (`status` facts), so a restarted or a second handler does
not tell again what has been told.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace

from bus_schemas.events import HealthReported, StatusChanged
from bus_schemas.events.fingerprint import MAX_SLOTS
from bus_schemas.events.health import REPORT_INTERVAL_SECONDS, Transition, Validity

SILENT_AFTER_SECONDS = 3 * REPORT_INTERVAL_SECONDS


@dataclass(frozen=True)
class Known:
    """What the ledger says of one server."""

    owner_id: str
    active: bool = True
    silent: bool = False
    rejected: frozenset[str] = field(default_factory=frozenset)
    """Slots whose key the provider refuses."""


def told(known: Known, event: StatusChanged) -> Known:
    """Return *known* after a status fact."""
    if event.transition in {Transition.SILENT, Transition.RETURNED}:
        return replace(known, silent=event.transition is Transition.SILENT)
    slot = frozenset({event.slot_id} if event.slot_id else ())
    if event.transition is Transition.REJECTED:
        return replace(known, rejected=known.rejected | slot)
    return replace(known, rejected=known.rejected - slot)


def on_report(known: Known, report: HealthReported, age_seconds: float) -> list[StatusChanged]:
    """Return what *report* changes. Only `invalid` rejects, only `valid` or `limited` accept.

    The stream keeps a server's last report for a day and a restarted handler reads it again: an
    old one says how the keys were, but not that the server is back. Slots beyond the most that a
    server may hold are invented: each would become a fact and a banner for ever.
    """
    back = known.silent and age_seconds <= SILENT_AFTER_SECONDS
    changes = [_change(report.server_id, known, Transition.RETURNED)] if back else []
    room = MAX_SLOTS - len(known.rejected)
    for slot in report.slots:
        rejected = slot.slot_id in known.rejected
        if slot.validity is Validity.INVALID and not rejected and room > 0:
            room -= 1
            changes.append(_change(report.server_id, known, Transition.REJECTED, slot.slot_id))
        elif slot.validity in {Validity.VALID, Validity.LIMITED} and rejected:
            changes.append(_change(report.server_id, known, Transition.ACCEPTED, slot.slot_id))
    return changes


def on_silence(
    servers: Mapping[str, Known],
    last_report: Mapping[str, float],
    *,
    listening_since: float,
    now: float,
) -> list[StatusChanged]:
    """Return the servers that have become silent at *now*; all times are Unix seconds.

    A server that never reported is not silent: it has not been started yet. Nor is one that could
    not be heard: before *listening_since* we, or the bus, were away ourselves.
    """
    return [
        _change(server_id, known, Transition.SILENT)
        for server_id, known in servers.items()
        if known.active and not known.silent and server_id in last_report
        if now - max(last_report[server_id], listening_since) > SILENT_AFTER_SECONDS
    ]


def _change(
    server_id: str, known: Known, transition: Transition, slot_id: str | None = None
) -> StatusChanged:
    return StatusChanged(
        server_id=server_id, owner_id=known.owner_id, transition=transition, slot_id=slot_id
    )
