"""One `clock` fact a minute: the only time that folding handlers know.

Every handler may write it; compare-and-set on the subject lets one of them win each minute.
"""

import asyncio
import contextlib
import time

from bus_schemas.codec import decode
from bus_schemas.errors import ContractError
from bus_schemas.events import ClockTicked
from bus_schemas.streams import LEDGER
from bus_schemas.transport.connection import Bus
from bus_schemas.transport.fresh import fresh
from bus_schemas.transport.jetstream import Conflict, Expect, StreamError, read_last, store
from bus_schemas.transport.target import BusUnavailable

_SECONDS = 60


async def run_clock(bus: Bus) -> None:
    """Tick for ever; a tick that could not be written is simply missing, and ages nothing."""
    while True:
        with contextlib.suppress(BusUnavailable, Conflict, StreamError):
            await tick(bus, int(time.time()) // _SECONDS)
        await asyncio.sleep(_SECONDS - time.time() % _SECONDS)


async def tick(bus: Bus, minute: int) -> bool:
    """Write *minute* if it is above the last one; return whether it was written here.

    Raises BusUnavailable, Conflict (another handler wrote it) or StreamError.
    """
    event = ClockTicked(minute=minute)
    last = await read_last(bus, LEDGER.name, event.subject)
    if last:
        try:
            known = decode(last.data, last.subject).data
        except ContractError:  # nothing we could have written; count on from here
            known = None
        if isinstance(known, ClockTicked) and known.minute >= minute:
            return False
    await store(bus, fresh(event), Expect(last_on_subject=last.sequence if last else 0))
    return True
