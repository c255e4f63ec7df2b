"""New envelopes, stamped with the wall clock and real randomness."""

import secrets
import time
from collections.abc import Iterable

from bus_schemas.envelope import Envelope, wrap
from bus_schemas.event import Event
from bus_schemas.fields import at_utc
from bus_schemas.ids import uuid7


def new_id() -> str:
    """Return a new UUIDv7."""
    return uuid7(time.time_ns() // 1_000_000, secrets.token_bytes(10))


def fresh(
    event: Event, *, correlationid: str | None = None, causationid: str | None = None
) -> Envelope[Event]:
    """Return *event* in a new envelope, made now."""
    return wrap(
        event,
        id_=new_id(),
        at=at_utc(time.time()),
        correlationid=correlationid,
        causationid=causationid,
    )


def fresh_all(
    events: Iterable[Event], *, correlationid: str | None = None
) -> list[Envelope[Event]]:
    """Return *events* in new envelopes that share one correlation."""
    shared = correlationid or new_id()
    return [fresh(event, correlationid=shared) for event in events]
