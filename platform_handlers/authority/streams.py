"""Make the bus as the contracts declare it: the streams, created or brought up to date."""

from bus_schemas.streams import STREAMS
from bus_schemas.transport.connection import Bus
from bus_schemas.transport.jetstream import StreamError, api

_STREAM_NOT_FOUND = 10059


async def make_streams(bus: Bus) -> None:
    """Create or update every declared stream. Idempotent; raises StreamError."""
    for stream in STREAMS:
        try:
            await api(bus, f"STREAM.UPDATE.{stream.name}", stream.configuration())
        except StreamError as error:
            if error.code != _STREAM_NOT_FOUND:
                raise
            await api(bus, f"STREAM.CREATE.{stream.name}", stream.configuration())
