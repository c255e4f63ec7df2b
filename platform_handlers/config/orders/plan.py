"""From a signed order to a server's next desired document, and out of it again. Pure.

Left to others: reading and storing the document with compare-and-set (`writer`), whether the caller
is the owner (the API). What is refused here could only be refused by the server; it decides.
"""

from collections.abc import Collection
from dataclasses import dataclass
from typing import Final

from bus_schemas.api import OrderList, OrderState, OrderView
from bus_schemas.errors import Refused
from bus_schemas.events import ConfigDesired, ConfigRequested
from bus_schemas.events.config import DesiredSlot, Order
from bus_schemas.keys import owner_fingerprint
from bus_schemas.orders import PLATFORM_KINDS, Addressee, OrderKind, check_order, revision_of

MAX_ORDERS: Final = 64
MAX_STEP: Final = 10
"""A server takes no number 1,000 above its last; a slip must not use them up."""
MAX_OWNER_STEP: Final = 100
"""For a key that the server obeys: its device also counts the orders that were refused here."""

_OF_A_PENDING_ONE: Final = frozenset({OrderKind.VERIFY, OrderKind.PROMOTE, OrderKind.ABORT})
_OF_A_REVISION: Final = _OF_A_PENDING_ONE | {OrderKind.RETIRE}


@dataclass(frozen=True)
class Book:
    """What a server has answered so far, from the ledger."""

    last_n: int = 0
    """The highest number it has taken, in its own words: not to be believed beyond `highest_n`."""
    answers: tuple[OrderView, ...] = ()
    """The newest ones, by `n`."""
    pins: tuple[str, ...] | None = None
    """Fingerprints of the owner keys it obeys; None before it said so."""

    @property
    def answered(self) -> frozenset[str]:
        """The ids of the answered orders."""
        return frozenset(view.order_id for view in self.answers)


@dataclass(frozen=True)
class Situation:
    """What an order is taken on."""

    to: Addressee
    current: ConfigDesired | None
    """The newest desired document; None before the first."""
    book: Book
    platform_key: bytes | None
    """The public half of the platform's order key."""
    now: float
    """Unix seconds."""

    @property
    def waiting(self) -> tuple[Order, ...]:
        """The orders in the document that are neither answered nor over."""
        orders = self.current.orders if self.current else ()
        return waiting(orders, self.book.answered, self.now)

    @property
    def last_n(self) -> int:
        """The number that the next order's must be above."""
        return last_n(self.waiting, self.book, self.current)


def plan_order(situation: Situation, order: Order) -> ConfigDesired:
    """Return the document that carries *order*; the current one if it does or did already.

    One that retires a revision raises the slot's `min_revision` above it, so that no server, even
    one set up anew or restored from a backup, fetches it again, whatever it answers to the order.

    Raises Refused: `bad_order`, `bad_signature`, `owner_key_not_pinned`, `not_for_the_platform`,
    `expired`, `stale_n`, `n_too_far`, `too_many_orders`, `unknown_slot`, `unknown_revision`,
    `revision_retired`.
    """
    current, to = situation.current, situation.to
    check_order(order, to)
    if current is not None and (
        order in current.orders or order.order_id in situation.book.answered
    ):
        return current  # the answer to this very request got lost
    _check_signer(situation, order)
    if order.not_after.timestamp() <= situation.now:
        raise Refused("expired", f"order {order.order_id} is over; sign anew, check this clock")
    _check_number(situation, order)
    _check_revision(situation, order)
    orders = (*situation.waiting, order)
    if len(orders) > MAX_ORDERS:
        raise Refused("too_many_orders", f"{MAX_ORDERS} orders wait for {to.server_id}, the most")
    if current is None:
        return ConfigDesired(
            server_id=to.server_id,
            owner_id=to.owner_id,
            generation=1,
            slots=(),
            orders=orders,
            highest_n=order.n,
        )
    slots = tuple(_slot_after(slot, order) for slot in current.slots)
    return _next(current.model_copy(update={"slots": slots}), orders)


def retired(wanted: ConfigDesired, slot_id: str) -> list[ConfigRequested]:
    """Return what the ledger is told of a slot whose `min_revision` an order has raised."""
    return [
        ConfigRequested(
            server_id=wanted.server_id,
            owner_id=wanted.owner_id,
            generation=wanted.generation,
            slot=slot,
        )
        for slot in wanted.slots
        if slot.slot_id == slot_id
    ]


