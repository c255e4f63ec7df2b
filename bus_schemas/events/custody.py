"""Unlocks, owner keys and the evaluator's ratchet."""

from datetime import date
from typing import Annotated, ClassVar

from pydantic import Field

from bus_schemas.event import Event, Writer
from bus_schemas.fields import (
    Counter,
    CounterFromZero,
    Key32,
    KeyFingerprint,
    OwnerId,
    Reason,
    ServerId,
    ShortText,
)
from bus_schemas.subjects import SubjectTemplate

UNLOCK = SubjectTemplate("byok.v1.unlock.{server_id}")
OWNER_KEY = SubjectTemplate("byok.v1.ownerkey.{owner_id}")


class UnlockAnswered(Event):
    """The evaluator gave its half for a start, which then goes on, or is broken off uncounted.

    Whoever has the answer can open the root key, also without ever committing. Told so that the
    server's own reports can show that it was not the one who asked (ADR-19).
    """

    type: ClassVar[str] = "byok.unlock.answered.v1"
    template: ClassVar[SubjectTemplate] = UNLOCK
    writer: ClassVar[Writer] = Writer.EVALUATOR
    since: ClassVar[date] = date(2026, 11, 23)

    server_id: ServerId
    incarnation: Counter
    """The number this start will have if it commits: whatever runs already has a lower one."""


class ServerUnlocked(Event):
    """The server opened its vault and committed its next generation. May be told twice."""

    type: ClassVar[str] = "byok.server.unlocked.v1"
    template: ClassVar[SubjectTemplate] = UNLOCK
    writer: ClassVar[Writer] = Writer.EVALUATOR
    since: ClassVar[date] = date(2026, 11, 23)

    server_id: ServerId
    incarnation: Counter
    """How often this server has been unlocked, this time included."""


class UnlockRefused(Event):
    """The evaluator refused; `stale_generation` means a second or older copy of the disk asked."""

    type: ClassVar[str] = "byok.unlock.refused.v1"
    template: ClassVar[SubjectTemplate] = UNLOCK
    writer: ClassVar[Writer] = Writer.EVALUATOR
    since: ClassVar[date] = date(2026, 11, 23)

    server_id: ServerId
    reason: Reason


class UnlockApproved(Event):
    """The owner let a restored machine unlock once, with a signature."""

    type: ClassVar[str] = "byok.unlock.approved.v1"
    template: ClassVar[SubjectTemplate] = UNLOCK
    writer: ClassVar[Writer] = Writer.EVALUATOR
    since: ClassVar[date] = date(2026, 11, 23)

    server_id: ServerId
    signer: Key32


class UnlockRecovered(Event):
    """A recovery window let a disk in that is newer than the evaluator's state. May be told twice.

    It was believed that much without a proof. Whose disk it was should be looked at.
    """

    type: ClassVar[str] = "byok.unlock.recovered.v1"
    template: ClassVar[SubjectTemplate] = UNLOCK
    writer: ClassVar[Writer] = Writer.EVALUATOR
    since: ClassVar[date] = date(2026, 11, 23)

    server_id: ServerId
    generation: CounterFromZero
    """The generation that it came with."""


class UnlockShredded(Event):
    """The server's unlock key was destroyed; no copy of its disk opens any more."""

    type: ClassVar[str] = "byok.unlock.shredded.v1"
    template: ClassVar[SubjectTemplate] = UNLOCK
    writer: ClassVar[Writer] = Writer.EVALUATOR
    since: ClassVar[date] = date(2026, 11, 23)

    server_id: ServerId


class RatchetAdvanced(Event):
    """The evaluator's state for one server: last message per subject, compare-and-set.

    It holds hashes only: whoever reads it can neither unlock nor foresee a preimage.
    """

    type: ClassVar[str] = "byok.ratchet.advanced.v1"
    template: ClassVar[SubjectTemplate] = SubjectTemplate("byok.v1.ratchet.{server_id}")
    writer: ClassVar[Writer] = Writer.EVALUATOR
    since: ClassVar[date] = date(2026, 11, 23)

    server_id: ServerId
    committed: CounterFromZero
    """Generation that is on the newest disk; 0 before the first unlock and after an enrolment."""
    committed_check: Key32 | None = None
    """chk of the committed generation; none while it is 0."""
    pending_check: Key32 | None = None
    """chk of the next generation, announced with an unlock and not yet committed."""
    unlocks: Annotated[tuple[CounterFromZero, ...], Field(max_length=64)] = ()
    """Unix seconds of the unlocks in the last hour, for the hourly limit."""
    incarnation: CounterFromZero | None = None
    """How many generations were ever committed; only grows. None: as many as `committed` says."""
    enrolment: Counter | None = None
    """Which enrolment of the server this is, from 1. None: the first."""
    owner_pins: Annotated[tuple[KeyFingerprint, ...] | None, Field(max_length=64)] = None
    """Owner keys pinned on the server when it last committed. None: it has not said."""
    approved_code: KeyFingerprint | None = None
    """The copy of the disk that the owner lets in once; none when there is none, or it came."""
    approved_at: CounterFromZero | None = None
    """`issued_at` of the last approval; an older one is a replay."""
    recovered_until: CounterFromZero | None = None
    """End of the recovery window in which this server came with a higher generation."""
    mac: Key32 | None = None
    """The evaluator's own, over all other fields (`ratchet_mac`); without it a state is forged."""


class OwnerKeyRegistered(Event):
    """The platform knows this owner key. Servers obey it only if their console pinned it."""

    type: ClassVar[str] = "byok.ownerkey.registered.v1"
    template: ClassVar[SubjectTemplate] = OWNER_KEY
    writer: ClassVar[Writer] = Writer.ISSUER
    since: ClassVar[date] = date(2026, 11, 23)

    owner_id: OwnerId
    public_key: Key32
    fingerprint: KeyFingerprint
    label: ShortText
    """What the owner calls this key."""


class OwnerKeyRemoved(Event):
    """The owner withdrew this key."""

    type: ClassVar[str] = "byok.ownerkey.removed.v1"
    template: ClassVar[SubjectTemplate] = OWNER_KEY
    writer: ClassVar[Writer] = Writer.ISSUER
    since: ClassVar[date] = date(2026, 11, 23)

    owner_id: OwnerId
    fingerprint: KeyFingerprint
