"""Which orders a server obeys, and what it remembers of them."""

import uuid
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from bus_schemas.encoding import u64
from bus_schemas.errors import Refused
from bus_schemas.events import ConfigDesired
from bus_schemas.events.config import Order
from bus_schemas.fields import CredentialKind, at_utc
from bus_schemas.keys import owner_fingerprint, sign
from bus_schemas.orders import (
    MAX_GAP,
    ORDER_DOMAIN,
    Addressee,
    Instruction,
    OrderKind,
    Stamp,
    sign_order,
)
from vps_runtime.enrolment.pins import MAX_PINS, Pins
from vps_runtime.facts.told import stored_memory
from vps_runtime.orders.rules import (
    APPLIED,
    LAST_N,
    LOCKED,
    Ruling,
    Standing,
    about_rotation,
    answered_key,
    decide,
    effect,
    forgotten,
    is_locked,
    last_n,
    may_be_used,
    pending,
    pins_after,
    pins_of_begun,
    rotation_after,
    stopped,
    taking_away,
)
from vps_runtime.rotation.rules import (
    Change,
    SlotRotation,
    aborted,
    forced,
    retired,
    rotation_key,
    verify_asked,
)
from vps_runtime.vault.credentials import Held

ID = "01890000-0000-7000-8000-000000000001"
NOW = 1_800_000_000
OWNER, PLATFORM, STRANGER = (Ed25519PrivateKey.generate() for _ in range(3))
ME = Addressee("acme", "acme-1", bytes(range(32)))
SLOT: dict[str, Any] = {"slot_id": "anthropic"}
ANOTHER: dict[str, Any] = {"argument": "SIKYYGG6G6CLX3AWQSVG"}
OBEYED = Ruling(None, counted=True)


def pin(key: Ed25519PrivateKey) -> str:
    """Return the fingerprint of *key*."""
    return owner_fingerprint(key.public_key().public_bytes_raw())


STANDING = Standing(
    me=ME,
    pins=Pins(pinned=(pin(OWNER),)),
    platform_key=PLATFORM.public_key().public_bytes_raw(),
    last_n=4,
    slots={"anthropic"},
    now=NOW,
)


def order(
    kind: OrderKind,
    *,
    by: Ed25519PrivateKey = OWNER,
    n: int = 5,
    to: Addressee = ME,
    ends: int = NOW,
    **what: Any,  # noqa: ANN401 (as Instruction has it)
) -> Order:
    """Return an order that is obeyed, unless something is changed."""
    stamp = Stamp(str(uuid.uuid4()), n, at_utc(ends))
    return sign_order(by, to, Instruction(kind, **what), stamp)


def of_a_newer_build() -> Order:
    """Return an order that this build would not sign, of a word that it does not know."""
    strange = order(OrderKind.LOCK).model_copy(update={"kind": "dance"})
    ends = u64(int(strange.not_after.timestamp()))
    parts = ("acme", "acme-1", ME.identity_key, strange.order_id, u64(5), "dance", "", "", ends)
    return strange.model_copy(update={"signature": sign(OWNER, ORDER_DOMAIN, *parts)})


@pytest.mark.parametrize(
    ("kind", "what"),
    [
        (OrderKind.STOP_SLOT, SLOT),
        (OrderKind.RESUME_SLOT, SLOT),
        (OrderKind.LOCK, {}),
        (OrderKind.UNLOCK, {}),
        (OrderKind.TRUST, ANOTHER),
        (OrderKind.DISTRUST, ANOTHER),
    ],
)
def test_an_owner_is_obeyed_and_the_platform_may_only_take_away(
    kind: OrderKind, what: dict[str, Any]
) -> None:
    """The platform cannot resume, unlock, or pin a key of its own; a stranger can do nothing."""
    assert decide(order(kind, **what), STANDING) == OBEYED
    allowed = kind in {OrderKind.STOP_SLOT, OrderKind.LOCK}
    refused = Ruling("not_for_the_platform", counted=False)
    by_platform = order(kind, by=PLATFORM, **what)
    assert decide(by_platform, STANDING) == (OBEYED if allowed else refused)
    by_stranger = order(kind, by=STRANGER, **what)
    assert decide(by_stranger, STANDING) == Ruling("owner_key_not_pinned", counted=False)


def test_a_server_without_a_platform_key_obeys_its_owner_alone() -> None:
    """It joined before there was such a key."""
    before = replace(STANDING, platform_key=None)
    lock = order(OrderKind.LOCK, by=PLATFORM)
    assert decide(lock, before) == Ruling("owner_key_not_pinned", counted=False)


def test_a_platform_key_that_an_owner_pinned_is_an_owners() -> None:
    """What was typed on the console counts, whatever else the key is."""
    both = replace(STANDING, pins=Pins(pinned=(pin(PLATFORM),)))
    assert decide(order(OrderKind.UNLOCK, by=PLATFORM), both) == OBEYED


