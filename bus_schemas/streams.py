"""Every JetStream stream, declared once; `deploy/nats/streams.json` is generated from here.

Streams that servers write to leave rollup, message TTL, schedules, counters and atomic batches
off: with rollup allowed, one server's header would erase everybody's facts. Into the ledger servers
do not write at all: the intake does (ADR-18).
"""

from dataclasses import dataclass
from typing import Any

from bus_schemas.catalog import catalog
from bus_schemas.envelope import MAX_BYTES
from bus_schemas.intake import ADMITTED, admitted

_DAY = 24 * 3600
_GIB = 1024**3
_NANOSECONDS = 1_000_000_000


@dataclass(frozen=True)
class Stream:
    """One stream and its limits, in seconds and bytes."""

    name: str
    subjects: tuple[str, ...]
    max_age_seconds: int
    max_bytes: int
    max_per_subject: int = -1
    message_ttl: bool = False
    may_purge: bool = False
    forgets_when_full: bool = False
    """Drop the oldest message rather than refuse the new one. Never for what is somebody's state:
    one owner's flood would push out another's document, or the ratchet that refuses an old disk."""
    through_intake: tuple[str, ...] = ()
    """Those of *subjects* that servers may not publish on to the stream; the intake does."""
    followed: bool = False
    """Whether readers wait at its end: each stored message is told, by its headers, on `nudges`."""

    def configuration(self) -> dict[str, Any]:
        """Return the JetStream API's stream configuration (durations in nanoseconds)."""
        return {
            "name": self.name,
            "subjects": list(self.arrivals),
            "retention": "limits",
            "storage": "file",
            "discard": "old" if self.forgets_when_full else "new",
            "max_age": self.max_age_seconds * _NANOSECONDS,
            "max_bytes": self.max_bytes,
            "max_msg_size": MAX_BYTES + 4096,  # headers count too
            "max_msgs_per_subject": self.max_per_subject,
            "num_replicas": 1,
            "duplicate_window": 120 * _NANOSECONDS,
            "allow_direct": True,
            "allow_rollup_hdrs": False,
            "allow_msg_ttl": self.message_ttl,
            "allow_msg_schedules": False,
            "allow_msg_counter": False,
            "allow_atomic": False,
            "allow_batched": False,
            "deny_delete": True,
            "deny_purge": not self.may_purge,
            **self._transform(),
            **self._republish(),
        }

    def _transform(self) -> dict[str, Any]:
        if not self.through_intake:
            return {}
        return {"subject_transform": {"src": f"{ADMITTED}>", "dest": "byok.v1.>"}}

    def _republish(self) -> dict[str, Any]:
        if not self.followed:
            return {}
        [told] = self.nudges
        return {"republish": {"src": "byok.v1.>", "dest": told, "headers_only": True}}

    @property
    def arrivals(self) -> tuple[str, ...]:
        """What nats-server listens on for it; stored under *subjects*, in the same order."""
        return tuple(admitted(s) if s in self.through_intake else s for s in self.subjects)

    @property
    def nudges(self) -> tuple[str, ...]:
        """What a reader listens on to learn that there is more to read.

        Of a followed stream it is what nats-server says *after* it has stored a message.
        """
        return (f"byok.v1.stored.{self.token}.>",) if self.followed else self.subjects

    @property
    def token(self) -> str:
        """The stream's name as a subject token (`byok-ledger`)."""
        return self.name.lower().replace("_", "-")

    def owns(self, subject_filter: str) -> bool:
        """Whether messages on *subject_filter* are kept by this stream."""
        return subject_filter in {*self.subjects, *self.arrivals}


CONFIG = Stream(
    "BYOK_CONFIG",
    ("byok.v1.config.*", "byok.v1.sealed.*.*"),
    max_age_seconds=0,
    max_bytes=1 * _GIB,
    max_per_subject=1,
    message_ttl=True,
    may_purge=True,
)
LEDGER = Stream(
    "BYOK_LEDGER",
    (
        "byok.v1.provisioning.*",
        "byok.v1.configured.*",
        "byok.v1.status.*",
        "byok.v1.unlock.*",
        "byok.v1.ownerkey.*",
        "byok.v1.dismissal.*",
        "byok.v1.epoch",
        "byok.v1.clock",
        "byok.v1.rules",
        "byok.v1.fingerprint.*",
        "byok.v1.reported.*",
    ),
    max_age_seconds=400 * _DAY,
    max_bytes=16 * _GIB,
    through_intake=("byok.v1.fingerprint.*", "byok.v1.reported.*"),
    followed=True,
)
HEALTH = Stream(
    "BYOK_HEALTH",
    ("byok.v1.health.*",),
    1 * _DAY,
    1 * _GIB,
    max_per_subject=1,
    forgets_when_full=True,
    followed=True,
)
BANNERS = Stream(
    "BYOK_BANNERS",
    ("byok.v1.banner.*.*",),
    400 * _DAY,
    4 * _GIB,
    max_per_subject=64,
    forgets_when_full=True,
    followed=True,
)
# Full of one tenant's rubbish, it must not hold up the outboxes that pointers leave through.
PARKED = Stream(
    "BYOK_PARKED",
    ("byok.v1.parked.*",),
    90 * _DAY,
    1 * _GIB,
    forgets_when_full=True,
    followed=True,
)
RATCHET = Stream("BYOK_RATCHET", ("byok.v1.ratchet.*",), 0, 1 * _GIB, max_per_subject=1)

STREAMS = (CONFIG, LEDGER, HEALTH, BANNERS, PARKED, RATCHET)


def stream_of(subject_filter: str) -> Stream:
    """Return the stream that keeps *subject_filter* (an event template's wildcard).

    Raises LookupError for a subject that no stream keeps.
    """
    for stream in STREAMS:
        if stream.owns(subject_filter):
            return stream
    msg = f"no stream keeps {subject_filter}"
    raise LookupError(msg)


def unkept_events() -> tuple[str, ...]:
    """Types in the catalogue that no stream would keep; a test holds this empty."""
    kept = {subject for stream in STREAMS for subject in stream.subjects}
    return tuple(t for t, cls in catalog().items() if cls.template.wildcard not in kept)
