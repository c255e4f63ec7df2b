"""What a server should hold: the desired document, its history, and sealed credentials."""

from datetime import date
from typing import Annotated, ClassVar

from pydantic import Field

from bus_schemas.event import Contract, Event, Writer
from bus_schemas.fields import (
    Counter,
    CounterFromZero,
    CredentialKind,
    Meaning,
    OwnerId,
    ProviderId,
    RotationId,
    ServerId,
    Signature,
    SlotId,
    Utc,
)
from bus_schemas.sealed import SealedEnvelope
from bus_schemas.subjects import SubjectTemplate

OrderWord = Annotated[
    str,
    Field(pattern=r"^[a-z]+(-[a-z]+)*$", max_length=32),
    Meaning("What is ordered, one of `orders.OrderKind`; a server refuses one it does not know."),
]


OrderArgument = Annotated[
    str,
    Field(pattern=r"^([A-Z2-7]{20}|[1-9][0-9]{0,15})$"),
    Meaning("An owner key's fingerprint, or a revision in decimal digits."),
]


class DesiredSlot(Contract):
    """What one slot should hold."""

    slot_id: SlotId
    provider: ProviderId
    kind: CredentialKind
    revision: Counter
    """The newest sealed revision; gaps are allowed, a lower one is never served again."""
    min_revision: CounterFromZero
    """Raised when a revision is retired; the server refuses to open anything below it."""
    rotation_id: RotationId
    """Id of the sealed envelope that carries `revision`."""


class Order(Contract, extra="forbid"):
    """A signed instruction to one server; `orders.check_order` says by whom and for which."""

    order_id: RotationId
    """A UUID of its own; the server answers each order once."""
    n: Counter
    """Grows with every order to this server; an old one is never obeyed twice."""
    kind: OrderWord
    slot_id: SlotId | None = None
    """The slot it is about; none for the kinds that are about the whole server."""
    argument: OrderArgument | None = None
    """The owner key to trust or to distrust, or the revision that is meant; else none."""
    not_after: Utc
    """A whole second; the order is not obeyed after it."""
    signer: Annotated[bytes, Field(min_length=32, max_length=32)]
    """Ed25519 public key of whoever ordered it."""
    signature: Signature
    r"""Ed25519, *signer*: "byok/order/v1\0" and the parts of docs/protocol.md, "Orders"."""


class ConfigDesired(Event):
    """The *whole* desired document of one server; it holds no ciphertext and never expires.

    Level-triggered: a message on its subject is only a nudge, the document is read back.
    """

    type: ClassVar[str] = "byok.config.desired.v1"
    template: ClassVar[SubjectTemplate] = SubjectTemplate("byok.v1.config.{server_id}")
    writer: ClassVar[Writer] = Writer.CONFIG
    since: ClassVar[date] = date(2026, 11, 23)

    server_id: ServerId
    owner_id: OwnerId
    generation: Counter
    """Counts the versions of this document; a lower one than known is ignored."""
    slots: Annotated[tuple[DesiredSlot, ...], Field(max_length=64)]
    """Every slot that should hold a credential; one that is not listed should be empty."""
    orders: Annotated[tuple[Order, ...], Field(max_length=64)] = ()
    """Signed instructions still in force, the newest last."""
    highest_n: CounterFromZero | None = None
    """Highest `n` of all orders that were ever in it; a server has taken none above. None: none."""


class ConfigRequested(Event):
    """Somebody asked for a change of the desired document. Metadata only, never ciphertext."""

    type: ClassVar[str] = "byok.config.requested.v1"
    template: ClassVar[SubjectTemplate] = SubjectTemplate("byok.v1.configured.{server_id}")
    writer: ClassVar[Writer] = Writer.CONFIG
    since: ClassVar[date] = date(2026, 11, 23)

    server_id: ServerId
    owner_id: OwnerId
    generation: Counter
    """The generation of the desired document that the change went into."""
    slot: DesiredSlot


class CredentialSealed(Event):
    """One sealed credential on its way; kept at most a day and purged once `stored`."""

    type: ClassVar[str] = "byok.credential.sealed.v1"
    template: ClassVar[SubjectTemplate] = SubjectTemplate("byok.v1.sealed.{server_id}.{slot_id}")
    writer: ClassVar[Writer] = Writer.CONFIG
    since: ClassVar[date] = date(2026, 11, 23)

    server_id: ServerId
    slot_id: SlotId
    envelope: SealedEnvelope
