"""Signed orders: what is signed, and what a signature is good for."""

import json
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from pydantic import ValidationError

from bus_schemas.errors import Refused
from bus_schemas.events.config import Order
from bus_schemas.keys import verify
from bus_schemas.orders import (
    ORDER_DOMAIN,
    PLATFORM_KINDS,
    Addressee,
    Instruction,
    OrderKind,
    Stamp,
    check_order,
    known_kind,
    life,
    sign_order,
)
from tests.oracle import protocol

VECTORS: dict[str, Any] = json.loads(
    (Path(__file__).parents[1] / "vectors" / "orders.json").read_bytes()
)
TO = Addressee(
    VECTORS["owner_id"], VECTORS["server_id"], bytes.fromhex(VECTORS["identity_public_key"])
)
KEY = Ed25519PrivateKey.from_private_bytes(bytes([1]) * 32)
STAMP = Stamp("01890000-0000-7000-8000-000000000001", 1, datetime(2030, 1, 1, tzinfo=UTC))
FINGERPRINT = "SIKYYGG6G6CLX3AWQSVG"


def signed(kind: OrderKind = OrderKind.LOCK, **what: Any) -> Order:  # noqa: ANN401 (as it has them)
    """Return an order to the vectors' server."""
    return sign_order(KEY, TO, Instruction(kind, **what), STAMP)


def reason(order: Order, to: Addressee = TO) -> str:
    """Return why *order* is refused."""
    with pytest.raises(Refused) as refusal:
        check_order(order, to)
    return refusal.value.reason


def test_what_takes_away_waits_for_weeks() -> None:
    """What gives back is for the next day only: nobody may keep it until it does harm."""
    long = {kind for kind in OrderKind if life(kind) == timedelta(days=30)}
    assert long == {OrderKind.LOCK, OrderKind.STOP_SLOT, OrderKind.DISTRUST, OrderKind.RETIRE}
    assert {life(kind) for kind in set(OrderKind) - long} == {timedelta(days=1)}


@pytest.mark.parametrize("vector", VECTORS["orders"], ids=lambda v: v["kind"])
def test_orders_match_the_vectors(vector: dict[str, Any]) -> None:
    """Another implementation signs the same bytes, and its orders are taken."""
    order = sign_order(
        Ed25519PrivateKey.from_private_bytes(bytes.fromhex(vector["seed"])),
        TO,
        Instruction(OrderKind(vector["kind"]), vector["slot_id"], vector["argument"]),
        Stamp(vector["order_id"], vector["n"], datetime.fromisoformat(vector["not_after"])),
    )
    assert order.signer.hex() == vector["signer"]
    assert order.signature.hex() == vector["signature"]
    check_order(order, TO)
    parts = protocol.order_parts({**VECTORS, **vector})
    assert protocol.domain(ORDER_DOMAIN, *parts).hex() == vector["message"]
    seed = bytes.fromhex(vector["seed"])
    assert protocol.signature(seed, ORDER_DOMAIN, *parts).hex() == vector["signature"]


def test_every_kind_has_a_vector() -> None:
    """A kind without one could change unnoticed."""
    assert {vector["kind"] for vector in VECTORS["orders"]} == set(OrderKind)


@pytest.mark.parametrize(
    "change",
    [
        {"order_id": "01890000-0000-7000-8000-000000000002"},
        {"n": 2},
        {"kind": "unlock"},
        {"not_after": STAMP.not_after + timedelta(seconds=1)},
        {"signer": Ed25519PrivateKey.generate().public_key().public_bytes_raw()},
        {"signer": bytes(32), "signature": bytes(64)},  # a point of small order
        {"signature": bytes(64)},
    ],
    ids="+".join,
)
def test_nothing_in_an_order_can_be_changed(change: dict[str, Any]) -> None:
    """Whoever carries an order can only carry it."""
    assert reason(signed().model_copy(update=change)) == "bad_signature"


@pytest.mark.parametrize(
    "change",
    [{"owner_id": "globex"}, {"server_id": "server-2"}, {"identity_key": bytes(32)}],
    ids="+".join,
)
def test_an_order_is_for_one_machine(change: dict[str, Any]) -> None:
    """Another server, or this one as it was before it was enrolled anew, is not meant."""
    assert reason(signed(), replace(TO, **change)) == "bad_signature"


def test_slot_and_key_are_covered() -> None:
    """A stop of one slot is none of another, a trusted key is no other one."""
    stop = signed(OrderKind.STOP_SLOT, slot_id="anthropic")
    assert reason(stop.model_copy(update={"slot_id": "openai"})) == "bad_signature"
    trust = signed(OrderKind.TRUST, argument=FINGERPRINT)
    assert reason(trust.model_copy(update={"argument": FINGERPRINT[::-1]})) == "bad_signature"


@pytest.mark.parametrize(
    ("kind", "what"),
    [
        (OrderKind.STOP_SLOT, {}),
        (OrderKind.RESUME_SLOT, {"slot_id": "a", "argument": FINGERPRINT}),
        (OrderKind.LOCK, {"slot_id": "a"}),
        (OrderKind.UNLOCK, {"argument": FINGERPRINT}),
        (OrderKind.TRUST, {}),
        (OrderKind.DISTRUST, {"slot_id": "a"}),
    ],
)
def test_fields_that_do_not_belong_to_the_kind_are_refused(
    kind: OrderKind, what: dict[str, str]
) -> None:
    """Neither signed by us nor taken from anybody: an order has one meaning."""
    with pytest.raises(Refused, match="bad_order"):
        signed(kind, **what)
    plain = signed().model_copy(update={"kind": kind.value, **what})
    assert reason(plain) == "bad_order"


@pytest.mark.parametrize(
    "not_after", [STAMP.not_after + timedelta(microseconds=1), datetime(1969, 12, 31, tzinfo=UTC)]
)
def test_an_end_that_is_not_signed_as_it_stands_is_refused(not_after: datetime) -> None:
    """The signature covers whole seconds since 1970 and nothing finer or earlier."""
    assert reason(signed().model_copy(update={"not_after": not_after})) == "bad_order"


def test_a_fraction_is_cut_when_signing() -> None:
    """Callers pass the time as their clock gives it."""
    late = replace(STAMP, not_after=STAMP.not_after + timedelta(microseconds=7))
    assert sign_order(KEY, TO, Instruction(OrderKind.LOCK), late) == signed()


def test_a_word_of_a_newer_build_is_checked_but_not_known() -> None:
    """An old server reads the document, refuses that one order and says why."""
    order = signed().model_copy(update={"kind": "self-destruct"})
    assert known_kind(order) is None
    assert reason(order) == "bad_signature"
    assert known_kind(signed()) is OrderKind.LOCK


def test_the_platform_may_only_take_away() -> None:
    """Giving back, and saying who is obeyed, is the owner's."""
    assert {"stop-slot", "lock"} == PLATFORM_KINDS


def test_an_order_holds_nothing_that_is_not_signed() -> None:
    """A field that this build does not know is not covered by the signature it checks."""
    order = signed()
    verify(order.signer, order.signature, ORDER_DOMAIN, *_parts(order))
    with pytest.raises(ValidationError):
        Order.model_validate({**order.model_dump(), "force": True})


def _parts(order: Order) -> tuple[bytes | str, ...]:
    n, end = (value.to_bytes(8, "big") for value in (order.n, int(order.not_after.timestamp())))
    return "acme", "server-1", TO.identity_key, order.order_id, n, order.kind, "", "", end
