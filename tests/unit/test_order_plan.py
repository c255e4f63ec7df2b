"""What a signed order makes of a server's desired document."""

import uuid
from dataclasses import replace
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from bus_schemas.api import OrderState, OrderView
from bus_schemas.errors import Refused
from bus_schemas.events import ConfigDesired
from bus_schemas.events.config import DesiredSlot, Order
from bus_schemas.fields import CredentialKind, at_utc
from bus_schemas.keys import owner_fingerprint
from bus_schemas.orders import Addressee, Instruction, OrderKind, Stamp, sign_order
from platform_handlers.config.orders.plan import (
    MAX_ORDERS,
    MAX_OWNER_STEP,
    MAX_STEP,
    Book,
    Situation,
    order_list,
    plan_order,
    retired,
    withdraw,
)

NOW = 1_800_000_000
OWNER, PLATFORM = Ed25519PrivateKey.generate(), Ed25519PrivateKey.generate()
TO = Addressee("acme", "acme-1", bytes(range(32)))
SLOT = DesiredSlot(
    slot_id="anthropic",
    provider="anthropic",
    kind=CredentialKind.API_KEY,
    revision=3,
    min_revision=2,
    rotation_id=str(uuid.uuid4()),
)
EMPTY = Situation(TO, None, Book(), PLATFORM.public_key().public_bytes_raw(), NOW)


def order(
    n: int = 1,
    kind: OrderKind = OrderKind.LOCK,
    *,
    by: Ed25519PrivateKey = OWNER,
    ends: int = NOW + 60,
    **what: Any,  # noqa: ANN401 (as Instruction has it)
) -> Order:
    """Return a signed order."""
    return sign_order(by, TO, Instruction(kind, **what), Stamp(str(uuid.uuid4()), n, at_utc(ends)))


def answer(to: Order, state: OrderState = OrderState.APPLIED) -> OrderView:
    """Return the server's answer."""
    return OrderView(order_id=to.order_id, n=to.n, kind=to.kind, state=state)


def carrying(*orders: Order) -> Situation:
    """Return the situation with a document that carries *orders*."""
    document = ConfigDesired(
        server_id="acme-1", owner_id="acme", generation=7, slots=(SLOT,), orders=orders
    )
    return replace(EMPTY, current=document)


def document_of(situation: Situation) -> ConfigDesired:
    """Return the document, which is there."""
    assert situation.current is not None
    return situation.current


def reason(situation: Situation, given: Order) -> str:
    """Return why *given* is refused."""
    with pytest.raises(Refused) as refusal:
        plan_order(situation, given)
    return refusal.value.reason


def test_an_order_joins_the_document_and_changes_nothing_else() -> None:
    """The first one makes a document; a later one comes behind those that wait."""
    first = order()
    assert plan_order(EMPTY, first).orders == (first,)
    assert plan_order(EMPTY, first).generation == 1
    second = order(2)
    document = plan_order(carrying(first), second)
    assert (document.orders, document.generation) == ((first, second), 8)
    assert document.slots == (SLOT,)


def test_the_same_order_again_changes_nothing() -> None:
    """The answer to a request may get lost, also after the server has answered."""
    waiting, done = order(1), order(2)
    situation = carrying(waiting)
    assert plan_order(situation, waiting) is situation.current
    answered = replace(situation, book=Book(2, (answer(done),)))
    assert plan_order(answered, done) is answered.current


def test_numbers_grow_by_small_steps() -> None:
    """Of two devices the slower counts again; no slip uses the numbers up."""
    situation = replace(carrying(order(5)), book=Book(last_n=4))
    assert reason(situation, order(5)) == "stale_n"
    assert reason(situation, order(3)) == "stale_n"
    assert plan_order(situation, order(5 + MAX_STEP)).orders
    assert reason(situation, order(5 + MAX_STEP + 1)) == "n_too_far"
    emptied = withdraw(document_of(carrying(order(9))), (), NOW + 61)
    assert reason(replace(EMPTY, current=emptied, book=Book(last_n=9)), order(9)) == "stale_n"


def test_a_device_that_the_server_obeys_may_have_counted_on() -> None:
    """It never signs a number twice, so what was refused here leaves a gap behind."""
    mine = owner_fingerprint(OWNER.public_key().public_bytes_raw())
    obeyed = replace(EMPTY, book=Book(pins=(mine,)))
    assert plan_order(obeyed, order(MAX_OWNER_STEP)).orders
    assert reason(obeyed, order(MAX_OWNER_STEP + 1)) == "n_too_far"


def test_a_number_that_the_server_did_not_take_is_free_again() -> None:
    """It refused a stranger's order and told its own last number."""
    stranger = order(8)
    book = Book(last_n=2, answers=(answer(stranger, OrderState.REFUSED),))
    assert plan_order(replace(carrying(stranger), book=book), order(3)).orders


@pytest.mark.parametrize("last_n", [3, 1000, 2**53 - 1])
def test_a_server_cannot_have_taken_a_number_that_nobody_gave_it(last_n: int) -> None:
    """Else one lie uses the numbers up, and nothing could be ordered any more, not even a lock."""
    given = document_of(carrying(order(1), order(2)))
    for document in (given, withdraw(given, (), NOW + 61)):
        lied = replace(EMPTY, current=document, book=Book(last_n))
        assert order_list("acme-1", document, lied.book, NOW + 61).last_n == 2
        assert plan_order(lied, order(3)).highest_n == 3
    assert plan_order(replace(EMPTY, book=Book(last_n)), order(1)).orders
    assert order_list("acme-1", None, Book(last_n), NOW).last_n == 0


