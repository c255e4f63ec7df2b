"""How a server is: `byok.v1.health.{server_id}`, and the transitions the platform drew from it."""

from datetime import date
from enum import StrEnum
from typing import Annotated, ClassVar

from pydantic import Field

from bus_schemas.event import Contract, Event, ServerFact, Writer
from bus_schemas.events.fingerprint import MAX_SLOTS
from bus_schemas.fields import (
    Counter,
    CounterFromZero,
    HttpStatus,
    OwnerId,
    ProviderId,
    Reason,
    ServerId,
    ShortTag,
    SlotId,
    Utc,
)
from bus_schemas.subjects import SubjectTemplate

REPORT_INTERVAL_SECONDS = 60
"""How often a server reports; three missed ones make it silent."""


class Validity(StrEnum):
    """What the provider last said of a credential; only documented status codes count."""

    VALID = "valid"
    INVALID = "invalid"
    LIMITED = "limited"
    UNKNOWN = "unknown"


class Presence(StrEnum):
    """Whether something answers; it goes from up to down, or back, only after several signs."""

    UP = "up"
    DOWN = "down"
    UNKNOWN = "unknown"


class LinkHealth(StrEnum):
    """How the connection to the bus has been. That it is there at all shows by the report."""

    STEADY = "steady"
    FLAPPING = "flapping"


class Receipt(Contract):
    """The applied receipt: the last call that the provider answered, and with which credential."""

    revision: Counter
    """Of the credential that the call was made with."""
    short_tag: ShortTag | None = None
    """Of that revision; absent until its tag is told."""
    provider_status: HttpStatus
    at: Utc
    """When the head of the answer came, by the server's clock."""


class SlotHealth(Contract):
    """One slot of a health report."""

    slot_id: SlotId
    provider: ProviderId
    revision: CounterFromZero
    """The revision in use, or the newest held while none is; 0 means none."""
    pending: Counter | None = None
    """A newer revision that waits for the provider's word on it."""
    validity: Validity
    reason: Reason | None = None
    """Why it is not valid, where more is known: `invalid_grant`."""
    receipt: Receipt | None = None
    """Absent before the first answered call since the start."""
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
    link: LinkHealth | None = None
    """How the connection to the bus has been lately; absent if the server keeps no count."""
    agent: Presence | None = None
    """Whether the AI agent on this server answers, or calls; absent if nothing tells."""
    provider: Presence | None = None
    """Whether the providers of the slots in use answer at all; `down` if one of them does not."""


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
    reason: Reason | None = None
    """With `rejected`: why, where more is known than that the provider refuses it."""
    incarnation: Counter | None = None
    """With `cloned`: a start of this server above the one that was still reporting long after."""
