"""What the HTTPS API says: the shapes that the platform serves and the owner's machine reads.

Pure. Bytes are base64url, instants RFC 3339 in UTC. Errors are problem documents (RFC 9457).
"""

from enum import StrEnum
from typing import Annotated

from pydantic import Field

from bus_schemas.event import Contract
from bus_schemas.events.banner import (
    BannerCode,
    BannerId,
    BannerState,
    Colour,
    Copies,
    KeyChanges,
    RotationNote,
    Severity,
    Sharing,
)
from bus_schemas.events.config import OrderWord
from bus_schemas.events.health import LinkHealth, Presence, Receipt, Validity
from bus_schemas.fields import (
    Counter,
    CounterFromZero,
    CredentialKind,
    Key32,
    KeyFingerprint,
    OwnerId,
    ProviderId,
    Reason,
    RotationId,
    ServerId,
    ShortText,
    SlotId,
    Utc,
)
from bus_schemas.keys import SignedSealingKey
from bus_schemas.sealed import SealedEnvelope

PROBLEM_TYPE = "application/problem+json"


def sign_in_link(url: str, secret: str) -> str:
    """Return the address that an owner opens to sign in, once; *url* is the platform's."""
    return f"{url}/login/{secret}"


class SlotStep(StrEnum):
    """How far the newest credential of a slot has come; all but `sent` are the server's words."""

    SENT = "sent"
    STORED = "stored"
    REJECTED = "rejected"
    VERIFIED = "verified"
    IN_USE = "in-use"
    DRAINED = "drained"
    RETIRED = "retired"
    ABORTED = "aborted"
    NEEDS_KEY = "needs-key"


class StepView(Contract):
    """One step and when it was taken."""

    step: SlotStep
    revision: CounterFromZero
    """Revision the step is about; 0 where the server holds none."""
    at: Utc
    """When the step was reported; for `sent` when the platform took the envelope."""
    reason: Reason | None = None
    """Why, for `rejected`, `aborted` and `needs-key`; the provider's verdict for `verified`."""
    promoted: bool | None = None
    """With `verified`: true if the revision is used from then on, whatever the verdict."""


class SlotView(Contract):
    """One slot of one server, as its owner may see it."""

    slot_id: SlotId
    provider: ProviderId
    kind: CredentialKind
    revision: CounterFromZero
    """The newest sealed revision; the next sealing names it as its `base_revision`."""
    steps: Annotated[tuple[StepView, ...], Field(min_length=1, max_length=32)]
    """What happened to the newest revision, oldest first."""
    in_use: CounterFromZero | None = None
    """The revision in use by the server's last report; 0 for none, absent before the first."""
    validity: Validity | None = None
    """What the provider last said of it, by the same report."""
    reason: Reason | None = None
    """Why it is not valid, where more is known, by the same report: `invalid_grant`."""
    receipt: Receipt | None = None
    """The last call that the provider answered, by the same report."""
    stopped: bool | None = None
    """True while a signed order forbids its use, by the same report; absent otherwise."""

    @property
    def latest(self) -> StepView:
        """The step that holds now."""
        return self.steps[-1]


class RotationView(Contract):
    """One rotation of a slot, whether done, given up or on its way."""

    revision: Counter
    steps: Annotated[tuple[StepView, ...], Field(min_length=1, max_length=32)]
    """Oldest first."""


class SlotHistory(Contract):
    """Answer of `GET /api/servers/{id}/slots/{slot}/history`."""

    server_id: ServerId
    slot_id: SlotId
    rotations: Annotated[tuple[RotationView, ...], Field(max_length=32)]
    """The newest ones, oldest first."""


class ServerHealth(Contract):
    """Three facts of a server's last report, each for itself; absent if it keeps no count."""

    link: LinkHealth | None = None
    agent: Presence | None = None
    provider: Presence | None = None
    """Of the providers in use, the worst."""


