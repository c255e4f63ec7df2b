"""`raised -> updated* -> dismissed <-> reopened -> cleared`, one banner at a time. Pure.

Given how a banner stands, what should be said now, and the fact that caused the question, say how
it stands next. Nothing is said twice: unchanged content gives no event. Every event carries the
ledger sequence of its cause as its revision, so readers order by it and never by arrival.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime

from bus_schemas.envelope import Envelope, wrap
from bus_schemas.event import Event
from bus_schemas.events.banner import (
    BannerCleared,
    BannerCode,
    BannerDismissed,
    BannerEvent,
    BannerRaised,
    BannerReopened,
    BannerState,
    BannerUpdated,
    Copies,
    KeyChanges,
    RotationNote,
    Sharing,
)
from bus_schemas.ids import derived_id

FORGET_PARTNER_TICKS = 90 * 24 * 60
"""A partner that left a dismissed banner is remembered for 90 days of ticks."""

_EVENTS: Mapping[BannerState, type[BannerEvent]] = {
    BannerState.RAISED: BannerRaised,
    BannerState.UPDATED: BannerUpdated,
    BannerState.DISMISSED: BannerDismissed,
    BannerState.REOPENED: BannerReopened,
    BannerState.CLEARED: BannerCleared,
}


@dataclass(frozen=True)
class BannerKey:
    """One banner per server, slot and code; the slot is empty for what concerns the server."""

    server_id: str
    slot_id: str
    code: BannerCode

    @property
    def banner_id(self) -> str:
        """The id in subjects and URLs; `_` occurs in no id, so it parts them unmistakably."""
        return f"{self.server_id}_{self.slot_id}_{self.code.lower().replace('_', '-')}"

    @classmethod
    def parse(cls, banner_id: str) -> "BannerKey | None":
        """Return the key with this `banner_id`; None if there can be none."""
        server_id, _, rest = banner_id.partition("_")
        slot_id, _, code = rest.partition("_")
        try:
            key = cls(server_id, slot_id, BannerCode(code.upper().replace("-", "_")))
        except ValueError:
            return None
        return key if key.banner_id == banner_id else None


@dataclass(frozen=True)
class Dismissal:
    """Who does not want to see it, why, and which partners they have thereby accepted."""

    who: str
    why: str
    covered: Mapping[str, int | None] = field(default_factory=dict)
    """Partner server to the tick at which it left, or None while it is there."""


@dataclass(frozen=True)
class Content:
    """What a banner says besides its code and place; each code fills its own part, or none."""

    sharing: Sharing = field(default_factory=Sharing)
    copies: Copies | None = None
    keys: KeyChanges | None = None
    rotation: RotationNote | None = None
    reason: str | None = None


@dataclass(frozen=True)
class Banner:
    """How one banner stands."""

    key: BannerKey
    owner_id: str
    state: BannerState
    revision: int
    since_time: datetime
    content: Content
    times: int = 0
    """How often its cause was noticed since it was raised, where each time is a case of its own."""
    dismissal: Dismissal | None = None

    @property
    def stands(self) -> bool:
        """Whether there still is something to say, dismissed or not."""
        return self.state is not BannerState.CLEARED


@dataclass(frozen=True)
class Wanted:
    """What should be said now."""

    content: Content = field(default_factory=Content)
    partners: frozenset[str] = frozenset()
    """All matching servers, foreign ones included; only dismissed banners need them."""
    times: int = 0
    """As in `Banner`; one more than a dismissed banner has is a case that nobody dismissed."""


@dataclass(frozen=True)
class Cause:
    """The fact that made us look."""

    sequence: int
    at: datetime
    event_id: str
    correlation_id: str
    tick: int


def settle(
    old: Banner | None, wanted: Wanted | None, key: BannerKey, owner_id: str, cause: Cause
) -> Banner | None:
    """Return how the banner stands after *cause*; the very same object when nothing changed.

    A change of `revision` against *old* means: publish. A banner may change without one (its
    memory of partners that left, its count where the words stay).
    """
    if wanted is None:
        if old is None or not old.stands:
            return old
        memory = old.dismissal and _remember(old.dismissal, frozenset(), cause.tick)
        return replace(old, state=BannerState.CLEARED, revision=cause.sequence, dismissal=memory)
    if old is None or not old.stands:
        return _raise(old, wanted, key, owner_id, cause)
    if old.dismissal:
        return _while_dismissed(old, old.dismissal, wanted, cause)
    if wanted.content == old.content:
        return old if wanted.times == old.times else replace(old, times=wanted.times)
    return _moved(old, BannerState.UPDATED, wanted, cause)


@dataclass(frozen=True)
class Request:
    """A person dismisses what they saw."""

    revision: int
    """The banner's revision that they looked at."""
    who: str
    why: str
    joined: Mapping[str, int]
    """Each matching server, foreign ones included, to the ledger sequence since which it does."""


