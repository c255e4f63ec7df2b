"""Which transitions a report, or its absence, means. Pure; time comes in as an argument.

The known state is what the ledger says (`status` facts), so a restarted or a second handler does
not tell again what has been told.

Two machines with one identity (ADR-19): the evaluator says on the ledger when it answered a start.
Whatever ran before that is dead by then, unless it is another machine. So a report that names an
earlier start, and came long after, shows two. Both times are the streams' own, so it does not
matter how late, or how often, a report is read.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import NamedTuple

from bus_schemas.event import ServerFact
from bus_schemas.events import (
    CredentialInUse,
    CredentialNeedsKey,
    CredentialVerified,
    HealthReported,
    ServerReenrolled,
    ServerUnlocked,
    StatusChanged,
    UnlockAnswered,
)
from bus_schemas.events.fingerprint import MAX_SLOTS
from bus_schemas.events.health import REPORT_INTERVAL_SECONDS, SlotHealth, Transition, Validity

SILENT_AFTER_SECONDS = 3 * REPORT_INTERVAL_SECONDS
STRAY_SECONDS = 3 * REPORT_INTERVAL_SECONDS
"""How long a dead process's last reports may still be on their way."""
REJECTED_AT_LEAST_SECONDS = 3 * REPORT_INTERVAL_SECONDS
"""A provider that says now this, now that, must not raise and clear a banner every minute. Another
credential does not wait for this: it is told of as such (`other_key`)."""
_DAY = 24 * 3600


class Start(NamedTuple):
    """One start of a server that the evaluator answered."""

    incarnation: int
    at: float
    """When the ledger took the evaluator's first word of it, in Unix seconds."""


_NEVER = Start(0, 0.0)


class Rejection(NamedTuple):
    """The provider refuses the key of one slot."""

    at: float
    """When that was told, in Unix seconds."""
    reason: str | None = None
    """Why, where more is known."""


@dataclass(frozen=True)
class Known:
    """What the ledger says of one server."""

    owner_id: str
    active: bool = True
    silent: bool = False
    rejected: Mapping[str, Rejection] = field(default_factory=dict)
    """By slot."""
    keys_at: tuple[int, int] = (0, 0)
    """(incarnation, n) of the server's newest word that another key is used, or none.

    A report below it speaks of the key before.
    """
    starts: tuple[Start, ...] = ()
    """The newest that no stray report can be behind any more, and those after it."""
    clone_told: Start = _NEVER
    """The newest start known when two machines were told of last, and when that was."""
    nkey: str = ""
    """Of the machine that enrolled last; a word that names it again is a repeat."""
    since: float = 0.0
    """When it took the place of another, in Unix seconds; older reports are that one's."""


def replaced(known: Known, event: ServerReenrolled, at: float) -> Known:
    """Return *known* after another machine, whose vault is empty, took the server's place *at*.

    Told again it would take away what has been told of the new machine since.
    """
    if event.nkey == known.nkey:
        return known
    return replace(known, active=True, rejected={}, nkey=event.nkey, since=at)


def started(known: Known, event: UnlockAnswered | ServerUnlocked, at: float) -> Known:
    """Return *known* after the evaluator's word of a start, which the ledger took at *at*.

    Only the first word of each start counts: it is repeated when an answer was lost.
    """
    if known.starts and event.incarnation <= known.starts[-1].incarnation:
        return known
    starts = (*known.starts, Start(event.incarnation, at))
    settled = [start for start in starts if start.at + STRAY_SECONDS < at]
    return replace(known, starts=starts[max(0, len(settled) - 1) :])


KeyChanged = CredentialVerified | CredentialInUse | CredentialNeedsKey


def other_key(known: Known, event: KeyChanged) -> Known:
    """Return *known* after a server's word that its slot uses another key, or none at all.

    What was refused is history; the banner of it is cleared by this very fact. One that is told
    again clears no banner, so it must not make a refusal forgotten that came in between.
    """
    if isinstance(event, CredentialVerified) and not event.promoted:
        return known
    if _stamp(event) <= known.keys_at:
        return known
    left = {slot: why for slot, why in known.rejected.items() if slot != event.slot_id}
    return replace(known, rejected=left, keys_at=_stamp(event))


def _stamp(fact: ServerFact) -> tuple[int, int]:
    return fact.incarnation, fact.n


def told(known: Known, event: StatusChanged, at: float) -> Known:
    """Return *known* after a status fact, told at *at*."""
    if event.transition is Transition.CLONED:
        newest = max(known.clone_told.incarnation, event.incarnation or 0)
        return replace(known, clone_told=Start(newest, at))
    if event.transition in {Transition.SILENT, Transition.RETURNED}:
        return replace(known, silent=event.transition is Transition.SILENT)
    rejected = {slot: why for slot, why in known.rejected.items() if slot != event.slot_id}
    if event.slot_id and event.transition is Transition.REJECTED:
        rejected[event.slot_id] = Rejection(at, event.reason)
    return replace(known, rejected=rejected)


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
    if _stamp(report) >= known.keys_at and at >= known.since:
        changes += _keys(known, report, at)
    return changes


def _keys(known: Known, report: HealthReported, at: float) -> Iterator[StatusChanged]:
    """Yield what a report says anew of each slot's key; another reason is news, too."""
    room = MAX_SLOTS - len(known.rejected)
    now = {slot.slot_id: slot for slot in report.slots}  # a liar may list one many times
    for slot in now.values():
        before = known.rejected.get(slot.slot_id)
        if slot.validity is Validity.INVALID:
            new = before is None and room > 0
            room -= new
            if new or (before is not None and before.reason != slot.reason):
                change = _change(report.server_id, known, Transition.REJECTED, slot.slot_id)
                yield change.model_copy(update={"reason": slot.reason})
    for slot_id, rejection in known.rejected.items():
        settled = at - rejection.at >= REJECTED_AT_LEAST_SECONDS
        if settled and _is_over(now.get(slot_id)):
            yield _change(report.server_id, known, Transition.ACCEPTED, slot_id)


def _is_over(slot: SlotHealth | None) -> bool:
    """Whether nothing is refused any more: the key is taken again, or the slot holds none."""
    return slot is None or slot.validity in {Validity.VALID, Validity.LIMITED}


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
