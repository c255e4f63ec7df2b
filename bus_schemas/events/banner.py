"""What a person sees: `byok.v1.banner.{owner_id}.{banner_id}`, and their answers."""

from datetime import date
from enum import StrEnum
from typing import Annotated, ClassVar, Final

from pydantic import Field

from bus_schemas.event import Contract, Event, Writer
from bus_schemas.fields import (
    Basis,
    Counter,
    CounterFromZero,
    KeyFingerprint,
    Meaning,
    OwnerId,
    Reason,
    ServerId,
    ShortText,
    SlotId,
    Utc,
)
from bus_schemas.subjects import SubjectTemplate

BANNER = SubjectTemplate("byok.v1.banner.{owner_id}.{banner_id}")
DISMISSAL = SubjectTemplate("byok.v1.dismissal.{owner_id}")

NOTICE_DAYS: Final = (83, 90)
"""Days of age at which an owner is told that a key is due, the first time and the last."""

BannerId = Annotated[
    str,
    Field(pattern=r"^[a-z0-9_-]{1,160}$"),
    Meaning("`{server_id}_{slot_id}_{code}` in lower case; without a slot its place is empty."),
]


class Severity(StrEnum):
    """How much a banner matters."""

    HIGH = "high"
    LOW = "low"

    @property
    def colour(self) -> "Colour":
        """The colour people see."""
        return Colour.AMBER if self is Severity.HIGH else Colour.BLUE

    @property
    def number(self) -> int:
        """OpenTelemetry severity number for the envelope: 13 is WARN, 9 is INFO."""
        return 13 if self is Severity.HIGH else 9


class Colour(StrEnum):
    """Never the only carrier of meaning: the words say it too."""

    AMBER = "amber"
    BLUE = "blue"


class BannerCode(StrEnum):
    """Why a banner stands."""

    OAUTH_REUSE = "OAUTH_REUSE"
    API_KEY_REUSE = "API_KEY_REUSE"
    KEY_REJECTED = "KEY_REJECTED"
    ROTATION_STUCK = "ROTATION_STUCK"
    ROTATION_DUE = "ROTATION_DUE"
    CLONE_SUSPECTED = "CLONE_SUSPECTED"
    OWNER_KEY_CHANGED = "OWNER_KEY_CHANGED"
    KEY_MISSING = "KEY_MISSING"
    SERVER_SILENT = "SERVER_SILENT"

    @property
    def severity(self) -> Severity:
        """How much it matters, whoever it is about."""
        return Severity.LOW if self in _LOW else Severity.HIGH


_LOW = {BannerCode.API_KEY_REUSE, BannerCode.ROTATION_DUE, BannerCode.SERVER_SILENT}


class BannerState(StrEnum):
    """`raised -> updated* -> dismissed <-> reopened -> cleared`."""

    RAISED = "raised"
    UPDATED = "updated"
    DISMISSED = "dismissed"
    REOPENED = "reopened"
    CLEARED = "cleared"


class Sharing(Contract):
    """Who else holds the credential, told without telling one owner about another."""

    own_servers: Annotated[tuple[ServerId, ...], Field(max_length=20)] = ()
    """Up to 20 of the owner's own other servers, the longest-standing first."""
    own_servers_total: CounterFromZero = 0
    """How many there are: exact to 20, above that the lower end of the bucket (21, 101, 1001)."""
    other_owners: Annotated[int, Field(json_schema_extra={"enum": [0, 1, 2, 6, 21, 101]})] = 0
    """Other owners, as the lower end of 0, 1, 2-5, 6-20, 21-100, 101 or more; never who."""
    bases: tuple[Basis, ...] = ()
    """What matched; `oauth_grant` means the servers will log each other out."""


class CopySign(StrEnum):
    """What gave a second copy of a server away."""

    STALE_DISK = "stale_disk"
    TWO_RUNNING = "two_running"


class Copies(Contract):
    """What was noticed of a second copy of a server since the banner was raised."""

    signs: Annotated[tuple[CopySign, ...], Field(min_length=1, max_length=2)]
    """`stale_disk`: an older disk asked to unlock and was refused; `two_running`: two run."""
    times: Annotated[Counter, Field(json_schema_extra={"enum": [1, 2, 10, 100, 1000]})]
    """How often, as the lower end of 1, 2-9, 10-99, 100-999, 1000 or more."""
    last_on: date
    """The day, in UTC, on which it was noticed last."""


_Fingerprints = Annotated[tuple[KeyFingerprint, ...], Field(max_length=64)]


