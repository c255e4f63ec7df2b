"""Blind fingerprints: `byok.v1.fingerprint.{server_id}`, written by the server itself."""

from datetime import date
from typing import Annotated, ClassVar

from pydantic import Field

from bus_schemas.event import Contract, ServerFact
from bus_schemas.fields import Basis, Counter, EpochId, ProviderId, SlotId, Strength, Tag
from bus_schemas.subjects import SubjectTemplate

FINGERPRINT = SubjectTemplate("byok.v1.fingerprint.{server_id}")

MAX_SLOTS = 64
"""Slots one server may hold; more is counted and dropped."""


class FingerprintObserved(ServerFact):
    """A server holds a credential with this tag, now in use or about to be.

    An earlier tag of the same slot, revision, basis and epoch becomes *retired*: it still
    matches another server's current one, since a copy may have been made at any refresh.
    """

    type: ClassVar[str] = "byok.fingerprint.observed.v1"
    template: ClassVar[SubjectTemplate] = FINGERPRINT
    since: ClassVar[date] = date(2026, 11, 23)

    slot_id: SlotId
    revision: Counter
    """Revision of the slot whose credential was fingerprinted."""
    provider: ProviderId
    basis: Basis
    strength: Strength
    epoch: EpochId
    tag: Tag


class FingerprintRetired(ServerFact):
    """The server no longer holds this revision of the slot, nor any lower one."""

    type: ClassVar[str] = "byok.fingerprint.retired.v1"
    template: ClassVar[SubjectTemplate] = FINGERPRINT
    since: ClassVar[date] = date(2026, 11, 23)

    slot_id: SlotId
    revision: Counter
    """The highest revision that is gone."""


class HeldRevision(Contract):
    """One revision of one slot that a server still holds."""

    slot_id: SlotId
    revision: Counter
    """A revision in the vault, whether current, pending or previous."""


class FingerprintRenewed(ServerFact):
    """All that the server still holds, told once a day; what is not listed is gone.

    It repeats no tag, so a renewal is one short row, however many tags a server has.
    """

    type: ClassVar[str] = "byok.fingerprint.renewed.v1"
    template: ClassVar[SubjectTemplate] = FINGERPRINT
    since: ClassVar[date] = date(2026, 11, 23)

    held: Annotated[tuple[HeldRevision, ...], Field(max_length=2 * MAX_SLOTS)]
    """All of them; if they were too many, without those that are used no more."""
