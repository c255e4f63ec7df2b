"""The CloudEvents 1.0 envelope around every event, structured JSON."""

from datetime import datetime
from functools import cache
from typing import Annotated, Any, Generic, Literal, TypeVar, cast

from pydantic import Field, SerializeAsAny, create_model

from bus_schemas.event import Contract, Event
from bus_schemas.fields import Utc

CONTENT_TYPE = "application/cloudevents+json"
MAX_BYTES = 64 * 1024
"""Largest envelope anybody may send; the NATS accounts enforce it too."""

E_co = TypeVar("E_co", bound=Event, covariant=True)

EventId = Annotated[str, Field(pattern=r"^[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$")]
Source = Annotated[str, Field(pattern=r"^/(servers|platform)/[a-z0-9-]{1,63}$")]


class Envelope(Contract, Generic[E_co]):
    """CloudEvents 1.0 attributes, our three extensions, and the event as `data`."""

    specversion: Literal["1.0"]
    """Version of CloudEvents."""
    id: EventId
    """UUIDv7, or UUIDv5 where two makers must agree; also sent as `Nats-Msg-Id`."""
    source: Source
    """Who wrote it; must agree with the subject, else the message is parked."""
    type: str
    """Which event `data` is, and in which major."""
    time: Utc
    """When the writer made it. Nothing is ordered by it."""
    datacontenttype: Literal["application/json"] = "application/json"
    """Media type of `data`."""
    correlationid: EventId
    """Shared by everything that one action set off."""
    causationid: EventId | None = None
    """The event that directly caused this one."""
    severitynumber: Literal[9, 13] | None = None
    """Banner events only: 9 blue, 13 amber."""
    data: SerializeAsAny[E_co]
    """The event itself."""


@cache
def envelope_model(event: type[Event]) -> type[Envelope[Event]]:
    """Return the one envelope class of *event*, with `type` and `data` fixed.

    Writing and reading share it, so an envelope equals the one its bytes decode to.
    """
    generic: Any = Envelope  # pydantic subscribes it at run time, mypy would read a type
    kind: Any = Literal[event.type]
    model = create_model(
        f"{event.__name__}Envelope",
        __base__=generic[event],
        __doc__=event.__doc__,
        type=(kind, Field(description=Envelope.model_fields["type"].description)),
    )
    return cast("type[Envelope[Event]]", model)


def wrap(
    event: Event,
    *,
    id_: str,
    at: datetime,
    correlationid: str | None = None,
    causationid: str | None = None,
) -> Envelope[Event]:
    """Return *event* in its envelope; the source follows from its subject. Pure.

    Without *correlationid* the event begins a correlation of its own.
    """
    ids = event.template.parse(event.subject)
    severity = getattr(event, "severity", None)
    return envelope_model(type(event))(
        specversion="1.0",
        id=id_,
        source=event.writer.source_for(ids),
        type=event.type,
        time=at,
        correlationid=correlationid or id_,
        causationid=causationid,
        severitynumber=severity.number if severity is not None else None,
        data=event,
    )
