"""The owner's answers to banners, stored straight in the ledger."""

from bus_schemas.event import Event
from bus_schemas.transport.connection import Bus
from bus_schemas.transport.fresh import fresh
from bus_schemas.transport.jetstream import store


class LedgerFacts:
    """Writes as role API: the caller hears at once whether the ledger has it, so no outbox."""

    def __init__(self, bus: Bus) -> None:
        self._bus = bus

    async def tell(self, fact: Event) -> None:
        """Store *fact*. Raises BusUnavailable (it may have been stored), StreamError."""
        await store(self._bus, fresh(fact))
