"""New envelopes, stamped with the wall clock and real randomness."""

import secrets
import time

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
