"""One message as one line for a person. Pure; says who and what, never a payload it cannot read."""

from collections import Counter
from collections.abc import Mapping

from bus_schemas.codec import decode
from bus_schemas.envelope import Envelope
from bus_schemas.errors import ContractError
from bus_schemas.event import Event
from bus_schemas.events import BannerEvent
from bus_schemas.transport.jetstream import StoredMessage

_QUIET = {"server_id", "owner_id", "banner_id", "incarnation", "n"}
_LONG = 40


def line_of(message: StoredMessage) -> str:
    """Return `sequence time type subject details`, or why the message is unusable."""
    head = f"{message.sequence:>7}  {message.stored_at[:19]}Z  "
    try:
        envelope = decode(message.data, message.subject)
    except ContractError as error:
        return f"{head}{'unusable':<32} {message.subject}  {error.reason}"
    return f"{head}{envelope.type:<32} {message.subject}  {details(envelope)}"


def details(envelope: Envelope[Event]) -> str:
    """Return the few fields that tell one event from another of its type."""
    event = envelope.data
    if isinstance(event, BannerEvent):
        own = ", ".join(event.sharing.own_servers) or "-"
        others = event.sharing.other_owners
        return f"{event.code} {event.severity}/{event.colour} own: {own} others: {others}"
    shown = (
        f"{name}={value if len(str(value)) <= _LONG else str(value)[:12] + '…'}"
        for name, value in event
        if name not in _QUIET and isinstance(value, str | int)
    )
    return " ".join(shown)


def talkers(counts: Mapping[str, int], most: int) -> list[str]:
    """Return the servers with the most facts of their own, one a line, and their share.

    *counts* has the number of messages on each subject of the ledger.
    """
    own: Counter[str] = Counter()
    for subject, count in counts.items():
        own[subject.rpartition(".")[2]] += count
    whole = own.total()
    top = own.most_common(most)
    return [f"{count:>9}  {count / whole:>4.0%}  {server}" for server, count in top]
