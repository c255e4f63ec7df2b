"""Whether an order is obeyed, and what is remembered of orders. Pure.

Left to others: reading the document that carries them, the effects, telling the answer. A refusal
here changes nothing but the memory.

Keys of the memory (`Facts.told`):

    orders-last-n        the highest number taken from an authentic order
    orders-generation    the newest document whose orders were looked at
    order/<order id>     `applied`, or why it was refused; kept while a document carries the order
    order-begun          an order that is taken and not yet answered, as JSON
    locked               the id of the order that locked this server
    stopped/<slot>       the id of the order that stopped it
"""

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Final

from bus_schemas.errors import Refused
from bus_schemas.events.config import ConfigDesired, Order
from bus_schemas.keys import owner_fingerprint
from bus_schemas.orders import (
    MAX_GAP,
    PLATFORM_KINDS,
    Addressee,
    OrderKind,
    check_order,
    known_kind,
    revision_of,
)
from vps_runtime.enrolment.pins import Pins
from vps_runtime.facts.told import is_noted
from vps_runtime.rotation.rules import (
    Change,
    aborted,
    forced,
    retire_ordered,
    rotation_of,
    verify_asked,
)

LAST_N: Final = "orders-last-n"
GENERATION: Final = "orders-generation"
BEGUN: Final = "order-begun"
LOCKED: Final = "locked"
APPLIED: Final = "applied"

_ANSWERED = "order/"
_STOPPED = "stopped/"
_ABOUT_ROTATION = frozenset(
    {OrderKind.VERIFY, OrderKind.PROMOTE, OrderKind.ABORT, OrderKind.RETIRE}
)


@dataclass(frozen=True, slots=True)
class Standing:
    """What an order is held against."""

    me: Addressee
    pins: Pins
    """The owner keys that this server obeys."""
    platform_key: bytes | None
    """The platform's order key, pinned at the join; None where there was none yet."""
    last_n: int
    slots: Collection[str]
    """Slots that the document lists or that are stopped."""
    now: float
    """Unix seconds."""


@dataclass(frozen=True, slots=True)
class Ruling:
    """What is answered, and whether the order's number is used up by it."""

    refused: str | None
    """The reason; None if the order is obeyed."""
    counted: bool
    """Only an authentic order's: else anybody could use up the numbers."""


def decide(order: Order, standing: Standing) -> Ruling:
    """Say whether *order* is obeyed.

    Reasons: `owner_key_not_pinned`, `not_for_the_platform`, `bad_order`, `bad_signature`,
    `replayed`, `n_jump`; and of an authentic one `expired`, `unknown_kind`, `unknown_slot`,
    `last_pin`, `too_many_pins`.
    """
    try:
        _check_authority(order, standing)
        check_order(order, standing.me)
        _check_number(order, standing.last_n)
    except Refused as refusal:
        return Ruling(refusal.reason, counted=False)
    try:
        _check_content(order, standing)
    except Refused as refusal:
        return Ruling(refusal.reason, counted=True)
    return Ruling(None, counted=True)


def _check_authority(order: Order, standing: Standing) -> None:
    if owner_fingerprint(order.signer) in standing.pins.pinned:
        return
    if order.signer != standing.platform_key:
        raise Refused("owner_key_not_pinned")
    # A platform that could trust or unlock could pin a key of its own and read on.
    if order.kind not in PLATFORM_KINDS:
        raise Refused("not_for_the_platform")


def _check_number(order: Order, last_n: int) -> None:
    if order.n <= last_n:
        raise Refused("replayed")
    if order.n > last_n + MAX_GAP:
        raise Refused("n_jump")


def _check_content(order: Order, standing: Standing) -> None:
    if standing.now > order.not_after.timestamp():
        raise Refused("expired")
    kind = known_kind(order)
    if kind is None:
        raise Refused("unknown_kind")
    # A retirement may be faster than the document that brings its slot, and must not be lost.
    known = {None, order.slot_id} if kind is OrderKind.RETIRE else {None, *standing.slots}
    if order.slot_id not in known:
        raise Refused("unknown_slot")
    pins_after(kind, order.argument or "", standing.pins)


