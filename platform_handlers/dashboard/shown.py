"""What the page's templates show: where each card belongs, how many there are, how slots stand.

Pure.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Final, Literal

from markupsafe import Markup

from bus_schemas.api import BannerView, SlotView
from bus_schemas.events.banner import BannerCode, BannerState, Severity
from bus_schemas.events.health import REPORT_INTERVAL_SECONDS, Receipt, Validity
from bus_schemas.providers import load_providers
from platform_handlers.banner.words import SEVERITY_WORDS
from platform_handlers.owner.keys.rules import Claim, Phase, claim, course, slot_course
from platform_handlers.owner.keys.words import reason_in_words

HISTORY = 12
"""Cleared banners that the page still shows."""
_SILENT_SECONDS: Final = 3 * REPORT_INTERVAL_SECONDS
_FAR_FUTURE = 10**12
"""Seconds; ranks count down from here, so that newer ones sort first as text."""

ListName = Literal["open", "dismissed", "cleared"]

_LISTS: Final[dict[BannerState, ListName]] = {
    BannerState.RAISED: "open",
    BannerState.UPDATED: "open",
    BannerState.REOPENED: "open",
    BannerState.DISMISSED: "dismissed",
    BannerState.CLEARED: "cleared",
}

_SHARED: Final = frozenset({BannerCode.API_KEY_REUSE, BannerCode.OAUTH_REUSE})
_COMES_BACK: Final[dict[BannerCode, str]] = {
    **dict.fromkeys(_SHARED, "It comes back if anyone new joins."),
    BannerCode.ROTATION_STUCK: "It comes back if another one does not finish.",
    BannerCode.ROTATION_DUE: "It comes back at 90 days, then for the next key.",
}


@dataclass(frozen=True)
class Shown:
    """One banner on the page."""

    banner: BannerView

    @property
    def list(self) -> ListName:
        """The list it stands in."""
        return _LISTS[self.banner.state]

    @property
    def severity(self) -> str:
        """How much it matters, in words."""
        return SEVERITY_WORDS[self.banner.severity]

    @property
    def comes_back(self) -> str:
        """When a dismissed one is open again."""
        return _COMES_BACK.get(self.banner.code, "It comes back if it happens again.")

    @property
    def reason(self) -> str:
        """An example of why it may be all right."""
        return "Shared on purpose" if self.banner.code in _SHARED else "I know about it"

    @property
    def rank(self) -> str:
        """Sorts as text: amber before blue, newest first; history by when it was cleared."""
        cleared = self.list == "cleared"
        at = self.banner.changed_at if cleared else self.banner.since_time
        amber = cleared or self.banner.severity is Severity.HIGH
        return (
            f"{0 if amber else 1}-{_FAR_FUTURE - int(at.timestamp()):013d}-{self.banner.banner_id}"
        )


@dataclass(frozen=True)
class Counts:
    """How much there is of what."""

    high: int
    low: int
    dismissed: int
    cleared: int
    """At most as many as the page shows."""

    @property
    def open(self) -> int:
        """How many the owner should look at."""
        return self.high + self.low

    @property
    def sentence(self) -> str:
        """The line below the heading."""
        parts = []
        if self.high:
            parts.append(f"{self.high} {'needs' if self.high == 1 else 'need'} attention")
        if self.low:
            parts.append(f"{self.low} for your information")
        return ", ".join(parts) if parts else "All quiet."


def counts_of(banners: Sequence[BannerView]) -> Counts:
    """Count *banners* by where they stand."""
    shown = [Shown(banner) for banner in banners]
    high = [s for s in shown if s.list == "open" and s.banner.severity is Severity.HIGH]
    low = [s for s in shown if s.list == "open" and s.banner.severity is Severity.LOW]
    return Counts(
        high=len(high),
        low=len(low),
        dismissed=sum(s.list == "dismissed" for s in shown),
        cleared=min(HISTORY, sum(s.list == "cleared" for s in shown)),
    )


def in_list(banners: Sequence[BannerView], name: ListName) -> Sequence[Shown]:
    """Return the cards of one list, in the order they are shown."""
    found = sorted((s for s in map(Shown, banners) if s.list == name), key=lambda s: s.rank)
    return found[:HISTORY] if name == "cleared" else found


@dataclass(frozen=True)
class StepWords:
    """How a slot stands, for a person."""

    label: str
    tone: Literal["good", "bad", "going"]
    """`good` only on the server's own receipt that a provider answered with this credential."""
    more: str = ""


