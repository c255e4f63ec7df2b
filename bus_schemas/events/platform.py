"""Facts that all handlers share: epochs, the clock, the rules in force, parked messages."""

from datetime import date
from typing import Annotated, ClassVar

from pydantic import Field

from bus_schemas.event import Event, Writer
from bus_schemas.fields import Counter, CounterFromZero, EpochId, Key32, Reason
from bus_schemas.subjects import SubjectTemplate

EPOCH = SubjectTemplate("byok.v1.epoch")


class EpochOpened(Event):
    """A new fingerprint key; servers announce their tags under it as well."""

    type: ClassVar[str] = "byok.epoch.opened.v1"
    template: ClassVar[SubjectTemplate] = EPOCH
    writer: ClassVar[Writer] = Writer.EVALUATOR
    since: ClassVar[date] = date(2026, 11, 23)

    epoch: EpochId
    public_key: Key32
    """ristretto255 public key that proofs of this epoch are checked against."""


class EpochClosed(Event):
    """The overlap is over: tags of this epoch are dropped and its key is destroyed."""

    type: ClassVar[str] = "byok.epoch.closed.v1"
    template: ClassVar[SubjectTemplate] = EPOCH
    writer: ClassVar[Writer] = Writer.EVALUATOR
    since: ClassVar[date] = date(2026, 11, 23)

    epoch: EpochId


class ClockTicked(Event):
    """A minute has passed. Handlers read no other clock, so a replay sees the same time."""

    type: ClassVar[str] = "byok.clock.ticked.v1"
    template: ClassVar[SubjectTemplate] = SubjectTemplate("byok.v1.clock")
    writer: ClassVar[Writer] = Writer.CLOCK
    since: ClassVar[date] = date(2026, 11, 23)

    minute: CounterFromZero
    """Whole minutes since the Unix epoch; one not above the last is ignored."""


class RulesChanged(Event):
    """From here on every handler folds by these rules; one that does not know them stops."""

    type: ClassVar[str] = "byok.rules.changed.v1"
    template: ClassVar[SubjectTemplate] = SubjectTemplate("byok.v1.rules")
    writer: ClassVar[Writer] = Writer.ISSUER
    since: ClassVar[date] = date(2026, 11, 23)

    version: Counter
    """Version of the correlation rules; 1 holds before the first such fact."""
    opens: Annotated[tuple[str, ...], Field(max_length=256)] = ()
    """Event types that servers may speak from here on; before that a newer major is parked."""


class MessageParked(Event):
    """A pointer to a message no reader could use; the message itself stays where it is."""

    type: ClassVar[str] = "byok.message.parked.v1"
    template: ClassVar[SubjectTemplate] = SubjectTemplate("byok.v1.parked.{stream}")
    writer: ClassVar[Writer] = Writer.READER
    since: ClassVar[date] = date(2026, 11, 23)

    stream: Annotated[str, Field(pattern=r"^[a-z0-9-]{1,63}$")]
    """The stream's name in lower case with `-` for `_`, as it stands in the subject."""
    sequence: Counter
    """Where in that stream the message lies."""
    reader: Annotated[str, Field(pattern=r"^[a-z0-9-]{1,63}$")]
    """The handler that could not use it; others may have parked it too."""
    reason: Reason
