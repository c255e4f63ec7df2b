"""A connection whose compare-and-set writes arrive, and whose acknowledgements get lost."""

from nats.aio.msg import Msg

from bus_schemas.transport.connection import Bus
from bus_schemas.transport.fresh import new_id

_EXPECTED = "Nats-Expected-Last-Subject-Sequence"


class Echo(Bus):
    """Sends every compare-and-set write twice and returns the second answer: a conflict."""

    async def request(
        self, subject: str, payload: bytes, *, headers: dict[str, str] | None = None, wait: float
    ) -> Msg:
        """Send, and once more as if the duplicate window were over."""
        first = await super().request(subject, payload, headers=headers, wait=wait)
        if not headers or _EXPECTED not in headers:
            return first
        again = headers | {"Nats-Msg-Id": new_id()}
        return await super().request(subject, payload, headers=again, wait=wait)