_PHASES: Final[dict[Phase, StepWords]] = {
    Phase.SENT: StepWords("On its way", "going", "The server has not taken it yet."),
    Phase.PENDING: StepWords("Stored", "going"),
    Phase.CURRENT: StepWords("Tested", "going", "No call has been answered with it yet."),
    Phase.REFUSED: StepWords("Refused", "bad"),
    Phase.ABORTED: StepWords("Given up", "bad", "The credential before it goes on."),
    Phase.RETIRED: StepWords("Retired", "going"),
    Phase.LOST: StepWords("Needs a key", "bad"),
}
_IN_USE: Final = StepWords("In use", "good")


_LOCKED: Final = StepWords("Locked", "bad", "An order keeps the server from using it.")
_STOPPED: Final = StepWords("Stopped", "bad", "An order keeps the agent from using it.")
_REFUSED: Final = StepWords("Refused", "bad", "The provider no longer takes it.")


def slot_words(slot: SlotView, locked: bool | None = None) -> StepWords:  # noqa: FBT001 (a filter)
    """Return how *slot* stands, on a server that is *locked* or not, by its last report.

    Green would be wrong of a credential that was in use once and may not be used now.
    """
    if locked:
        return _LOCKED
    if slot.stopped:
        return _STOPPED
    said = step_words(slot)
    newest = slot.latest.revision
    if said.tone == "good" and slot.in_use == newest and slot.validity is Validity.INVALID:
        return _REFUSED
    if said.tone == "going" and not said.more and slot.in_use and slot.in_use < newest:
        return replace(said, more=f"Revision {slot.in_use} stays in use until this one is taken.")
    return said


def receipt_words(receipt: Receipt) -> str:
    """Return which call the provider answered last, and with which credential it was made."""
    tag = f" ({receipt.short_tag})" if receipt.short_tag else ""
    return (
        f"Last answered call: {_minute(receipt.at)}, status {receipt.provider_status}, with "
        f"revision {receipt.revision}{tag}."
    )


def silence_words(reported_at: datetime | None, now: datetime) -> str:
    """Return since when a server is silent; nothing while it reports, or never did.

    What stands beside it was true then; without a date it would look like now.
    """
    if reported_at is None or (now - reported_at).total_seconds() <= _SILENT_SECONDS:
        return ""
    return f"Last heard of on {_minute(reported_at)}. What is shown here is from then."


def _minute(at: datetime) -> str:
    return f"{at.day} {at:%b %Y, %H:%M} UTC"


def step_words(slot: SlotView) -> StepWords:
    """Return how far the newest credential of *slot* has come.

    `drained` alone is not green: without traffic it comes before the first call.
    """
    found = course(slot.steps)
    said = _IN_USE if found.phase is Phase.CURRENT and found.answered else _PHASES[found.phase]
    if found.drained and claim(slot_course(slot)) is Claim.MAY_BE_REVOKED:
        return replace(said, more=f"{said.more} The old credential may be revoked now.".lstrip())
    return replace(said, more=reason_in_words(found.reason)) if found.reason else said


def provider_name(provider_id: str) -> str:
    """Return the name people know; one that this build does not list shows its id."""
    provider = load_providers().get(provider_id)
    return provider.name if provider else provider_id


def commands_marked(sentence: str) -> Markup:
    """Return *sentence* with its `commands` set as code; everything in it is escaped."""
    parts = sentence.split("`")
    return Markup("").join(
        Markup("<code>{}</code>").format(part) if at % 2 else part for at, part in enumerate(parts)
    )