NOT_AUTHENTIC = {
    "another server's": (
        "bad_signature",
        lambda: order(OrderKind.LOCK, to=replace(ME, server_id="acme-2")),
    ),
    "another owner's": (
        "bad_signature",
        lambda: order(OrderKind.LOCK, to=replace(ME, owner_id="globex")),
    ),
    "kept from before a re-enrolment": (
        "bad_signature",
        lambda: order(OrderKind.LOCK, to=replace(ME, identity_key=bytes(32))),
    ),
    "turned round": (
        "bad_signature",
        lambda: order(OrderKind.LOCK).model_copy(update={"kind": "unlock"}),
    ),
    "without its slot": (
        "bad_order",
        lambda: order(OrderKind.LOCK).model_copy(update={"kind": "stop-slot"}),
    ),
    "replayed": ("replayed", lambda: order(OrderKind.LOCK, n=4)),
    "older": ("replayed", lambda: order(OrderKind.LOCK, n=1)),
    "too far": ("n_jump", lambda: order(OrderKind.LOCK, n=4 + MAX_GAP + 1)),
    "the last there is": ("n_jump", lambda: order(OrderKind.LOCK, n=2**53 - 1)),
}


@pytest.mark.parametrize(("reason", "change"), NOT_AUTHENTIC.values(), ids=NOT_AUTHENTIC)
def test_an_order_that_is_not_authentic_uses_up_no_number(
    reason: str, change: Callable[[], Order]
) -> None:
    """Else anybody who can write the document could have real orders refused."""
    assert decide(change(), STANDING) == Ruling(reason, counted=False)


@pytest.mark.parametrize(
    ("reason", "change"),
    [
        ("expired", lambda: order(OrderKind.LOCK, ends=NOW - 1)),
        ("unknown_slot", lambda: order(OrderKind.STOP_SLOT, slot_id="openai")),
        ("unknown_kind", of_a_newer_build),
        ("last_pin", lambda: order(OrderKind.DISTRUST, argument=pin(OWNER))),
    ],
)
def test_an_authentic_order_that_cannot_be_obeyed_uses_up_its_number(
    reason: str, change: Callable[[], Order]
) -> None:
    """It was answered: it must not be obeyed later, when the clock or the slots have changed."""
    assert decide(change(), STANDING) == Ruling(reason, counted=True)


def test_a_retirement_may_be_faster_than_the_slot_it_is_about() -> None:
    """The platform, which carries both, could else refuse it by the order in which they come."""
    retire = order(OrderKind.RETIRE, slot_id="openai", argument="1")
    assert decide(retire, STANDING) == OBEYED


def test_the_largest_step_is_taken() -> None:
    """Orders that expired unseen leave gaps."""
    assert decide(order(OrderKind.LOCK, n=4 + MAX_GAP), STANDING) == OBEYED


def test_a_key_of_small_order_orders_nothing_even_if_pinned() -> None:
    """OpenSSL takes forged signatures under such a key."""
    nobody = bytes(32)
    forged = order(OrderKind.LOCK).model_copy(update={"signer": nobody, "signature": bytes(64)})
    pinned = replace(STANDING, pins=Pins(pinned=(owner_fingerprint(nobody),)))
    assert decide(forged, pinned) == Ruling("bad_signature", counted=False)
    as_platform = replace(STANDING, platform_key=nobody)
    assert decide(forged, as_platform) == Ruling("bad_signature", counted=False)


def test_pins_follow_trust_and_distrust_and_twice_is_as_once() -> None:
    """A crash may come between the change and its answer."""
    one, two = sorted([pin(OWNER), pin(STRANGER)])
    both = pins_after(OrderKind.TRUST, two, Pins(pinned=(one,)))
    assert both.pinned == (one, two)
    assert pins_after(OrderKind.TRUST, two, both) == both
    left = pins_after(OrderKind.DISTRUST, one, both)
    assert left.pinned == (two,)
    assert pins_after(OrderKind.DISTRUST, one, left) == left
    assert pins_after(OrderKind.LOCK, "", both) == both


def test_a_full_list_of_pins_takes_no_more() -> None:
    """The order is refused and the list is as it was."""
    others = tuple(f"{'A' * 18}{a}{b}" for a in "ABCDEFGH" for b in "ABCDEFGH")
    full = Pins(pinned=(pin(OWNER), *others[: MAX_PINS - 1]))
    many = replace(STANDING, pins=full)
    assert decide(order(OrderKind.TRUST, **ANOTHER), many).refused == "too_many_pins"


def document(*orders: Order) -> ConfigDesired:
    """Return a document with *orders*."""
    return ConfigDesired(
        server_id="acme-1", owner_id="acme", generation=1, slots=(), orders=tuple(orders)
    )


def test_orders_are_taken_by_number_and_those_answered_are_left_alone() -> None:
    """However they lie in the document."""
    late, early, done = (order(OrderKind.LOCK, n=n) for n in (7, 6, 5))
    told = {answered_key(done): APPLIED}
    assert pending(document(late, done, early), told) == [early, late]


def test_an_answer_is_forgotten_once_no_document_carries_its_order() -> None:
    """The memory stays small; should the order come again, its number refuses it."""
    kept, gone = order(OrderKind.LOCK), order(OrderKind.LOCK)
    told = {answered_key(kept): APPLIED, answered_key(gone): "expired", "pins": ""}
    assert forgotten(document(kept), told) == [answered_key(gone)]


