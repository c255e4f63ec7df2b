"""What a slot's steps say: what is in use, what waits, and which key may be revoked. Pure.

All steps but `sent` are the server's own words, in the order in which the ledger took them. Left to
others: reading them from the platform, saying them in words (`words`), showing them.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from enum import StrEnum
from typing import Final

from bus_schemas.api import (
    BannerList,
    RotationView,
    SlotHistory,
    SlotStep,
    SlotView,
    StepView,
)
from bus_schemas.events.banner import NOTICE_DAYS, BannerCode, BannerState
from bus_schemas.events.health import Validity

ROTATE_AFTER: Final = timedelta(days=NOTICE_DAYS[-1])
"""When the reminder asks for a new key; nothing is ever cut off."""


class Phase(StrEnum):
    """Where one revision stands."""

    SENT = "sent"
    """The server has not taken it."""
    PENDING = "pending"
    """Stored; it waits for the provider's word."""
    CURRENT = "current"
    """The server uses it from now on."""
    REFUSED = "refused"
    """By the server or by the provider; it is not there any more."""
    ABORTED = "aborted"
    RETIRED = "retired"
    """It, and all before it, are never used again."""
    LOST = "lost"
    """The server says that it holds no usable credential at all."""


@dataclass(frozen=True)
class Course:
    """What became of one revision."""

    phase: Phase = Phase.SENT
    stored_at: datetime | None = None
    verdict: str | None = None
    """The provider's last word."""
    forced: bool = False
    """It came into use by its owner's order, not by the provider's word."""
    answered: bool = False
    """The provider has answered a call made with it: the applied receipt."""
    drained: bool = False
    """No call with an older one waits any more."""
    was_current: bool = False
    emptied: bool = False
    """The server said at some time that it held none: whatever was before this one is gone."""
    reason: str | None = None
    """Why it is refused, given up or lost."""


def course(steps: Iterable[StepView]) -> Course:
    """Return where a revision stands after *steps*."""
    found = Course()
    for step in steps:
        found = _after(found, step)
    return found


def _after(before: Course, step: StepView) -> Course:  # noqa: PLR0911 (one line for each step)
    ends = before.phase in {Phase.CURRENT, Phase.RETIRED}
    match step.step:
        case SlotStep.SENT:
            return before
        case SlotStep.STORED:
            phase = before.phase if ends else Phase.PENDING
            return replace(before, phase=phase, stored_at=before.stored_at or step.at, reason=None)
        case SlotStep.VERIFIED:
            known = replace(before, verdict=step.reason)
            by_order = step.promoted is True and step.reason == Validity.UNKNOWN
            return _current(replace(known, forced=by_order)) if step.promoted else known
        case SlotStep.IN_USE:
            return replace(_current(before), answered=True)
        case SlotStep.DRAINED:
            return replace(_current(before), drained=True)
        case SlotStep.RETIRED:
            return replace(before, phase=Phase.RETIRED)
        case SlotStep.NEEDS_KEY:
            return _lost(before, step)
    if ends:
        return before
    phase = Phase.REFUSED if step.step is SlotStep.REJECTED else Phase.ABORTED
    return replace(before, phase=phase, reason=step.reason)


def _lost(before: Course, step: StepView) -> Course:
    known = replace(before, emptied=True)
    held = before.phase in {Phase.SENT, Phase.PENDING, Phase.CURRENT}
    return replace(known, phase=Phase.LOST, reason=step.reason) if held else known


def _current(before: Course) -> Course:
    if before.phase is Phase.RETIRED:
        return before
    return replace(before, phase=Phase.CURRENT, was_current=True, reason=None)


