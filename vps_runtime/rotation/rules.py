"""Which revision of a slot is in use, and what becomes of the others. Pure.

Left to others: asking the provider, opening the credential before it comes into use, the vault,
telling the steps. A change here and the facts that tell it are one transaction, so whoever starts
after a kill finds either both or neither.

One key of the memory (`Facts.told`) for each slot: `rotation/<slot>`, a `SlotRotation` as JSON.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Final

from bus_schemas.event import Contract
from bus_schemas.events.health import Validity
from bus_schemas.events.reported import (
    CredentialAborted,
    CredentialDrained,
    CredentialInUse,
    CredentialRejected,
    CredentialVerified,
    RotationStep,
)
from bus_schemas.fields import Counter, CounterFromZero, Reason

_KEY: Final = "rotation/"

SUPERSEDED: Final = "superseded"
BY_OWNER: Final = "aborted_by_owner"
DAMAGED: Final = "vault_record_damaged"
REFUSED_BY_PROVIDER: Final = "refused_by_provider"

MAX_GAP: Final = 1000
"""How far above all known revisions one may be retired: 2**53 would end the slot for good."""

_SERVER_ERROR: Final = 500
_REFUSING: Final = frozenset({400, 401, 403, 407})
"""400 says nothing either way: some providers answer a wrong key with it."""


@dataclass(frozen=True, slots=True)
class Verdict:
    """What the provider, asked with one credential, said of it."""

    validity: Validity
    status: int | None = None
    """Of its answer; None if there was none."""
    reason: str | None = None
    """Why it is not valid, where more is known: `invalid_grant`."""

    @property
    def good(self) -> bool:
        """Whether a pending revision comes into use by it: over its budget, a key is still good."""
        return self.validity in {Validity.VALID, Validity.LIMITED}


class SlotRotation(Contract, extra="forbid"):
    """Where the rotation of one slot stands."""

    current: Counter | None = None
    """The one revision that may be used; None before the first and after it was retired."""
    pending: Counter | None = None
    """A newer one that waits for the provider's word."""
    newest: CounterFromZero = 0
    """The highest revision that was ever taken on; each is taken on once."""
    floor: CounterFromZero = 0
    """This revision and all below it are never used again."""
    validity: Validity = Validity.UNKNOWN
    """Of the current revision: the last verdict that was one."""
    reason: Reason | None = None
    """Of that verdict."""
    judged_at: CounterFromZero = 0
    """When it was given, Unix seconds; 0 for never."""
    unsure: bool = False
    """The pending one is told as `unknown`; that is told once."""
    asked: Counter | None = None
    """The revision that its owner ordered to be verified, until it is."""
    used: bool = False
    """The receipt of the current revision is told."""
    drained: bool = False
    """It is told that nothing waits with an older one."""


_OF_NO_KEY: Final[Mapping[str, Any]] = {
    name: SlotRotation.model_fields[name].default
    for name in ("validity", "reason", "judged_at", "used", "drained")
}
"""What is said of the current revision, where there is none."""


@dataclass(frozen=True, slots=True)
class Step:
    """A step to tell; who tells it adds the slot and the rotation's id."""

    fact: type[RotationStep]
    revision: int
    words: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Change:
    """What follows from one event: the new standing, and the steps that tell it."""

    rotation: SlotRotation
    steps: tuple[Step, ...] = ()
    refused: str | None = None
    """Why an order does not apply; then nothing changes."""


def stored(before: SlotRotation, revision: int) -> Change:
    """Take on *revision*, which the vault now holds; an older pending one is superseded."""
    if revision <= max(before.newest, before.floor):
        return Change(before)
    steps = _given_up(before.pending, SUPERSEDED)
    after = _with(before, pending=revision, newest=revision, unsure=False, asked=None)
    return Change(after, steps)


def adopted(before: SlotRotation, revision: int) -> Change:
    """Take on the newest *revision* of a slot of which nothing is remembered, none below it."""
    return stored(retired(before, revision - 1).rotation, revision)


def judged(before: SlotRotation, revision: int, verdict: Verdict, *, at: int) -> Change:
    """Act on the provider's *verdict* about *revision*, given *at* Unix seconds.

    A good pending one comes into use: whoever calls has opened it before.
    """
    if revision == before.pending:
        return _judged_pending(before, revision, verdict, at)
    if revision == before.current:
        return _judged_current(before, revision, verdict, at)
    return Change(before)  # retired, superseded or given up while the provider was asked


def _judged_pending(before: SlotRotation, revision: int, verdict: Verdict, at: int) -> Change:
    if verdict.good:
        return _promoted(before, verdict, at)
    said = Step(CredentialVerified, revision, {"verdict": verdict.validity.value})
    if verdict.validity is Validity.INVALID:
        why = {"reason": verdict.reason or REFUSED_BY_PROVIDER}
        after = _with(before, pending=None, unsure=False, asked=_unless(before.asked, revision))
        return Change(after, (said, Step(CredentialRejected, revision, why)))
    steps = (said,) if not before.unsure or before.asked == revision else ()
    return Change(_with(before, unsure=True, asked=_unless(before.asked, revision)), steps)


