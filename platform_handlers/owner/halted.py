"""What signed orders keep a server from using, as its own answers tell. Pure."""

from collections.abc import Iterable
from dataclasses import dataclass

from bus_schemas.api import OrderState, OrderView
from bus_schemas.orders import OrderKind


@dataclass(frozen=True)
class Halted:
    """Where a server stands by the orders that it obeyed."""

    locked: bool
    stopped: frozenset[str]
    """Slots whose credential it holds and does not use."""


def halted(orders: Iterable[OrderView]) -> Halted:
    """Return what *orders*, by their numbers, have halted; one that waits or was refused has not.

    The platform keeps a server's newest answers only: `byok-vps status` on its console knows all.
    """
    locked, stopped = False, set[str]()
    for order in orders:
        if order.state is not OrderState.APPLIED:
            continue
        match order.kind:
            case OrderKind.LOCK | OrderKind.UNLOCK:
                locked = order.kind == OrderKind.LOCK
            case OrderKind.STOP_SLOT if order.slot_id:
                stopped.add(order.slot_id)
            case OrderKind.RESUME_SLOT if order.slot_id:
                stopped.discard(order.slot_id)
    return Halted(locked, frozenset(stopped))
