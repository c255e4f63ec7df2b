"""Locking a server with the platform's own key, and hearing that it obeyed: a part of revoking.

A process of its own may do this beside the running platform: documents are written with
compare-and-set, and the answer is read in the ledger.
"""

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import aclosing, asynccontextmanager
from dataclasses import dataclass
from enum import StrEnum
from typing import Final

from bus_schemas.codec import decode
from bus_schemas.errors import ContractError
from bus_schemas.events import OrderAnswered
from bus_schemas.events.config import Order
from bus_schemas.fields import at_utc
from bus_schemas.flows import Role
from bus_schemas.orders import Addressee, Instruction, OrderKind, Stamp, life, sign_order
from bus_schemas.streams import LEDGER
from bus_schemas.transport.connection import Bus
from bus_schemas.transport.follow import follow
from bus_schemas.transport.fresh import new_id
from bus_schemas.transport.jetstream import StoredMessage, stream_state
from bus_schemas.transport.target import BusTarget
from platform_handlers.authority.installation import Installation
from platform_handlers.authority.role_bus import role_bus
from platform_handlers.config.orders.writer import OrderWriter
from platform_handlers.config.store import FILE_NAME, ConfigStore

_MISCOUNTED: Final = frozenset({"replayed", "n_jump"})
"""Our view of the ledger was behind the server's numbers; its answer tells the right one."""


_LOOK_SECONDS: Final = 0.05


class LockState(StrEnum):
    """What came of a lock order."""

    APPLIED = "applied"
    REFUSED = "refused"
    SILENT = "silent"


@dataclass(frozen=True)
class LockReceipt:
    """The server's own answer to a lock order, or that there was none in time."""

    server_id: str
    state: LockState
    reason: str | None = None

    @property
    def locked(self) -> bool:
        """Whether the server said that its keys have left its memory."""
        return self.state is LockState.APPLIED

    def line(self) -> str:
        """Return it for people."""
        match self.state:
            case LockState.APPLIED:
                return f"{self.server_id} has locked itself: its keys have left its memory"
            case LockState.REFUSED:
                return f"{self.server_id} refused to lock itself ({self.reason})"
            case LockState.SILENT:
                return (
                    f"{self.server_id} has not answered the lock order, and once turned away it"
                    " cannot: take it as not locked"
                )


async def lock_server(
    installation: Installation, target: BusTarget, to: Addressee, *, wait_seconds: float = 10.0
) -> LockReceipt:
    """Order the server *to* to lock itself, and wait for its answer.

    Raises Refused (`no_order_key`, and those of `plan_order`), BusUnavailable, BusDenied,
    StorageFull. The order stays in the document when nobody answers.
    """
    key = installation.order_key()
    async with _writer(installation, target) as (bus, writer):
        start = (await stream_state(bus, LEDGER.name)).last + 1
        deadline = time.monotonic() + wait_seconds
        while True:
            n = (await writer.list_of(to.server_id)).last_n + 1
            stamp = Stamp(new_id(), n, at_utc(time.time()) + life(OrderKind.LOCK))
            order = sign_order(key, to, Instruction(OrderKind.LOCK), stamp)
            await writer.give(to, order)
            answer = await _answer(bus, start, order, deadline - time.monotonic())
            if answer is None or answer.reason not in _MISCOUNTED:
                break
            if not await _heard(writer, answer, deadline):
                break
    if answer is None:
        return LockReceipt(to.server_id, LockState.SILENT)
    return LockReceipt(to.server_id, LockState(answer.outcome), answer.reason)


async def _heard(writer: OrderWriter, answer: OrderAnswered, deadline: float) -> bool:
    """Wait until the platform has read *answer*, and with it the server's last number."""
    while time.monotonic() < deadline:
        if (await writer.list_of(answer.server_id)).last_n == answer.last_n:
            return True
        await asyncio.sleep(_LOOK_SECONDS)
    return False


@asynccontextmanager
async def _writer(
    installation: Installation, target: BusTarget
) -> AsyncIterator[tuple[Bus, OrderWriter]]:
    bus = await role_bus(installation, target, Role.CONFIG).open()
    try:
        store = await ConfigStore.open(installation.platform / FILE_NAME)
        try:
            yield bus, OrderWriter(bus, store, installation.orders_public_key())
        finally:
            await store.close()
    finally:
        await bus.close()


async def _answer(bus: Bus, start: int, order: Order, wait: float) -> OrderAnswered | None:
    """Return the answer to *order* from the ledger's sequence *start* on; None if it is late."""
    try:
        async with asyncio.timeout(wait), aclosing(follow(bus, LEDGER, start)) as batches:
            async for batch in batches:
                for message in batch:
                    event = _answered(message)
                    if event is not None and event.order_id == order.order_id:
                        return event
    except TimeoutError:
        pass
    return None


def _answered(message: StoredMessage) -> OrderAnswered | None:
    try:
        event = decode(message.data, message.subject).data
    except ContractError:  # the ledger's readers park it
        return None
    return event if isinstance(event, OrderAnswered) else None