class KeyChanges(Contract):
    """How the owner keys that a server obeys differ from those its owner knows of."""

    added: _Fingerprints = ()
    """Obeyed now, and not before."""
    removed: _Fingerprints = ()
    """Obeyed before, and no longer."""
    passing: _Fingerprints = ()
    """Obeyed for a while in between, and no longer: they may have been used."""


class RotationNote(Contract):
    """Which rotation is due or stuck."""

    revision: Counter
    """The revision that is old (`ROTATION_DUE`), or that does not come into use."""
    age_days: Annotated[int | None, Field(json_schema_extra={"enum": [*NOTICE_DAYS, None]})] = None
    """Days of ticks since it was stored, as the lower end of 83-89, 90 or more; else none."""
    waits_for: Annotated[str | None, Field(pattern=r"^(server|provider)$")] = None
    """Who has not answered: the `server` did not take it, the `provider` did not call it good."""


class BannerEvent(Event):
    """Shared shape of the five banner events. The newest `revision` of a banner wins."""

    template: ClassVar[SubjectTemplate] = BANNER
    writer: ClassVar[Writer] = Writer.FINGERPRINT
    state: ClassVar[BannerState]

    owner_id: OwnerId
    banner_id: BannerId
    server_id: ServerId
    slot_id: SlotId | None = None
    """The slot it is about; absent where it is about the server itself."""
    code: BannerCode
    severity: Severity
    colour: Colour
    revision: Counter
    """Ledger sequence of the fact that caused this event. Order by it, never by arrival."""
    sharing: Sharing = Sharing()
    """Filled for the two reuse codes."""
    copies: Copies | None = None
    """Present with `CLONE_SUSPECTED` only."""
    keys: KeyChanges | None = None
    """Present with `OWNER_KEY_CHANGED` only."""
    rotation: RotationNote | None = None
    """Present with `ROTATION_DUE` and `ROTATION_STUCK` only."""
    reason: Reason | None = None
    """With `KEY_REJECTED`, where more is known: `invalid_grant`."""
    since_time: Utc
    """When this banner was last raised from nothing."""


class BannerRaised(BannerEvent):
    """The banner stands now and did not before."""

    type: ClassVar[str] = "byok.banner.raised.v1"
    since: ClassVar[date] = date(2026, 11, 23)
    state: ClassVar[BannerState] = BannerState.RAISED


class BannerUpdated(BannerEvent):
    """The banner still stands and its content changed."""

    type: ClassVar[str] = "byok.banner.updated.v1"
    since: ClassVar[date] = date(2026, 11, 23)
    state: ClassVar[BannerState] = BannerState.UPDATED


class BannerDismissed(BannerEvent):
    """The owner knows and wants it so. It comes back for a new case: a new holder, another sign."""

    type: ClassVar[str] = "byok.banner.dismissed.v1"
    since: ClassVar[date] = date(2026, 11, 23)
    state: ClassVar[BannerState] = BannerState.DISMISSED

    dismissed_by: ShortText
    """Who asked for it, as their session or token calls them."""
    why: ShortText
    """Their words."""


class BannerReopened(BannerEvent):
    """A dismissed banner is open again: something new came up, or the dismissal was undone."""

    type: ClassVar[str] = "byok.banner.reopened.v1"
    since: ClassVar[date] = date(2026, 11, 23)
    state: ClassVar[BannerState] = BannerState.REOPENED


class BannerCleared(BannerEvent):
    """Nothing is left to say; published for dismissed banners too."""

    type: ClassVar[str] = "byok.banner.cleared.v1"
    since: ClassVar[date] = date(2026, 11, 23)
    state: ClassVar[BannerState] = BannerState.CLEARED


class DismissalRequested(Event):
    """An owner dismisses one banner as they saw it."""

    type: ClassVar[str] = "byok.dismissal.requested.v1"
    template: ClassVar[SubjectTemplate] = DISMISSAL
    writer: ClassVar[Writer] = Writer.API
    since: ClassVar[date] = date(2026, 11, 23)

    owner_id: OwnerId
    banner_id: BannerId
    banner_revision: Counter
    """The revision the person looked at; what came up since is not covered."""
    who: ShortText
    """The person, as their session or token calls them."""
    why: ShortText
    """Their words; may be empty."""


class DismissalUndone(Event):
    """The owner wants to see the banner again."""

    type: ClassVar[str] = "byok.dismissal.undone.v1"
    template: ClassVar[SubjectTemplate] = DISMISSAL
    writer: ClassVar[Writer] = Writer.API
    since: ClassVar[date] = date(2026, 11, 23)

    owner_id: OwnerId
    banner_id: BannerId
    who: ShortText
    """The person, as their session or token calls them."""
