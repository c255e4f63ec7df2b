"""The board: the newest event of every banner, kept apart by owner.

Pure. Following the stream and telling listeners is the work of `feed`. The newest is the one
with the highest revision, never the one that came last: a late `raised` must not undo a
`cleared`. Nothing here can be asked without naming an owner.
"""

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass

from bus_schemas.envelope import Envelope
from bus_schemas.event import Event
from bus_schemas.events import BannerCleared, BannerDismissed, BannerEvent
from bus_schemas.events.banner import Severity


@dataclass(frozen=True)
class Entry:
    """The newest event of one banner and where it lies in BYOK_BANNERS."""

    envelope: Envelope[Event]
    banner: BannerEvent
    sequence: int

    @property
    def is_open(self) -> bool:
        """Whether the owner should look at it: neither dismissed nor cleared."""
        return not isinstance(self.banner, BannerDismissed | BannerCleared)


class Board:
    """Every owner's banners in their newest state."""

    def __init__(self) -> None:
        self._owners: dict[str, dict[str, Entry]] = defaultdict(dict)
        self.oldest = 0
        """The first sequence it was given; 0 before any."""
        self.cursor = 0
        """The last sequence it was given, of whichever owner."""

    def pass_by(self, sequence: int) -> None:
        """Take note of *sequence* although nothing on it could be used."""
        self.oldest = self.oldest or sequence
        self.cursor = max(self.cursor, sequence)

    def apply(self, envelope: Envelope[Event], sequence: int) -> Entry | None:
        """Take in one event; return its entry, or None if it is no news."""
        self.pass_by(sequence)
        banner = envelope.data
        if not isinstance(banner, BannerEvent):
            return None
        banners = self._owners[banner.owner_id]
        known = banners.get(banner.banner_id)
        if known is not None and banner.revision <= known.banner.revision:
            return None
        entry = Entry(envelope, banner, sequence)
        banners[banner.banner_id] = entry
        return entry

    def get(self, owner_id: str, banner_id: str) -> Entry | None:
        """Return one banner of *owner_id*; None if that owner has none of this id."""
        return self._owners[owner_id].get(banner_id) if owner_id in self._owners else None

    def all(self, owner_id: str) -> Sequence[Entry]:
        """Return every banner of *owner_id*: open ones first, amber before blue, newest first."""
        entries = self._owners[owner_id].values() if owner_id in self._owners else ()
        return sorted(entries, key=_urgency)

    def open_banners(self, owner_id: str) -> Sequence[Entry]:
        """Return the banners *owner_id* should look at, the most urgent first."""
        return [entry for entry in self.all(owner_id) if entry.is_open]

    def since(self, owner_id: str, cursor: int) -> Sequence[Entry] | None:
        """Return what changed for *owner_id* after *cursor*, in stream order.

        A banner that changed twice is told once, as it is now. None means that the gap cannot be
        bridged: *cursor* is older than what the board was built from, or from another stream.
        """
        if cursor > self.cursor or cursor < self.oldest - 1:
            return None
        later = [entry for entry in self.all(owner_id) if entry.sequence > cursor]
        return sorted(later, key=lambda entry: entry.sequence)


def _urgency(entry: Entry) -> tuple[bool, bool, float, str]:
    banner = entry.banner
    return (
        not entry.is_open,
        banner.severity is not Severity.HIGH,
        -banner.since_time.timestamp(),
        banner.banner_id,
    )