def withdraw(current: ConfigDesired, answered: Collection[str], now: float) -> ConfigDesired:
    """Return *current* without the orders that are answered or over; itself if there is none."""
    left = waiting(current.orders, answered, now)
    return current if left == current.orders else _next(current, left)


def order_list(server_id: str, current: ConfigDesired | None, book: Book, now: float) -> OrderList:
    """Return a server's orders as its owner may see them."""
    orders = waiting(current.orders if current else (), book.answered, now)
    views = [
        OrderView(
            order_id=order.order_id,
            n=order.n,
            kind=order.kind,
            slot_id=order.slot_id,
            state=OrderState.WAITING,
        )
        for order in orders
    ]
    everything = sorted((*book.answers, *views), key=lambda view: view.n)
    return OrderList(
        server_id=server_id, last_n=last_n(orders, book, current), orders=tuple(everything)
    )


def waiting(orders: Collection[Order], answered: Collection[str], now: float) -> tuple[Order, ...]:
    """Return those of *orders* that a server may still obey, in their order."""
    return tuple(
        order
        for order in orders
        if order.order_id not in answered and order.not_after.timestamp() > now
    )


def last_n(orders: Collection[Order], book: Book, current: ConfigDesired | None) -> int:
    """Return the highest number taken by the server or waiting for it.

    A number that a *refused* stranger used is not among them: the server's own word counts, but
    only as far as we ever counted. One that claims the last number there is could not be locked.
    """
    return max((min(book.last_n, highest_n(current)), *(order.n for order in orders)))


def highest_n(current: ConfigDesired | None) -> int:
    """Return the highest number of all orders that were ever in the document."""
    if current is None:
        return 0
    return max((current.highest_n or 0, *(order.n for order in current.orders)))


def _check_signer(situation: Situation, order: Order) -> None:
    to, pins = situation.to, situation.book.pins
    if order.signer == situation.platform_key:
        if order.kind not in PLATFORM_KINDS:
            raise Refused("not_for_the_platform", f"only an owner may order {order.kind}")
        return
    if pins is not None and owner_fingerprint(order.signer) not in pins:
        detail = f"{to.server_id} does not obey this owner key; type it on its console"
        raise Refused("owner_key_not_pinned", detail)


def _check_number(situation: Situation, order: Order) -> None:
    server_id, newest = situation.to.server_id, situation.last_n
    if order.n <= newest:
        raise Refused("stale_n", f"{server_id} is at order {newest}, this one is {order.n}")
    step = MAX_STEP if situation.book.pins is None else MAX_OWNER_STEP  # else it may be a stranger
    if order.n > newest + step:
        detail = f"{server_id} is at order {newest}; the next is at most {step} above it"
        raise Refused("n_too_far", detail)


def _check_revision(situation: Situation, order: Order) -> None:
    """Refuse what is about a revision that there is not, or that is retired."""
    if order.kind not in _OF_A_REVISION:
        return
    where = f"slot {order.slot_id} of {situation.to.server_id}"
    slots = situation.current.slots if situation.current else ()
    slot = next((slot for slot in slots if slot.slot_id == order.slot_id), None)
    revision = revision_of(order)
    if slot is None:
        raise Refused("unknown_slot", f"nothing was ever sealed for {where}; look at the name")
    if revision > slot.revision:
        detail = f"{where} has no revision {revision}, the newest is {slot.revision}"
        raise Refused("unknown_revision", detail)
    if revision < slot.min_revision and order.kind in _OF_A_PENDING_ONE:
        detail = f"revision {revision} of {where} is retired for good; send a new credential"
        raise Refused("revision_retired", detail)


def _slot_after(slot: DesiredSlot, order: Order) -> DesiredSlot:
    """Return *slot* as *order* leaves it in the document."""
    if order.kind != OrderKind.RETIRE or order.slot_id != slot.slot_id:
        return slot
    lowest = max(slot.min_revision, revision_of(order) + 1)
    return slot.model_copy(update={"min_revision": lowest})


def _next(current: ConfigDesired, orders: tuple[Order, ...]) -> ConfigDesired:
    highest = max((highest_n(current), *(order.n for order in orders)))
    return current.model_copy(
        update={
            "generation": current.generation + 1,
            "orders": orders,
            "highest_n": highest or None,
        }
    )