def test_what_the_server_would_refuse_is_refused_at_once() -> None:
    """A forged or foreign order, one that is over, and one by a key that the server named."""
    assert reason(EMPTY, order().model_copy(update={"n": 2})) == "bad_signature"
    other = replace(EMPTY, to=replace(TO, identity_key=bytes(32)))
    assert reason(other, order()) == "bad_signature"
    assert reason(EMPTY, order(ends=NOW)) == "expired"
    told = replace(EMPTY, book=Book(pins=("SIKYYGG6G6CLX3AWQSVG",)))
    assert reason(told, order()) == "owner_key_not_pinned"
    mine = owner_fingerprint(OWNER.public_key().public_bytes_raw())
    assert plan_order(replace(EMPTY, book=Book(pins=(mine,))), order()).orders


def test_the_platforms_key_locks_and_stops_and_no_more() -> None:
    """It is not among the owner keys that the server named."""
    told = replace(EMPTY, book=Book(pins=("SIKYYGG6G6CLX3AWQSVG",)))
    assert plan_order(told, order(by=PLATFORM)).orders
    stop = order(1, OrderKind.STOP_SLOT, by=PLATFORM, slot_id="anthropic")
    assert plan_order(told, stop).orders
    unlock = order(1, OrderKind.UNLOCK, by=PLATFORM)
    assert reason(told, unlock) == "not_for_the_platform"


def test_a_document_carries_a_bounded_number_of_orders() -> None:
    """Those that are answered or over make room."""
    full = carrying(*(order(n) for n in range(1, MAX_ORDERS + 1)))
    late = order(MAX_ORDERS + 1)
    assert reason(full, late) == "too_many_orders"
    assert full.current is not None
    one = replace(full, book=Book(1, (answer(full.current.orders[0]),)))
    assert len(plan_order(one, late).orders) == MAX_ORDERS


def test_answered_and_expired_orders_leave_the_document() -> None:
    """Those that wait stay; a document without any is left alone."""
    done, over, waits = order(1), order(2, ends=NOW - 1), order(3)
    current = carrying(done, over, waits).current
    assert current is not None
    left = withdraw(current, {done.order_id}, NOW)
    assert (left.orders, left.generation) == ((waits,), 8)
    assert withdraw(left, {done.order_id}, NOW) is left


def test_the_owner_sees_what_waits_and_what_was_answered() -> None:
    """By number; the next one is above the last."""
    done, waits = order(1), order(2)
    listed = order_list("acme-1", carrying(done, waits).current, Book(1, (answer(done),)), NOW)
    assert [(view.n, view.state) for view in listed.orders] == [(1, "applied"), (2, "waiting")]
    assert listed.last_n == 2
    nothing = order_list("acme-1", None, Book(), NOW)
    assert (nothing.orders, nothing.last_n) == ((), 0)


def about(n: int, kind: OrderKind, revision: int, slot_id: str = "anthropic") -> Order:
    """Return a signed order about one revision of a slot."""
    return order(n, kind, slot_id=slot_id, argument=str(revision))


@pytest.mark.parametrize("revision", [1, 2, 3])
def test_what_is_retired_is_never_asked_for_again(revision: int) -> None:
    """The lowest revision that the slot may hold rises above it, and never falls."""
    document = plan_order(carrying(), about(1, OrderKind.RETIRE, revision))
    assert document.slots == (SLOT.model_copy(update={"min_revision": max(2, revision + 1)}),)
    assert (document.generation, len(document.orders)) == (8, 1)


def test_a_retirement_leaves_the_other_slots_alone() -> None:
    """It names one slot."""
    other = SLOT.model_copy(update={"slot_id": "openai"})
    both = document_of(carrying()).model_copy(update={"slots": (SLOT, other)})
    after = plan_order(replace(EMPTY, current=both), about(1, OrderKind.RETIRE, 3, "openai"))
    assert [slot.min_revision for slot in after.slots] == [2, 4]
    [fact] = retired(after, "openai")
    assert (fact.slot, fact.generation) == (after.slots[1], after.generation)
    assert (fact.server_id, fact.owner_id) == (after.server_id, after.owner_id)


@pytest.mark.parametrize("kind", [OrderKind.VERIFY, OrderKind.PROMOTE, OrderKind.ABORT])
def test_an_order_about_a_revision_needs_one_that_can_still_be_used(kind: OrderKind) -> None:
    """The refusal says which slot, and what is wrong with it; nothing else changes with it."""
    assert plan_order(carrying(), about(1, kind, 3)).slots == (SLOT,)
    assert reason(EMPTY, about(1, kind, 1)) == "unknown_slot"
    assert reason(carrying(), about(1, kind, 1, "antropic")) == "unknown_slot"
    assert reason(carrying(), about(1, kind, 4)) == "unknown_revision"
    assert reason(carrying(), about(1, kind, 1)) == "revision_retired"


def test_what_never_was_cannot_be_retired() -> None:
    """Else a slip would forbid every revision that is still to come."""
    assert reason(carrying(), about(1, OrderKind.RETIRE, 4)) == "unknown_revision"
    assert reason(EMPTY, about(1, OrderKind.RETIRE, 1)) == "unknown_slot"