class ServerView(Contract):
    """One server, as its owner may see it."""

    server_id: ServerId
    active: bool
    """False once it was revoked."""
    identity_key: Key32 | None
    """Ed25519 public key; none before the server has enrolled. Compare its fingerprint."""
    fingerprint: KeyFingerprint | None
    """What `byok-vps fingerprint` prints on the server's console; clients compute their own."""
    sealing_key: SignedSealingKey | None
    """What to seal to; none before the server's first unlock. Check its signature."""
    slots: tuple[SlotView, ...] = ()
    locked: bool | None = None
    """True while a signed order keeps it locked, by its last report; absent otherwise."""
    reported_at: Utc | None = None
    """When its last report came; absent before the first and after a day without one."""
    health: ServerHealth | None = None
    """What that report says of the server as a whole."""


class ServerList(Contract):
    """Answer of `GET /api/servers`."""

    owner_id: OwnerId
    servers: tuple[ServerView, ...]


class SealedSubmission(Contract, extra="forbid"):
    """Body of `POST /api/servers/{id}/slots/{slot}`."""

    envelope: SealedEnvelope
    base_revision: CounterFromZero
    """The newest revision the sealer knew of, 0 for a new slot; a stale one is refused (409)."""


class Accepted(Contract):
    """Answer to a sealed credential: it is on its way, and nothing more is claimed."""

    generation: Counter
    """Generation of the server's desired document that asks for it."""


class OrderState(StrEnum):
    """What became of an order; all but `waiting` are the server's words."""

    WAITING = "waiting"
    APPLIED = "applied"
    REFUSED = "refused"


class OrderView(Contract):
    """One signed order to a server, as its owner may see it."""

    order_id: RotationId
    n: Counter
    kind: OrderWord
    slot_id: SlotId | None = None
    state: OrderState
    reason: Reason | None = None
    """Why it was refused."""
    at: Utc | None = None
    """When the answer was stored; none while it waits."""


class OrderList(Contract):
    """Answer of `GET /api/servers/{id}/orders`."""

    server_id: ServerId
    last_n: CounterFromZero
    """The next order's `n` is above this one."""
    orders: tuple[OrderView, ...]
    """Those that wait and the newest answered ones, by `n`."""


class BannerView(Contract):
    """One banner with its words, as its owner may see it."""

    banner_id: BannerId
    server_id: ServerId
    slot_id: SlotId | None
    code: BannerCode
    severity: Severity
    colour: Colour
    state: BannerState
    revision: Counter
    """Name it in a dismissal: it says what was seen."""
    sharing: Sharing
    copies: Copies | None = None
    keys: KeyChanges | None = None
    rotation: RotationNote | None = None
    reason: Reason | None = None
    since_time: Utc
    """When it was last raised from nothing."""
    changed_at: Utc
    """When this state was told."""
    title: ShortText
    explanation: Annotated[str, Field(max_length=4000)]
    what_to_do: ShortText
    dismissed_by: ShortText | None = None
    why: ShortText | None = None
    """The owner's reason, of a dismissed banner."""


class BannerList(Contract):
    """Answer of `GET /api/banners`, and the `snapshot` event of the stream."""

    banners: tuple[BannerView, ...]
    """Open ones first, amber before blue, newest first."""
    cursor: CounterFromZero
    """Give it to the stream (`?cursor=`) to hear what came after."""


class Dismissal(Contract, extra="forbid"):
    """Body of `POST /api/banners/{id}/dismissal`."""

    revision: Counter
    """The revision the person looked at; what came up since is not covered."""
    why: Annotated[str, Field(min_length=1, max_length=500)]


class Problem(Contract):
    """What went wrong (RFC 9457)."""

    type: str
    """`urn:byok:problem:<code>`; stable."""
    title: str
    status: Annotated[int, Field(ge=400, le=599)]
    detail: str
    """Which id, what was wrong and what to do."""
