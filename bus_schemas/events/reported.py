"""The steps of a rotation as the server saw them: `byok.v1.reported.{server_id}`.

All steps of one rotation carry the same `rotation_id`, so a repeated report is recognised.
"""

from datetime import date
from typing import Annotated, ClassVar

from pydantic import Field

from bus_schemas.event import ServerFact
from bus_schemas.events.config import OrderWord
from bus_schemas.fields import (
    Counter,
    CounterFromZero,
    HttpStatus,
    KeyFingerprint,
    ProviderId,
    Reason,
    RotationId,
    SlotId,
)
from bus_schemas.keys import SignedSealingKey
from bus_schemas.subjects import SubjectTemplate

REPORTED = SubjectTemplate("byok.v1.reported.{server_id}")


class RotationStep(ServerFact):
    """One step of one rotation of one slot."""

    template: ClassVar[SubjectTemplate] = REPORTED

    slot_id: SlotId
    revision: Counter
    """The revision this step is about."""
    rotation_id: RotationId
    observed_generation: CounterFromZero
    """Generation of the desired document the server acted on."""


class CredentialStored(RotationStep):
    """The sealed credential was opened, checked and written to the vault."""

    type: ClassVar[str] = "byok.credential.stored.v1"
    since: ClassVar[date] = date(2026, 11, 23)

    provider: ProviderId


class CredentialRejected(RotationStep):
    """The sealed credential was refused; the current one is untouched."""

    type: ClassVar[str] = "byok.credential.rejected.v1"
    since: ClassVar[date] = date(2026, 11, 23)

    reason: Reason


class CredentialVerified(RotationStep):
    """The provider was asked with the new credential."""

    type: ClassVar[str] = "byok.credential.verified.v1"
    since: ClassVar[date] = date(2026, 11, 23)

    verdict: Annotated[str, Field(pattern=r"^(valid|invalid|limited|unknown)$")]
    """Only documented status codes count; anything else is `unknown`."""
    promoted: bool | None = None
    """True if this revision is used from now on: with `unknown` because its owner ordered it."""


class CredentialInUse(RotationStep):
    """The applied receipt: the provider answered a call made with this revision."""

    type: ClassVar[str] = "byok.credential.in-use.v1"
    since: ClassVar[date] = date(2026, 11, 23)

    provider_status: HttpStatus
    """Of the provider's answer."""


class CredentialDrained(RotationStep):
    """No call with an older revision waits for its response head: the old key may be revoked."""

    type: ClassVar[str] = "byok.credential.drained.v1"
    since: ClassVar[date] = date(2026, 11, 23)


class CredentialRetired(RotationStep):
    """A revision is gone from the vault and is never used again."""

    type: ClassVar[str] = "byok.credential.retired.v1"
    since: ClassVar[date] = date(2026, 11, 23)


class CredentialAborted(RotationStep):
    """A pending revision was given up; the current one goes on."""

    type: ClassVar[str] = "byok.credential.aborted.v1"
    since: ClassVar[date] = date(2026, 11, 23)

    reason: Reason


class CredentialNeedsKey(ServerFact):
    """A slot of the desired document has no usable credential on the server."""

    type: ClassVar[str] = "byok.credential.needs-key.v1"
    template: ClassVar[SubjectTemplate] = REPORTED
    since: ClassVar[date] = date(2026, 11, 23)

    slot_id: SlotId
    provider: ProviderId
    reason: Reason


class SealingKeyPublished(ServerFact):
    """The key that owners seal to, signed by the server's identity key."""

    type: ClassVar[str] = "byok.sealing-key.published.v1"
    template: ClassVar[SubjectTemplate] = REPORTED
    since: ClassVar[date] = date(2026, 11, 23)

    signed_key: SignedSealingKey
    """The new key; the one before it opens what was already on its way for a day more."""


class PinsChanged(ServerFact):
    """The owner keys this server obeys, after a change on its console or by a pinned key."""

    type: ClassVar[str] = "byok.pins.changed.v1"
    template: ClassVar[SubjectTemplate] = REPORTED
    since: ClassVar[date] = date(2026, 11, 23)

    pinned: Annotated[tuple[KeyFingerprint, ...], Field(max_length=64)]
    """Fingerprints of all of them, as `byok-vps trust list` prints them."""


class OrderAnswered(ServerFact):
    """What became of one signed order; each is answered once."""

    type: ClassVar[str] = "byok.order.answered.v1"
    template: ClassVar[SubjectTemplate] = REPORTED
    since: ClassVar[date] = date(2026, 11, 23)

    order_id: RotationId
    """The order's own id, a UUID."""
    order_n: Counter
    """The order's own number, which has nothing to do with this fact's `n`."""
    kind: OrderWord
    slot_id: SlotId | None = None
    """The slot it named, if it did."""
    outcome: Annotated[str, Field(pattern=r"^(applied|refused)$")]
    """`applied` is told when it is done: of a lock, once the keys have left the memory."""
    reason: Reason | None = None
    """Why it was refused."""
    last_n: CounterFromZero
    """The highest number this server has taken from an authentic order; the next is above it."""
