"""Streams that lie on the disk and that nats-server does not know: a wrong JetStream key.

nats-server starts without the streams it cannot decrypt and only warns. Asked to create one of
them, 2.15.1 fails *and removes what lay there* (tried): the next attempt then succeeds, with an
empty stream, and the ledger's history begins anew without a word. So it is never asked.
"""

import asyncio

from bus_schemas.errors import Refused
from bus_schemas.streams import STREAMS
from bus_schemas.transport.connection import Bus
from bus_schemas.transport.jetstream import StreamError, stream_state
from platform_handlers.authority.installation import Installation

STREAM_NOT_FOUND = 10059


async def check_store(installation: Installation, bus: Bus) -> None:
    """Raise Refused(`store_locked`) if a declared stream is on the disk but not on the bus.

    *bus* may look at streams (role SETUP). Raises BusUnavailable.
    """
    locked = await locked_streams(installation, bus)
    if locked:
        raise Refused("store_locked", wrong_key(installation, locked))


async def locked_streams(installation: Installation, bus: Bus) -> list[str]:
    """Return the declared streams that lie in the store and that nats-server does not know."""
    stored = await asyncio.to_thread(stored_streams, installation)
    return [stream.name for stream in STREAMS if stream.name in stored - await _known(bus)]


def stored_streams(installation: Installation) -> frozenset[str]:
    """Return the names of the streams in the store; none where this user may not look."""
    folder = installation.nats / "store" / "jetstream"
    try:
        return frozenset(path.name for path in folder.glob("*/streams/*") if path.is_dir())
    except OSError:
        return frozenset()


def wrong_key(installation: Installation, locked: list[str]) -> str:
    """Return the sentence that says what to do about *locked* streams."""
    key = installation.nats / "jetstream-key.conf"
    return (
        f"nats-server cannot open {', '.join(locked)}: {key} is not the JetStream key they were"
        " written with; stop nats-server, put the right key back from its back-up, start it"
    )


async def _known(bus: Bus) -> frozenset[str]:
    found = set()
    for stream in STREAMS:
        try:
            await stream_state(bus, stream.name)
        except StreamError as error:
            if error.code != STREAM_NOT_FOUND:
                raise
        else:
            found.add(stream.name)
    return frozenset(found)
