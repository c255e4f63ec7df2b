"""Puts signed orders into desired documents, and takes the answered ones out.

Compare-and-set, like every writing of a document; who loses a race looks again and decides again.
"""

import time
from collections.abc import Callable
from typing import Final

import structlog

from bus_schemas.api import OrderList
from bus_schemas.codec import decode
from bus_schemas.errors import ContractError
from bus_schemas.events import ConfigDesired
from bus_schemas.events.config import Order
from bus_schemas.orders import Addressee, OrderKind, revision_of
from bus_schemas.streams import CONFIG
from bus_schemas.transport.connection import Bus
from bus_schemas.transport.fresh import fresh
from bus_schemas.transport.jetstream import Conflict, Expect, read_last, store
from bus_schemas.transport.target import BusUnavailable
from platform_handlers.config.orders.book import answers_of, withdrawals, withdrawn
from platform_handlers.config.orders.plan import (
    Book,
    Situation,
    order_list,
    plan_order,
    retired,
    withdraw,
)
from platform_handlers.config.purger import purge_sealed
from platform_handlers.config.store import ConfigStore, Purge

_log = structlog.get_logger(__name__)

_ATTEMPTS: Final = 5


class OrderWriter:
    """Gives orders to servers. *bus* has role CONFIG; *store* has folded their answers."""

    def __init__(
        self,
        bus: Bus,
        store: ConfigStore,
        platform_key: bytes | None,
        *,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._bus = bus
        self._store = store
        self._platform_key = platform_key
        self._clock = clock

    async def give(self, to: Addressee, order: Order) -> ConfigDesired:
        """Have the server *to* find *order*; giving the same one again changes nothing.

        What an order retires leaves the bus as well, sealed as it is, and the ledger is told: of a
        revision that it never took, its server tells nothing. Raises Refused (those of
        `plan_order`), StreamError and BusUnavailable: give it again.
        """
        wanted = await self._given(to, order)
        if order.kind == OrderKind.RETIRE and order.slot_id:
            await purge_sealed(self._bus, Purge(to.server_id, order.slot_id, revision_of(order)))
            for fact in retired(wanted, order.slot_id):
                await store(self._bus, fresh(fact, correlationid=order.order_id))
        return wanted

    async def _given(self, to: Addressee, order: Order) -> ConfigDesired:
        book = await self.book(to.server_id)
        for _ in range(_ATTEMPTS):
            sequence, current = await self._last(to.server_id)
            situation = Situation(to, current, book, self._platform_key, self._clock())
            wanted = plan_order(situation, order)
            if wanted is current or await self._stored(wanted, sequence, order.order_id):
                return wanted
        raise BusUnavailable(f"another writer keeps changing the document of {to.server_id}")

    async def list_of(self, server_id: str) -> OrderList:
        """Return the orders that wait and those that were answered. Raises BusUnavailable."""
        _, current = await self._last(server_id)
        return order_list(server_id, current, await self.book(server_id), self._clock())

    async def book(self, server_id: str) -> Book:
        """Return what the server has answered, and whom it obeys, as far as the ledger is read."""
        last_n, answers = await answers_of(self._store.database, server_id)
        return Book(last_n, answers, await self._store.pins(server_id))

    async def withdraw_answered(self) -> None:
        """Take out what has been answered. Raises BusUnavailable, StreamError; then ask again."""
        while waiting := await withdrawals(self._store.database):
            for done in waiting:
                try:
                    await self._withdraw(done.server_id)
                except ContractError as error:  # a document of a newer build; others go on
                    _log.warning("not_withdrawn", server=done.server_id, error=str(error))
                await withdrawn(self._store.database, done)

    async def _withdraw(self, server_id: str) -> None:
        answered = (await self.book(server_id)).answered
        for _ in range(_ATTEMPTS):
            sequence, current = await self._last(server_id)
            if current is None:
                return
            wanted = withdraw(current, answered, self._clock())
            if wanted is current or await self._stored(wanted, sequence, None):
                return
        raise BusUnavailable(f"another writer keeps changing the document of {server_id}")

    async def _stored(self, wanted: ConfigDesired, sequence: int, cause: str | None) -> bool:
        """Write *wanted* on top of *sequence*; say whether nobody else was faster."""
        try:
            await store(self._bus, fresh(wanted, correlationid=cause), Expect(sequence))
        except Conflict as conflict:  # or our own, whose acknowledgement got lost
            _log.info("order_conflict", subject=conflict.subject)
            return False
        return True

    async def _last(self, server_id: str) -> tuple[int, ConfigDesired | None]:
        subject = ConfigDesired.template.fill({"server_id": server_id})
        message = await read_last(self._bus, CONFIG.name, subject)
        if message is None:
            return 0, None
        event = decode(message.data, message.subject).data
        return message.sequence, event if isinstance(event, ConfigDesired) else None