def test_what_orders_leave_in_the_memory() -> None:
    """Stop and resume are opposites, and so are lock and unlock."""
    stop = order(OrderKind.STOP_SLOT, **SLOT)
    added, taken = effect(stop)
    assert (set(stopped(added)), taken) == ({"anthropic"}, [])
    assert effect(order(OrderKind.RESUME_SLOT, **SLOT)) == ({}, list(added))
    locked, _ = effect(order(OrderKind.LOCK))
    assert is_locked(locked)
    assert effect(order(OrderKind.UNLOCK)) == ({}, [LOCKED])
    assert effect(order(OrderKind.TRUST, **ANOTHER)) == ({}, [])
    assert not is_locked({})
    assert (last_n({}), last_n({LAST_N: "9"})) == (0, 9)


def memory(rotation: SlotRotation, *revisions: int) -> dict[str, str]:
    """Return the memory of a server that holds *revisions* of one slot."""
    told = {rotation_key("anthropic"): rotation.model_dump_json()}
    for revision in revisions:
        told |= stored_memory(
            Held("anthropic", revision, "anthropic", CredentialKind.API_KEY, ID, 0, ())
        )
    return told


ROTATING = SlotRotation(current=3, pending=4, newest=4)


@pytest.mark.parametrize(
    ("kind", "revision", "expected"),
    [
        (OrderKind.VERIFY, 3, verify_asked(ROTATING, 3)),
        (OrderKind.VERIFY, 2, Change(ROTATING, refused="not_held")),
        (OrderKind.PROMOTE, 4, forced(ROTATING, 4, held=True)),
        (OrderKind.PROMOTE, 3, Change(ROTATING, refused="not_pending")),
        (OrderKind.PROMOTE, 9, Change(ROTATING, refused="not_held")),
        (OrderKind.ABORT, 4, aborted(ROTATING, 4, held=True)),
        (OrderKind.ABORT, 3, Change(ROTATING, refused="not_pending")),
        (OrderKind.ABORT, 9, Change(ROTATING, refused="not_held")),
        (OrderKind.RETIRE, 3, retired(ROTATING, 3)),
        (OrderKind.RETIRE, 9, retired(ROTATING, 9)),
    ],
)
def test_an_order_about_a_revision_is_one_event_of_its_rotation(
    kind: OrderKind, revision: int, expected: Change
) -> None:
    """What no longer applies is refused there, in the transaction that would do it."""
    given = order(kind, **SLOT, argument=str(revision))
    assert about_rotation(given)
    assert rotation_after(given, memory(ROTATING, 3, 4)) == expected
    assert effect(given) == ({}, [])


def test_a_retirement_is_obeyed_out_of_turn() -> None:
    """It only takes away; once the floor is there it has had its effect."""
    retire = order(OrderKind.RETIRE, **SLOT, argument="3", n=6)
    before = order(OrderKind.TRUST, **ANOTHER, n=5)
    carrying = document(before, retire)
    assert taking_away(carrying, memory(ROTATING, 3, 4)) == [retire]
    assert taking_away(carrying, memory(retired(ROTATING, 3).rotation, 4)) == []
    assert not about_rotation(before)


def test_a_stopped_slot_is_not_usable_and_a_locked_server_has_none() -> None:
    """The one question that whoever is about to use a credential asks."""
    assert may_be_used("anthropic", {})
    assert may_be_used("openai", {"stopped/anthropic": "id"})
    assert not may_be_used("anthropic", {"stopped/anthropic": "id"})
    assert not may_be_used("anthropic", {LOCKED: "id"})


def test_a_begun_order_needs_its_signer_still() -> None:
    """Who was taken away meanwhile pins nobody, unless the order is to leave."""
    trust = order(OrderKind.TRUST, **ANOTHER)
    assert set(pins_of_begun(trust, STANDING.pins).pinned) == {pin(OWNER), ANOTHER["argument"]}
    others = Pins(pinned=(pin(STRANGER),))
    with pytest.raises(Refused, match="owner_key_not_pinned"):
        pins_of_begun(trust, others)
    with pytest.raises(Refused, match="owner_key_not_pinned"):
        pins_of_begun(order(OrderKind.DISTRUST, argument=pin(STRANGER)), others)
    assert pins_of_begun(order(OrderKind.DISTRUST, argument=pin(OWNER)), others) == others


def test_what_takes_away_comes_first_when_the_others_wait() -> None:
    """Locks before stops, each until it had its effect; nothing that gives."""
    stop = order(OrderKind.STOP_SLOT, n=1, **SLOT)
    trust, lock = order(OrderKind.TRUST, n=2, **ANOTHER), order(OrderKind.LOCK, n=3)
    carrying = ConfigDesired(
        server_id="acme-1", owner_id="acme", generation=1, slots=(), orders=(stop, trust, lock)
    )
    assert taking_away(carrying, {}) == [lock, stop]
    assert taking_away(carrying, {LOCKED: "x"}) == [stop]
    assert taking_away(carrying, {LOCKED: "x", answered_key(stop): APPLIED}) == []
