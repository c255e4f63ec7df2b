"""What signed orders keep a server from using, as its own answers tell. Pure."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from bus_schemas.api import OrderState, OrderView
from bus_schemas.orders import OrderKind


@dataclass(frozen=True)
class Halted:
    """Where a server stands by the orders that it obeyed, as far as they are still known."""

    locked: bool | None = None
    """None if no order says."""
    stopped: Mapping[str, bool] = field(default_factory=dict)
    """By slot: whether its credential is held and not used. Slots no order speaks of are absent."""


def halted(orders: Iterable[OrderView]) -> Halted:
    """Return what *orders*, by their numbers, have halted; one that waits or was refused has not.

    The platform keeps a server's newest answers only: its reports and `byok-vps status` on its
    console know of older ones.
    """
    locked, stopped = None, dict[str, bool]()
    for order in orders:
        if order.state is not OrderState.APPLIED:
            continue
        match order.kind:
            case OrderKind.LOCK | OrderKind.UNLOCK:
                locked = order.kind == OrderKind.LOCK
            case OrderKind.STOP_SLOT | OrderKind.RESUME_SLOT if order.slot_id:
                stopped[order.slot_id] = order.kind == OrderKind.STOP_SLOT
    return Halted(locked, stopped)
