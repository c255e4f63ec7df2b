"""How a server is: `byok.v1.health.{server_id}`, and the transitions the platform drew from it."""

from datetime import date
from enum import StrEnum
from typing import Annotated, ClassVar

from pydantic import Field

from bus_schemas.event import Contract, Event, ServerFact, Writer
from bus_schemas.events.fingerprint import MAX_SLOTS
from bus_schemas.fields import Counter, CounterFromZero, OwnerId, ProviderId, ServerId, SlotId
from bus_schemas.subjects import SubjectTemplate

REPORT_INTERVAL_SECONDS = 60
"""How often a server reports; three missed ones make it silent."""


class Validity(StrEnum):
    """What the provider last said of a credential; only documented status codes count."""

    VALID = "valid"
    INVALID = "invalid"
    LIMITED = "limited"
    UNKNOWN = "unknown"


class SlotHealth(Contract):
    """One slot of a health report."""

    slot_id: SlotId
    provider: ProviderId
    revision: CounterFromZero
    """Revision in the vault; 0 means none."""
    validity: Validity
    age_seconds: CounterFromZero
    """Since this revision was stored."""
    stopped: bool | None = None
    """True while a signed order forbids its use; absent otherwise."""


class HealthReported(ServerFact):
    """A server's periodic report. Nothing correlates on it; only its transitions become facts."""

    type: ClassVar[str] = "byok.health.reported.v1"
    template: ClassVar[SubjectTemplate] = SubjectTemplate("byok.v1.health.{server_id}")
    since: ClassVar[date] = date(2026, 11, 23)

    observed_generation: CounterFromZero
    """Generation of the desired document the server acts on."""
    runtime_version: Annotated[str, Field(pattern=r"^[0-9A-Za-z.+-]{1,32}$")]
    """Version of the server's own software."""
    outbox_depth: CounterFromZero
    """Facts not yet acknowledged by the ledger."""
    slots: Annotated[tuple[SlotHealth, ...], Field(max_length=MAX_SLOTS)]
    """Every slot of the desired document or the vault."""
    locked: bool | None = None
    """True while a signed order keeps this server locked; absent otherwise."""


class Transition(StrEnum):
    """What changed about a server or one of its keys."""

    REJECTED = "rejected"
    ACCEPTED = "accepted"
    SILENT = "silent"
    RETURNED = "returned"
    CLONED = "cloned"


class StatusChanged(Event):
    """The health handler saw a transition; this is what banners are drawn from."""

    type: ClassVar[str] = "byok.status.changed.v1"
    template: ClassVar[SubjectTemplate] = SubjectTemplate("byok.v1.status.{server_id}")
    writer: ClassVar[Writer] = Writer.HEALTH
    since: ClassVar[date] = date(2026, 11, 23)

    server_id: ServerId
    owner_id: OwnerId
    transition: Transition
    slot_id: SlotId | None = None
    """The slot whose key was rejected or accepted; absent for the server itself."""
    incarnation: Counter | None = None
    """With `cloned`: a start of this server above the one that was still reporting long after."""