@dataclass(frozen=True)
class SlotCourse:
    """What became of a slot's revisions, as far back as is known."""

    newest: int
    """The newest sealed one."""
    by_revision: Mapping[int, Course]
    """Lowest first; the newest is always there."""
    reported: int | None = None
    """In use by the server's last report, which may be a minute old."""

    @property
    def latest(self) -> Course:
        """What became of the newest revision."""
        return self.by_revision[self.newest]

    @property
    def gone(self) -> int:
        """The server holds no revision up to this one: retired, or lost with the machine."""
        retired = (n for n, one in self.by_revision.items() if one.phase is Phase.RETIRED)
        lost = (n - 1 for n, one in self.by_revision.items() if one.emptied)
        return max((0, *retired, *lost))

    @property
    def in_use(self) -> int:
        """The revision that the server uses; 0 if it uses none."""
        found = self._highest(Phase.CURRENT)
        unseen = self.reported or 0  # from before what is known here
        return found or (unseen if self.gone < unseen < min(self.by_revision) else 0)

    @property
    def pending(self) -> int:
        """The revision that waits for the provider's word; 0 for none."""
        return self._highest(Phase.PENDING)

    def _highest(self, phase: Phase) -> int:
        found = (n for n, one in self.by_revision.items() if one.phase is phase and n > self.gone)
        return max(found, default=0)

    @property
    def held(self) -> int:
        """The newest revision that the server holds; 0 for none."""
        return self.pending or self.in_use

    @property
    def earlier(self) -> int:
        """The newest one below the newest that was ever in use; 0 if none is known to have been."""
        found = (n for n, one in self.by_revision.items() if n < self.newest and one.was_current)
        return max(found, default=0)


def slot_course(slot: SlotView, history: SlotHistory | None = None) -> SlotCourse:
    """Return what became of *slot*; its own steps win where *history* knows less of them."""
    known: dict[int, Sequence[StepView]] = {
        one.revision: one.steps for one in (history.rotations if history else ())
    }
    newest = told_revision(slot)
    if len(slot.steps) >= len(known.get(newest, ())):
        known[newest] = slot.steps
    courses = {revision: course(steps) for revision, steps in sorted(known.items())}
    return SlotCourse(max(courses), courses, slot.in_use)


def told_revision(slot: SlotView) -> int:
    """Return the revision that the steps of *slot* are about: the ledger may be ahead of it."""
    return max(slot.revision, *(step.revision for step in slot.steps))


def rotation_of(history: SlotHistory, revision: int) -> RotationView | None:
    """Return the rotation to *revision*; None if it is not known."""
    return next((one for one in history.rotations if one.revision == revision), None)


class Claim(StrEnum):
    """What is true of the key before the newest one."""

    NONE = "none"
    """There was none."""
    IN_USE = "in-use"
    """It goes on: revoking it now stops the agent."""
    DRAINING = "draining"
    """A call with it may still wait for its answer."""
    MAY_BE_REVOKED = "may-be-revoked"
    """Nothing uses it any more, nor will."""
    NOTHING_IN_USE = "nothing-in-use"
    """The server uses no key of this slot."""


def claim(slot: SlotCourse) -> Claim:
    """Say what is true of the key before the newest one.

    `MAY_BE_REVOKED` follows from the server's `drained` and from nothing else.
    """
    latest = slot.latest
    if latest.phase is not Phase.CURRENT:
        if slot.in_use:
            return Claim.IN_USE
        was_one = latest.was_current or slot.earlier or not _whole(slot)
        return Claim.NOTHING_IN_USE if was_one else Claim.NONE
    if _whole(slot) and not slot.earlier:
        return Claim.NONE
    return Claim.MAY_BE_REVOKED if latest.drained else Claim.DRAINING


_REUSE: Final = frozenset({BannerCode.API_KEY_REUSE, BannerCode.OAUTH_REUSE})


def also_on(found: BannerList, server_id: str, slot_id: str) -> frozenset[str]:
    """Return the owner's other servers that have the same credential, as the banners say."""
    return frozenset(
        other
        for banner in found.banners
        if banner.code in _REUSE and banner.state is not BannerState.CLEARED
        if (banner.server_id, banner.slot_id) == (server_id, slot_id)
        for other in banner.sharing.own_servers
    )


def _whole(slot: SlotCourse) -> bool:
    """Whether all revisions that ever were are known, so that silence means there was none."""
    return min(slot.by_revision) <= 1


@dataclass(frozen=True)
class Age:
    """How old the key in use is."""

    days: int
    due: datetime
    """When the reminder asks for a new one."""

    @property
    def overdue(self) -> bool:
        """Whether that day has come."""
        return self.days >= ROTATE_AFTER.days


def age(slot: SlotCourse, *, now: datetime) -> Age | None:
    """Return the age of the revision in use since it was stored; None if that is not known."""
    used = slot.by_revision.get(slot.in_use)
    if used is None or used.stored_at is None:
        return None
    return Age(max((now - used.stored_at).days, 0), used.stored_at + ROTATE_AFTER)
