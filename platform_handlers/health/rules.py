"""Which transitions a report, or its absence, means. Pure; time comes in as an argument.

The known state is what the ledger says (`status` facts), so a restarted or a second handler does
not tell again what has been told.

Two machines with one identity (ADR-19): the evaluator says on the ledger when it answered a start.
Whatever ran before that is dead by then, unless it is another machine. So a report that names an
earlier start, and came long after, shows two. Both times are the streams' own, so it does not
matter how late, or how often, a report is read.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import NamedTuple

from bus_schemas.events import HealthReported, ServerUnlocked, StatusChanged, UnlockAnswered
from bus_schemas.events.fingerprint import MAX_SLOTS
from bus_schemas.events.health import REPORT_INTERVAL_SECONDS, Transition, Validity

SILENT_AFTER_SECONDS = 3 * REPORT_INTERVAL_SECONDS
STRAY_SECONDS = 3 * REPORT_INTERVAL_SECONDS
"""How long a dead process's last reports may still be on their way."""
_DAY = 24 * 3600


class Start(NamedTuple):
    """One start of a server that the evaluator answered."""

    incarnation: int
    at: float
    """When the ledger took the evaluator's first word of it, in Unix seconds."""


_NEVER = Start(0, 0.0)


@dataclass(frozen=True)
class Known:
    """What the ledger says of one server."""

    owner_id: str
    active: bool = True
    silent: bool = False
    rejected: frozenset[str] = field(default_factory=frozenset)
    """Slots whose key the provider refuses."""
    starts: tuple[Start, ...] = ()
    """The newest that no stray report can be behind any more, and those after it."""
    clone_told: Start = _NEVER
    """The newest start known when two machines were told of last, and when that was."""


def started(known: Known, event: UnlockAnswered | ServerUnlocked, at: float) -> Known:
    """Return *known* after the evaluator's word of a start, which the ledger took at *at*.

    Only the first word of each start counts: it is repeated when an answer was lost.
    """
    if known.starts and event.incarnation <= known.starts[-1].incarnation:
        return known
    starts = (*known.starts, Start(event.incarnation, at))
    settled = [start for start in starts if start.at + STRAY_SECONDS < at]
    return replace(known, starts=starts[max(0, len(settled) - 1) :])


def told(known: Known, event: StatusChanged, at: float) -> Known:
    """Return *known* after a status fact, told at *at*."""
    if event.transition is Transition.CLONED:
        newest = max(known.clone_told.incarnation, event.incarnation or 0)
        return replace(known, clone_told=Start(newest, at))
    if event.transition in {Transition.SILENT, Transition.RETURNED}:
        return replace(known, silent=event.transition is Transition.SILENT)
    slot = frozenset({event.slot_id} if event.slot_id else ())
    if event.transition is Transition.REJECTED:
        return replace(known, rejected=known.rejected | slot)
    return replace(known, rejected=known.rejected - slot)


def on_report(
    known: Known, report: HealthReported, *, at: float, now: float
) -> list[StatusChanged]:
    """Return what *report*, which the stream took at *at*, changes at *now* (Unix seconds).

    Only `invalid` rejects, only `valid` or `limited` accept. The stream keeps a server's last
    report for a day and a restarted handler reads it again: an old one says how the keys were, but
    not that the server is back. Slots beyond the most that a server may hold are invented: each
    would become a fact and a banner for ever.
    """
    back = known.silent and now - at <= SILENT_AFTER_SECONDS
    changes = [_change(report.server_id, known, Transition.RETURNED)] if back else []
    changes += _second_machine(known, report, at)
    room = MAX_SLOTS - len(known.rejected)
    for slot in report.slots:
        rejected = slot.slot_id in known.rejected
        if slot.validity is Validity.INVALID and not rejected and room > 0:
            room -= 1
            changes.append(_change(report.server_id, known, Transition.REJECTED, slot.slot_id))
        elif slot.validity in {Validity.VALID, Validity.LIMITED} and rejected:
            changes.append(_change(report.server_id, known, Transition.ACCEPTED, slot.slot_id))
    return changes


def _second_machine(known: Known, report: HealthReported, at: float) -> list[StatusChanged]:
    """Tell of two machines, when one more start shows it, else once a day while it lasts."""
    settled = [start.incarnation for start in known.starts if start.at + STRAY_SECONDS < at]
    newest = max(settled, default=0)
    if report.incarnation >= newest:
        return []
    if newest <= known.clone_told.incarnation and at - known.clone_told.at < _DAY:
        return []
    return [
        StatusChanged(
            server_id=report.server_id,
            owner_id=known.owner_id,
            transition=Transition.CLONED,
            incarnation=newest,
        )
    ]


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