def dismiss(old: Banner, request: Request, cause: Cause) -> Banner:
    """Return the banner after *request*.

    If somebody joined after what the person saw, it stays open: it is not what they dismissed.
    So does one that names nobody and was raised again since: that is another case. A revision
    that nobody can have seen yet dismisses nothing.
    """
    if not old.stands or old.state is BannerState.DISMISSED or request.revision > old.revision:
        return old
    outdated = request.revision < old.revision
    unseen = any(sequence > request.revision for sequence in request.joined.values())
    if outdated and (unseen or not request.joined):
        return old
    dismissal = Dismissal(request.who, request.why, dict.fromkeys(sorted(request.joined)))
    return replace(old, state=BannerState.DISMISSED, revision=cause.sequence, dismissal=dismissal)


def undo_dismissal(old: Banner, cause: Cause) -> Banner:
    """Return the banner open again, because its owner wants to see it."""
    if old.state is not BannerState.DISMISSED:
        return old
    return replace(old, state=BannerState.REOPENED, revision=cause.sequence, dismissal=None)


def announcement(banner: Banner, cause: Cause) -> Envelope[Event]:
    """Return the event that tells of *banner*, the same bytes in every replay.

    Its id is derived from the cause's ledger sequence, not from the cause's own id: that one is
    the sender's to choose, and a repeated one would swallow a banner as a duplicate.
    """
    fields: dict[str, object] = {
        "owner_id": banner.owner_id,
        "banner_id": banner.key.banner_id,
        "server_id": banner.key.server_id,
        "slot_id": banner.key.slot_id or None,
        "code": banner.key.code,
        "severity": banner.key.code.severity,
        "colour": banner.key.code.severity.colour,
        "revision": banner.revision,
        "sharing": banner.content.sharing,
        "copies": banner.content.copies,
        "keys": banner.content.keys,
        "rotation": banner.content.rotation,
        "reason": banner.content.reason,
        "since_time": banner.since_time,
    }
    if banner.state is BannerState.DISMISSED and banner.dismissal:
        fields |= {"dismissed_by": banner.dismissal.who, "why": banner.dismissal.why}
    event = _EVENTS[banner.state].model_validate(fields)
    return wrap(
        event,
        id_=derived_id("banner", banner.key.banner_id, str(cause.sequence)),
        at=cause.at,
        correlationid=cause.correlation_id,
        causationid=cause.event_id,
    )


def _raise(
    old: Banner | None, wanted: Wanted, key: BannerKey, owner_id: str, cause: Cause
) -> Banner:
    """Raise it, or keep it dismissed if only partners are back that had been accepted."""
    fresh = Banner(
        key,
        owner_id,
        BannerState.RAISED,
        cause.sequence,
        cause.at,
        wanted.content,
        wanted.times,
    )
    dismissal = old.dismissal if old else None
    if dismissal:
        remembered = _remember(dismissal, wanted.partners, cause.tick)
        if wanted.partners and wanted.partners <= remembered.covered.keys():
            return replace(fresh, state=BannerState.DISMISSED, dismissal=remembered)
    return fresh


def _while_dismissed(old: Banner, dismissal: Dismissal, wanted: Wanted, cause: Cause) -> Banner:
    remembered = _remember(dismissal, wanted.partners, cause.tick)
    if wanted.times > old.times or not wanted.partners <= remembered.covered.keys():
        return _moved(old, BannerState.REOPENED, wanted, cause)
    if wanted.content == old.content:
        return old if remembered == dismissal else replace(old, dismissal=remembered)
    return replace(old, revision=cause.sequence, content=wanted.content, dismissal=remembered)


def _moved(old: Banner, state: BannerState, wanted: Wanted, cause: Cause) -> Banner:
    return replace(
        old,
        state=state,
        revision=cause.sequence,
        content=wanted.content,
        times=wanted.times,
        dismissal=None,
    )


def _remember(dismissal: Dismissal, present: frozenset[str], tick: int) -> Dismissal:
    """Note who left and who is back, and forget who has been gone for 90 days."""
    covered: dict[str, int | None] = {}
    for server_id, left in dismissal.covered.items():
        if left is not None and tick - left > FORGET_PARTNER_TICKS:
            continue
        since = tick if left is None else left
        covered[server_id] = None if server_id in present else since
    return replace(dismissal, covered=covered)