def _judged_current(before: SlotRotation, revision: int, verdict: Verdict, at: int) -> Change:
    asked = before.asked == revision
    said = Step(CredentialVerified, revision, {"verdict": verdict.validity.value})
    after = _with(before, asked=_unless(before.asked, revision))
    if verdict.validity is not Validity.UNKNOWN:  # no answer does not unsay the last one
        after = _with(after, validity=verdict.validity, reason=verdict.reason, judged_at=at)
    return Change(after, (said,) if asked else ())


def forced(before: SlotRotation, revision: int, *, held: bool) -> Change:
    """Use the pending *revision* as its owner orders; it is opened. Refused: as `aborted`."""
    if revision != before.pending:
        return Change(before, refused="not_pending" if held else "not_held")
    return _promoted(before, Verdict(Validity.UNKNOWN), 0)


def _promoted(before: SlotRotation, verdict: Verdict, at: int) -> Change:
    assert before.pending is not None  # noqa: S101 (both callers have compared it)
    words = {"verdict": verdict.validity.value, "promoted": True}
    after = _with(
        before,
        current=before.pending,
        pending=None,
        unsure=False,
        asked=_unless(before.asked, before.pending),
        validity=verdict.validity,
        reason=verdict.reason,
        judged_at=at,
        used=False,
        drained=False,
    )
    return Change(after, (Step(CredentialVerified, before.pending, words),))


def verify_asked(before: SlotRotation, revision: int) -> Change:
    """Note that the provider is to be asked about *revision* now. Refused: `not_held`."""
    if revision not in {before.pending, before.current}:
        return Change(before, refused="not_held")
    return Change(_with(before, asked=revision))


def aborted(before: SlotRotation, revision: int, *, held: bool) -> Change:
    """Give the pending *revision* up. Refused: `not_held`, or `not_pending` if it is *held*."""
    if revision != before.pending:
        return Change(before, refused="not_pending" if held else "not_held")
    after = _with(before, pending=None, unsure=False, asked=_unless(before.asked, revision))
    return Change(after, _given_up(revision, BY_OWNER))


def retired(before: SlotRotation, revision: int) -> Change:
    """Use *revision* and all below it never again, whether they are here or still to come."""
    gone_current = before.current is not None and before.current <= revision
    gone_pending = before.pending is not None and before.pending <= revision
    gone_asked = before.asked is not None and before.asked <= revision
    known = _with(before, **_OF_NO_KEY) if gone_current else before
    return Change(
        _with(
            known,
            floor=max(before.floor, revision),
            current=None if gone_current else before.current,
            pending=None if gone_pending else before.pending,
            unsure=before.unsure and not gone_pending,
            asked=None if gone_asked else before.asked,
        )
    )


def retire_ordered(before: SlotRotation, revision: int) -> Change:
    """As `retired`, by order. Refused: `revision_jump`, far above all that was ever known."""
    known = max(before.newest, before.floor)
    if known and revision > known + MAX_GAP:
        return Change(before, refused="revision_jump")
    return retired(before, revision)


def record_lost(before: SlotRotation, revision: int) -> Change:
    """Note that the vault has lost *revision*; nothing lower ever comes in its place."""
    if revision == before.pending:
        after = _with(before, pending=None, unsure=False, asked=_unless(before.asked, revision))
        return Change(after, (Step(CredentialRejected, revision, {"reason": DAMAGED}),))
    return retired(before, revision) if revision == before.current else Change(before)


def answered(before: SlotRotation, revision: int, status: int) -> Change:
    """Note the provider's answer to a call; the first that shows acceptance is the receipt."""
    if revision != before.current or before.used or not accepts(status):
        return Change(before)
    words = {"provider_status": status}
    return Change(_with(before, used=True), (Step(CredentialInUse, revision, words),))


def accepts(status: int) -> bool:
    """Whether *status* shows that the provider took the credential (RFC 9110 section 15)."""
    return status < _SERVER_ERROR and status not in _REFUSING


def drained(before: SlotRotation, revision: int) -> Change:
    """Note that nothing waits with anything older than *revision* any more, if it is the current.

    It was looked at for that one: while it was, a newer one may have come into use.
    """
    if revision != before.current or before.drained:
        return Change(before)
    return Change(_with(before, drained=True), (Step(CredentialDrained, revision, {}),))


def rotation_of(slot_id: str, told: Mapping[str, str]) -> SlotRotation:
    """Return where the rotation of *slot_id* stands."""
    return _read(told.get(rotation_key(slot_id), "{}"))


def rotation_key(slot_id: str) -> str:
    """Return where the memory keeps it."""
    return f"{_KEY}{slot_id}"


def rotations(told: Mapping[str, str]) -> dict[str, SlotRotation]:
    """Return all of them, by slot."""
    return {
        key.removeprefix(_KEY): _read(value)
        for key, value in sorted(told.items())
        if key.startswith(_KEY)
    }


@lru_cache(maxsize=256)  # asked for each call to a provider; of one server with 64 slots
def _read(value: str) -> SlotRotation:
    return SlotRotation.model_validate_json(value)


def _given_up(revision: int | None, reason: str) -> tuple[Step, ...]:
    return () if revision is None else (Step(CredentialAborted, revision, {"reason": reason}),)


def _unless(asked: int | None, revision: int) -> int | None:
    return None if asked == revision else asked


def _with(before: SlotRotation, **changes: Any) -> SlotRotation:  # noqa: ANN401 (its own fields)
    return before.model_copy(update=changes)