def pins_after(kind: OrderKind, fingerprint: str, pins: Pins) -> Pins:
    """Return the pins once an order of *kind* about *fingerprint* is obeyed; twice is as once.

    Raises Refused: `too_many_pins`, or `last_pin`, since nobody could give this server an order
    any more: its console alone may take away the last one.
    """
    if kind is OrderKind.TRUST:
        return pins.with_key(fingerprint)
    if kind is OrderKind.DISTRUST and fingerprint in pins.pinned:
        if len(pins.pinned) == 1:
            raise Refused("last_pin", "the last owner key can be removed on the console only")
        return pins.without_key(fingerprint)
    return pins


def pins_of_begun(order: Order, pins: Pins) -> Pins:
    """Return the pins once *order*, which was taken earlier and only begun, is obeyed.

    Raises Refused as `pins_after`, and `owner_key_not_pinned`: the console has taken the signer
    away since. A key that signs its own removal is gone by that very order.
    """
    signer, kind, about = owner_fingerprint(order.signer), OrderKind(order.kind), order.argument
    leaves = kind is OrderKind.DISTRUST and about == signer
    if signer not in pins.pinned and not leaves:
        raise Refused("owner_key_not_pinned")
    return pins_after(kind, about or "", pins)


def pending(document: ConfigDesired, told: Mapping[str, str]) -> list[Order]:
    """Return the orders of *document* that are not answered, in the order of their numbers."""
    waiting = [order for order in document.orders if answered_key(order) not in told]
    return sorted(waiting, key=lambda order: order.n)


def taking_away(document: ConfigDesired, told: Mapping[str, str]) -> list[Order]:
    """Return the pending orders that only take away and have had no effect yet, locks first."""
    found = [order for order in pending(document, told) if _takes_away(order, told)]
    return sorted(found, key=lambda order: order.kind != OrderKind.LOCK)


def _takes_away(order: Order, told: Mapping[str, str]) -> bool:
    if order.kind == OrderKind.RETIRE:
        return rotation_of(order.slot_id or "", told).floor < revision_of(order)
    return order.kind in PLATFORM_KINDS and not effect(order)[0].keys() <= told.keys()


def forgotten(document: ConfigDesired, told: Mapping[str, str]) -> list[str]:
    """Return the keys of answers whose order has left *document*: its number refuses it now."""
    carried = {answered_key(order) for order in document.orders}
    return [key for key in told if key.startswith(_ANSWERED) and key not in carried]


def answered_key(order: Order) -> str:
    """Return where the memory keeps that *order* was answered."""
    return f"{_ANSWERED}{order.order_id}"


def effect(order: Order) -> tuple[dict[str, str], list[str]]:
    """Return what obeying *order* adds to the memory, and what it takes out of it."""
    stop = f"{_STOPPED}{order.slot_id}"
    changes: dict[str, tuple[dict[str, str], list[str]]] = {
        OrderKind.LOCK: ({LOCKED: order.order_id}, []),
        OrderKind.UNLOCK: ({}, [LOCKED]),
        OrderKind.STOP_SLOT: ({stop: order.order_id}, []),
        OrderKind.RESUME_SLOT: ({}, [stop]),
    }
    return changes.get(order.kind, ({}, []))


def about_rotation(order: Order) -> bool:
    """Whether *order* is about one revision of one slot."""
    return order.kind in _ABOUT_ROTATION


def rotation_after(order: Order, told: Mapping[str, str]) -> Change:
    """Return what obeying *order*, which is about a revision, makes of its slot's rotation."""
    slot, revision = order.slot_id or "", revision_of(order)
    before, held = rotation_of(slot, told), is_noted(slot, revision, told)
    match OrderKind(order.kind):
        case OrderKind.VERIFY:
            return verify_asked(before, revision)
        case OrderKind.PROMOTE:
            return forced(before, revision, held=held)
        case OrderKind.ABORT:
            return aborted(before, revision, held=held)
        case _:
            return retire_ordered(before, revision)


def last_n(told: Mapping[str, str]) -> int:
    """Return the highest number taken from an authentic order; 0 for none."""
    return int(told.get(LAST_N, 0))


def is_locked(told: Mapping[str, str]) -> bool:
    """Whether an order keeps this server locked."""
    return LOCKED in told


def stopped(told: Mapping[str, str]) -> frozenset[str]:
    """Return the slots that an order stopped."""
    return frozenset(key.removeprefix(_STOPPED) for key in told if key.startswith(_STOPPED))


def may_be_used(slot_id: str, told: Mapping[str, str]) -> bool:
    """Whether no order stands against using the credential of *slot_id*."""
    return not is_locked(told) and f"{_STOPPED}{slot_id}" not in told
