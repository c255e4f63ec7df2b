"""What `byok key status` makes of the orders that a server has answered."""

from bus_schemas.api import OrderState, OrderView
from bus_schemas.orders import OrderKind
from platform_handlers.owner.halted import Halted, halted


def order(
    kind: OrderKind, slot_id: str | None = None, state: OrderState = OrderState.APPLIED
) -> OrderView:
    """Return an order as the platform shows it."""
    order_id = "01890000-0000-7000-8000-000000000001"
    return OrderView(order_id=order_id, n=1, kind=kind.value, slot_id=slot_id, state=state)


def test_the_last_order_that_was_obeyed_counts() -> None:
    """Resuming and unlocking give back; what waits or was refused has changed nothing."""
    stop, resume = OrderKind.STOP_SLOT, OrderKind.RESUME_SLOT
    assert halted(()) == Halted(locked=None, stopped={})
    given = [order(stop, "a"), order(stop, "b"), order(OrderKind.LOCK), order(resume, "b")]
    assert halted(given) == Halted(locked=True, stopped={"a": True, "b": False})
    for state in (OrderState.WAITING, OrderState.REFUSED):
        more = [order(resume, "a", state), order(OrderKind.UNLOCK, None, state)]
        assert halted(given + more) == halted(given)
    given += [order(OrderKind.UNLOCK), order(resume, "a"), order(OrderKind.TRUST)]
    assert halted(given) == Halted(locked=False, stopped={"a": False, "b": False})
