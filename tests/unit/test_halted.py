"""What `byok key status` makes of the orders that a server has answered."""

import io
from datetime import UTC, datetime

from rich.console import Console

from bus_schemas.api import OrderState, OrderView, ServerView, SlotStep, SlotView, StepView
from bus_schemas.fields import CredentialKind
from bus_schemas.orders import OrderKind
from platform_handlers.owner.halted import Halted, halted
from platform_handlers.owner.key_set import show_status

AT = datetime(2026, 11, 23, tzinfo=UTC)


def order(
    kind: OrderKind, slot_id: str | None = None, state: OrderState = OrderState.APPLIED
) -> OrderView:
    """Return an order as the platform shows it."""
    order_id = "01890000-0000-7000-8000-000000000001"
    return OrderView(order_id=order_id, n=1, kind=kind.value, slot_id=slot_id, state=state)


def test_the_last_order_that_was_obeyed_counts() -> None:
    """Resuming and unlocking give back; what waits or was refused has changed nothing."""
    stop, resume = OrderKind.STOP_SLOT, OrderKind.RESUME_SLOT
    assert halted(()) == Halted(locked=False, stopped=frozenset())
    given = [order(stop, "a"), order(stop, "b"), order(OrderKind.LOCK), order(resume, "b")]
    assert halted(given) == Halted(locked=True, stopped=frozenset({"a"}))
    for state in (OrderState.WAITING, OrderState.REFUSED):
        more = [order(resume, "a", state), order(OrderKind.UNLOCK, None, state)]
        assert halted(given + more) == halted(given)
    given += [order(OrderKind.UNLOCK), order(resume, "a"), order(OrderKind.TRUST)]
    assert halted(given) == Halted(locked=False, stopped=frozenset())


def test_the_status_says_what_is_stopped_and_locked() -> None:
    """And how each is lifted; a slot that runs is not said to be stopped."""
    slots = [
        SlotView(
            slot_id=slot_id,
            provider="anthropic",
            kind=CredentialKind.API_KEY,
            revision=1,
            steps=(StepView(step=SlotStep.STORED, revision=1, at=AT),),
        )
        for slot_id in ("chat", "search")
    ]
    view = ServerView(
        server_id="acme-1",
        active=True,
        identity_key=None,
        fingerprint=None,
        sealing_key=None,
        slots=tuple(slots),
    )
    console = Console(file=io.StringIO(), width=200)
    show_status(view, None, Halted(locked=True, stopped=frozenset({"chat"})), console)
    assert isinstance(console.file, io.StringIO)
    _, locked, _, chat, search = console.file.getvalue().splitlines()
    assert locked.startswith("locked: ")
    assert "byok server unlock acme-1" in locked
    assert "stopped, until `byok key resume acme-1 chat`; stored on the server" in chat
    assert "stopped" not in search
