"""Signed orders to a server: what they say, what is signed, who may give which.

Pure. Layout: docs/protocol.md, "Orders". Left to the server's rules: the signer is obeyed there,
`n` is above the last one, `not_after` has not passed.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum
from types import MappingProxyType
from typing import Final

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from bus_schemas.encoding import u64
from bus_schemas.errors import Refused
from bus_schemas.events.config import Order
from bus_schemas.keys import sign, verify

ORDER_DOMAIN: Final = "byok/order/v1"


class OrderKind(StrEnum):
    """What a server can be told to do."""

    STOP_SLOT = "stop-slot"
    """Use the slot's credential no more; it stays in the vault."""
    RESUME_SLOT = "resume-slot"
    LOCK = "lock"
    """Drop the root key and all that it opened, and stay so over restarts."""
    UNLOCK = "unlock"
    TRUST = "trust"
    """Obey one owner key more: a second device, a new colleague."""
    DISTRUST = "distrust"
    VERIFY = "verify"
    """Ask the provider about a held revision now."""
    PROMOTE = "promote"
    """Use a pending revision although the provider has not said that it is good."""
    ABORT = "abort"
    """Give a pending revision up; the one in use goes on."""
    RETIRE = "retire"
    """Use a revision, and all before it, never again, and take them out of the vault."""


class Argument(StrEnum):
    """What the argument of an order is."""

    NONE = "none"
    FINGERPRINT = "fingerprint"
    REVISION = "revision"


@dataclass(frozen=True)
class _Shape:
    """Which fields an order of one kind has."""

    slot: bool = False
    argument: Argument = Argument.NONE


_SHAPES: Final[Mapping[str, _Shape]] = MappingProxyType(
    {
        OrderKind.STOP_SLOT: _Shape(slot=True),
        OrderKind.RESUME_SLOT: _Shape(slot=True),
        OrderKind.LOCK: _Shape(),
        OrderKind.UNLOCK: _Shape(),
        OrderKind.TRUST: _Shape(argument=Argument.FINGERPRINT),
        OrderKind.DISTRUST: _Shape(argument=Argument.FINGERPRINT),
        OrderKind.VERIFY: _Shape(slot=True, argument=Argument.REVISION),
        OrderKind.PROMOTE: _Shape(slot=True, argument=Argument.REVISION),
        OrderKind.ABORT: _Shape(slot=True, argument=Argument.REVISION),
        OrderKind.RETIRE: _Shape(slot=True, argument=Argument.REVISION),
    }
)

PLATFORM_KINDS: Final = frozenset({OrderKind.STOP_SLOT, OrderKind.LOCK})
"""What the platform's order key may order: both only take away, and only an owner gives back."""

_TAKING: Final = frozenset(
    {OrderKind.STOP_SLOT, OrderKind.LOCK, OrderKind.DISTRUST, OrderKind.RETIRE}
)

MAX_GAP: Final = 1000
"""How far a number may jump: an order of number 2**53 would be the last one ever obeyed."""


@dataclass(frozen=True)
class Addressee:
    """The server that an order is for, as it is enrolled now."""

    owner_id: str
    server_id: str
    identity_key: bytes
    """Its Ed25519 public key, made anew at every enrolment: an order kept from before is void."""


@dataclass(frozen=True)
class Instruction:
    """What an order says."""

    kind: OrderKind
    slot_id: str | None = None
    argument: str | None = None
    """Fingerprint of an owner key (`trust`, `distrust`), or a revision in decimal digits."""


@dataclass(frozen=True)
class Stamp:
    """What makes one order different from all others."""

    order_id: str
    """A new UUID."""
    n: int
    """Above that of every order before."""
    not_after: datetime
    """Cut to the whole second."""


def life(kind: OrderKind) -> timedelta:
    """Return how long an order of *kind* waits for a server that is off.

    What takes something away is still wanted when the server comes back after weeks.
    """
    return timedelta(days=30 if kind in _TAKING else 1)


def sign_order(
    private_key: Ed25519PrivateKey, to: Addressee, what: Instruction, stamp: Stamp
) -> Order:
    """Return the order *what* to the server *to*, signed. Raises Refused(`bad_order`)."""
    order = Order(
        order_id=stamp.order_id,
        n=stamp.n,
        kind=what.kind.value,
        slot_id=what.slot_id,
        argument=what.argument,
        not_after=stamp.not_after.replace(microsecond=0),
        signer=private_key.public_key().public_bytes_raw(),
        signature=bytes(64),
    )
    _check_shape(order)
    signature = sign(private_key, ORDER_DOMAIN, *_parts(order, to))
    return order.model_copy(update={"signature": signature})


def check_order(order: Order, to: Addressee) -> None:
    """Raise Refused unless *order* is whole and `order.signer` gave it to the server *to*.

    Whether the server obeys that signer is not asked here. Reasons: `bad_order`, `bad_signature`.
    """
    _check_shape(order)
    verify(order.signer, order.signature, ORDER_DOMAIN, *_parts(order, to))


def known_kind(order: Order) -> OrderKind | None:
    """Return what *order* orders; None for a word that a newer build may know."""
    return OrderKind(order.kind) if order.kind in _SHAPES else None


def revision_of(order: Order) -> int:
    """Return the revision that *order*, of a kind that names one, is about."""
    return int(order.argument or 0)


def _check_shape(order: Order) -> None:
    ends = order.not_after
    if ends.microsecond or ends.timestamp() < 0:  # the signature covers whole seconds since 1970
        raise Refused("bad_order", f"order {order.order_id} ends at no whole second since 1970")
    wanted = _SHAPES.get(order.kind)
    has = _Shape(slot=order.slot_id is not None, argument=_argument(order))
    if wanted not in {None, has}:
        detail = f"order {order.order_id}: {order.kind} with fields too few or too many"
        raise Refused("bad_order", detail)


def _argument(order: Order) -> Argument:
    if order.argument is None:
        return Argument.NONE
    return Argument.REVISION if order.argument.isdecimal() else Argument.FINGERPRINT


def _parts(order: Order, to: Addressee) -> tuple[bytes | str, ...]:
    return (
        to.owner_id,
        to.server_id,
        to.identity_key,
        order.order_id,
        u64(order.n),
        order.kind,
        order.slot_id or "",
        order.argument or "",
        u64(int(order.not_after.timestamp())),
    )
