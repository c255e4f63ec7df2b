"""Orders and the server's own disk: killed at any step, each is obeyed and answered once."""

import errno
import resource
import sqlite3
import time
import uuid
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, closing, contextmanager
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from bus_schemas.codec import decode
from bus_schemas.errors import Refused
from bus_schemas.event import ServerFact
from bus_schemas.events import ConfigDesired, OrderAnswered, PinsChanged
from bus_schemas.events.config import DesiredSlot, Order
from bus_schemas.fields import CredentialKind, at_utc
from bus_schemas.keys import owner_fingerprint
from bus_schemas.orders import Addressee, Instruction, OrderKind, Stamp, sign_order
from bus_schemas.transport.database import StorageFull
from vps_runtime.enrolment.pins import Pins, change_pins, read_pins, write_pins
from vps_runtime.facts.store import Facts
from vps_runtime.facts.told import stored_memory
from vps_runtime.orders import obey
from vps_runtime.orders.obey import LockOrdered, Orders
from vps_runtime.orders.rules import stopped
from vps_runtime.rotation.rules import SlotRotation, rotation_key, rotation_of
from vps_runtime.state import NotEnrolled, Settings, StateFolder
from vps_runtime.vault.credentials import Held

OWNER, SECOND = Ed25519PrivateKey.generate(), Ed25519PrivateKey.generate()
PLATFORM = Ed25519PrivateKey.generate()


SLOT = DesiredSlot(
    slot_id="anthropic",
    provider="anthropic",
    kind=CredentialKind.API_KEY,
    revision=1,
    min_revision=0,
    rotation_id=str(uuid.uuid4()),
)


class Killed(BaseException):
    """The kill, where the test wants it; no handler of the code catches it."""


def pin(key: Ed25519PrivateKey) -> str:
    """Return the fingerprint of *key*."""
    return owner_fingerprint(key.public_key().public_bytes_raw())


def no_room(*_: object) -> None:
    """Stand in for a write to a full disk."""
    raise OSError(errno.ENOSPC, "No space left on device")


@contextmanager
def full_disk() -> Iterator[None]:
    """Let no file of this process grow (setrlimit(2)); names can still be made."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


@dataclass
class Server:
    """A server's state folder, and documents for it."""

    state: StateFolder
    generation: int = 0
    given: list[Order] = field(default_factory=list)

    @asynccontextmanager
    async def running(self) -> AsyncIterator[Orders]:
        """Be its process; leaving is like a kill: nothing is finished."""
        facts = await Facts.open(self.state.outbox, "acme-1", 1)
        try:
            yield Orders(self.state, facts)
        finally:
            await facts.close()

    def order(
        self,
        kind: OrderKind,
        *,
        by: Ed25519PrivateKey = OWNER,
        n: int | None = None,
        **what: Any,  # noqa: ANN401 (as Instruction has it)
    ) -> Order:
        """Return the next order."""
        to = Addressee("acme", "acme-1", self.state.read_identity().public_key)
        ends = at_utc(time.time()) + timedelta(hours=1)
        stamp = Stamp(str(uuid.uuid4()), n or len(self.given) + 1, ends)
        self.given.append(sign_order(by, to, Instruction(kind, **what), stamp))
        return self.given[-1]

    def document(self, *orders: Order) -> ConfigDesired:
        """Return the next document."""
        self.generation += 1
        return ConfigDesired(
            server_id="acme-1",
            owner_id="acme",
            generation=self.generation,
            slots=(),
            orders=orders,
        )

    def facts(self) -> list[ServerFact]:
        """Return what waits to be told, in order."""
        with closing(sqlite3.connect(self.state.outbox)) as database:
            rows = database.execute("SELECT body, subject FROM outbox ORDER BY position").fetchall()
        events = [decode(body, subject, strict=True).data for body, subject in rows]
        return [event for event in events if isinstance(event, ServerFact)]

    def answers(self) -> list[tuple[int, str | None]]:
        """Return the number and the refusal of each answer."""
        found = [fact for fact in self.facts() if isinstance(fact, OrderAnswered)]
        return [(answer.order_n, answer.reason) for answer in found]

    @property
    def pins_lock(self) -> Path:
        """What every change of the pins opens."""
        return Path(f"{self.state.pins}.lock")

    def pinned(self) -> set[str]:
        """Return whom it obeys."""
        return set(read_pins(self.state.pins).pinned)


@pytest.fixture
def server(tmp_path: Path) -> Server:
    """An enrolled server that obeys OWNER and, for locks and stops, PLATFORM."""
    state = StateFolder(tmp_path)
    settings = Settings(server_id="acme-1", owner_id="acme", url="tls://localhost:1")
    state.settings.write_text(settings.model_dump_json())
    state.identity_seed.write_bytes(bytes(range(32)))
    state.orders_key.write_bytes(PLATFORM.public_key().public_bytes_raw())
    write_pins(state.pins, Pins(pinned=(pin(OWNER),)))
    return Server(state)


async def test_a_document_seen_twice_is_obeyed_once(server: Server) -> None:
    """Also over a restart; and an order that comes back later is refused as replayed."""
    trust = server.order(OrderKind.TRUST, argument=pin(SECOND))
    distrust = server.order(OrderKind.DISTRUST, argument=pin(SECOND))
    carrying = server.document(trust, distrust)
    for _ in range(2):
        async with server.running() as orders:
            await orders.obey(carrying)
            await orders.obey(carrying)
    assert server.answers() == [(1, None), (2, None)]
    async with server.running() as orders:
        await orders.obey(server.document())
        await orders.obey(server.document(trust))
    assert server.answers()[2:] == [(1, "replayed")]
    assert server.pinned() == {pin(OWNER)}


@pytest.mark.parametrize("written", [False, True], ids=["before the pins", "after the pins"])
async def test_a_kill_between_the_effect_and_the_answer(
    server: Server, monkeypatch: pytest.MonkeyPatch, *, written: bool
) -> None:
    """The one who signed may be gone from the pins by then; it is told as done, once."""
    write_pins(server.state.pins, Pins(pinned=tuple(sorted([pin(OWNER), pin(SECOND)]))))
    leave = server.order(OrderKind.DISTRUST, argument=pin(OWNER))
    carrying = server.document(leave)

    def killed(*arguments: Any) -> None:  # noqa: ANN401 (whatever it is called with)
        if written:
            change_pins(*arguments)
        raise Killed

    monkeypatch.setattr(obey, "change_pins", killed)
    async with server.running() as orders:
        with pytest.raises(Killed):
            await orders.obey(carrying)
    monkeypatch.undo()
    assert server.facts() == []
    for _ in range(2):
        async with server.running() as orders:
            await orders.obey(carrying)
    assert server.answers() == [(1, None)]
    assert server.pinned() == {pin(SECOND)}
    [changed] = [fact for fact in server.facts() if isinstance(fact, PinsChanged)]
    assert changed.pinned == (pin(SECOND),)


async def test_a_console_that_was_used_meanwhile_has_the_last_word(
    server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What was begun is decided again on the pins as they are: the last one stays."""
    write_pins(server.state.pins, Pins(pinned=tuple(sorted([pin(OWNER), pin(SECOND)]))))
    carrying = server.document(server.order(OrderKind.DISTRUST, argument=pin(OWNER)))

    def killed(*_: object) -> None:
        raise Killed

    monkeypatch.setattr(obey, "change_pins", killed)
    async with server.running() as orders:
        with pytest.raises(Killed):
            await orders.obey(carrying)
    monkeypatch.undo()
    write_pins(server.state.pins, Pins(pinned=(pin(OWNER),)))
    async with server.running() as orders:
        await orders.obey(carrying)
    assert server.answers() == [(1, "last_pin")]
    assert server.pinned() == {pin(OWNER)}


async def test_a_lock_is_answered_by_the_process_that_comes_after(server: Server) -> None:
    """The one that held the keys has to end first; until then nothing claims that they are gone."""
    carrying = server.document(server.order(OrderKind.LOCK, by=PLATFORM))
    async with server.running() as orders:
        with pytest.raises(LockOrdered):
            await orders.obey(carrying)
        assert orders.locked
    assert server.answers() == []
    async with server.running() as orders:
        assert orders.locked
        await orders.finish()
        await orders.finish()
        await orders.obey(carrying)
    assert server.answers() == [(1, None)]


async def test_only_an_owner_lifts_a_lock(server: Server) -> None:
    """Whoever ordered it; a second lock on top needs no end of the process."""
    lock = server.order(OrderKind.LOCK)
    async with server.running() as orders:
        with pytest.raises(LockOrdered):
            await orders.obey(server.document(lock))
    async with server.running() as orders:
        again = server.order(OrderKind.LOCK, by=PLATFORM)
        forbidden = server.order(OrderKind.UNLOCK, by=PLATFORM)
        await orders.obey(server.document(again, forbidden))
        assert orders.locked
        await orders.obey(server.document(server.order(OrderKind.UNLOCK, n=3)))
        assert not orders.locked
    assert server.answers() == [(1, None), (2, None), (3, "not_for_the_platform"), (3, None)]


async def test_a_change_of_pins_is_heard_by_those_who_act_on_it(server: Server) -> None:
    """A sealing that was refused may be good now, and the evaluator has to know the new owner."""
    heard: list[str] = []
    facts = await Facts.open(server.state.outbox, "acme-1", 1)
    orders = Orders(server.state, facts, lambda: heard.append("changed"))
    trust = server.order(OrderKind.TRUST, argument=pin(SECOND))
    again = server.order(OrderKind.TRUST, argument=pin(SECOND))
    await orders.obey(server.document(trust, again))
    await facts.close()
    assert heard == ["changed"]


async def test_a_kill_while_a_stop_is_written_leaves_nothing_half_done(
    server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Effect, number and answer are one transaction; the next process begins anew."""
    stop = server.order(OrderKind.STOP_SLOT, slot_id="anthropic")
    carrying = server.document(stop).model_copy(update={"slots": (SLOT,)})

    async def killed(*_: object) -> None:
        raise Killed

    monkeypatch.setattr("vps_runtime.facts.store.put", killed)
    async with server.running() as orders:
        with pytest.raises(Killed):
            await orders.obey(carrying)
    monkeypatch.undo()
    async with server.running() as orders:
        await orders.obey(carrying)
        assert stopped(orders._facts.told) == {"anthropic"}  # noqa: SLF001
    assert server.answers() == [(1, None)]


def unreadable(pins: Path) -> None:
    """Make them what no agent can read."""
    pins.unlink()
    pins.mkdir()


@pytest.mark.parametrize("damage", [lambda pins: pins.write_text("junk"), unreadable])
async def test_damaged_pins_obey_no_owner_until_they_are_mended(
    server: Server, damage: Callable[[Path], object]
) -> None:
    """Then they do: not one order was refused meanwhile. The platform may lock all the time."""
    damage(server.state.pins)
    unlock, lock = server.order(OrderKind.UNLOCK), server.order(OrderKind.LOCK, by=PLATFORM)
    again = server.order(OrderKind.LOCK)
    async with server.running() as orders:
        with pytest.raises(Refused, match="pins_damaged"):
            await orders.obey(server.document(unlock, again))
        assert not orders.locked
        with pytest.raises(LockOrdered):
            await orders.obey(server.document(unlock, lock, again))
    async with server.running() as orders:
        assert orders.locked
        with pytest.raises(Refused, match="pins_damaged"):
            await orders.obey(server.document(unlock, lock, again))
        assert server.answers() == []
        if server.state.pins.is_dir():
            server.state.pins.rmdir()
        write_pins(server.state.pins, Pins(pinned=(pin(OWNER),)))
        with pytest.raises(LockOrdered):  # the unlock had its turn, and then the lock
            await orders.obey(server.document(unlock, lock, again))
    async with server.running() as orders:
        await orders.obey(server.document(unlock, lock, again))
        assert orders.locked
    assert server.answers() == [(1, None), (2, None), (3, None)]


async def test_damaged_pins_do_not_keep_the_platforms_lock_from_its_answer(server: Server) -> None:
    """No pin has to be read for it."""
    unreadable(server.state.pins)
    carrying = server.document(server.order(OrderKind.LOCK, by=PLATFORM))
    async with server.running() as orders:
        with pytest.raises(LockOrdered):
            await orders.obey(carrying)
    async with server.running() as orders:
        await orders.obey(carrying)
    assert server.answers() == [(1, None)]


async def test_a_begun_order_waits_while_the_pins_are_damaged(
    server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It was taken: that its file is broken now is no reason to refuse it."""
    carrying = server.document(server.order(OrderKind.TRUST, argument=pin(SECOND)))
    monkeypatch.setattr(obey, "change_pins", no_room)
    async with server.running() as orders:
        with pytest.raises(OSError, match="No space left"):
            await orders.obey(carrying)
        monkeypatch.undo()
        unreadable(server.state.pins)
        with pytest.raises(Refused, match="pins_damaged"):
            await orders.obey(carrying)
        server.state.pins.rmdir()
        write_pins(server.state.pins, Pins(pinned=(pin(OWNER),)))
        await orders.obey(carrying)
    assert server.answers() == [(1, None)]
    assert server.pinned() == {pin(OWNER), pin(SECOND)}


async def test_a_begun_order_needs_its_signer_still(
    server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Who was taken away on the console meanwhile pins nobody any more."""
    change_pins(server.state.pins, lambda pins: pins.with_key(pin(SECOND)))
    friend = pin(Ed25519PrivateKey.generate())
    carrying = server.document(server.order(OrderKind.TRUST, by=SECOND, argument=friend))
    monkeypatch.setattr(obey, "change_pins", no_room)
    async with server.running() as orders:
        with pytest.raises(OSError, match="No space left"):
            await orders.obey(carrying)
    monkeypatch.undo()
    change_pins(server.state.pins, lambda pins: pins.without_key(pin(SECOND)))
    async with server.running() as orders:
        await orders.obey(carrying)
    assert server.answers() == [(1, "owner_key_not_pinned")]
    assert server.pinned() == {pin(OWNER)}


async def test_a_lock_and_a_stop_do_not_wait_behind_pins_that_cannot_be_written(
    server: Server,
) -> None:
    """They are done out of turn, and answered in turn: no order before them comes too late."""
    given = (
        server.order(OrderKind.TRUST, argument=pin(SECOND)),
        server.order(OrderKind.STOP_SLOT, slot_id="anthropic"),
        server.order(OrderKind.DISTRUST, argument=pin(SECOND)),
        server.order(OrderKind.LOCK),
    )
    carrying = server.document(*given).model_copy(update={"slots": (SLOT,)})
    server.pins_lock.unlink(missing_ok=True)
    server.pins_lock.mkdir()
    async with server.running() as orders:
        with pytest.raises(LockOrdered):
            await orders.obey(carrying)
    async with server.running() as orders:
        with pytest.raises(OSError, match=r"pins\.json\.lock"):
            await orders.obey(carrying)
        assert orders.locked
        assert stopped(orders._facts.told) == {"anthropic"}  # noqa: SLF001
        assert server.answers() == []
        server.pins_lock.rmdir()
        await orders.obey(carrying)
        assert orders.locked
    assert server.answers() == [(1, None), (2, None), (3, None), (4, None)]


async def test_a_full_disk_keeps_no_key_in_the_memory(server: Server) -> None:
    """The process ends to lock, the next one stays locked, and writes it down once it can."""
    before = server.document(server.order(OrderKind.STOP_SLOT, slot_id="anthropic"))
    before = before.model_copy(update={"slots": (SLOT,)})
    carrying = before.model_copy(update={"orders": (*before.orders, server.order(OrderKind.LOCK))})
    async with server.running() as orders:
        with full_disk(), pytest.raises(LockOrdered):
            await orders.obey(carrying)
        assert server.answers() == []
    async with server.running() as orders:
        assert orders.locked
        with full_disk(), pytest.raises(StorageFull):
            await orders.obey(carrying)
        assert orders.locked
        await orders.obey(carrying)
        assert orders.locked
        assert not server.state.lock_note.exists()
        await orders.obey(server.document(server.order(OrderKind.UNLOCK)))
    async with server.running() as orders:
        assert not orders.locked
    assert server.answers() == [(1, None), (2, None), (3, None)]


def test_a_damaged_platform_key_is_not_quietly_nobodys(server: Server) -> None:
    """A server without one is as old as that; a broken one is told."""
    server.state.orders_key.write_bytes(b"short")
    with pytest.raises(NotEnrolled, match="missing or damaged"):
        server.state.read_orders_key()
    server.state.orders_key.unlink()
    assert server.state.read_orders_key() is None


@pytest.mark.parametrize(
    ("kind", "refused"),
    [
        (OrderKind.PROMOTE, "locked"),
        (OrderKind.ABORT, None),
        (OrderKind.VERIFY, None),
        (OrderKind.RETIRE, None),
    ],
)
async def test_a_locked_server_obeys_orders_about_revisions_but_forces_none(
    server: Server, kind: OrderKind, refused: str | None
) -> None:
    """Whether a credential opens can be seen with the vault open only."""
    held = Held("anthropic", 2, "anthropic", CredentialKind.API_KEY, SLOT.rotation_id, 0, ())
    rotation = SlotRotation(pending=2, newest=2)
    key = rotation_key("anthropic")
    async with server.running() as orders:
        memory = {key: rotation.model_dump_json(), **stored_memory(held)}
        await orders._facts.tell(remember=memory)  # noqa: SLF001 (as the announcer has told)
        await orders.obey(server.document(server.order(kind, slot_id="anthropic", argument="2")))
        after = rotation_of("anthropic", orders._facts.told)  # noqa: SLF001
    assert server.answers() == [(1, refused)]
    assert after.current is None
    assert (after == rotation) is (refused is not None)


async def test_a_retirement_does_not_wait_behind_an_order_that_cannot_be_done(
    server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It has its effect at once, and its answer when its turn comes."""
    trust = server.order(OrderKind.TRUST, argument=pin(SECOND))
    retire = server.order(OrderKind.RETIRE, slot_id="anthropic", argument="2")
    carrying = server.document(trust, retire).model_copy(update={"slots": (SLOT,)})
    with monkeypatch.context() as patch:
        patch.setattr(obey, "change_pins", no_room)
        async with server.running() as orders:
            with pytest.raises(OSError, match="No space"):
                await orders.obey(carrying)
            assert rotation_of("anthropic", orders._facts.told).floor == 2  # noqa: SLF001
    assert server.answers() == []
    async with server.running() as orders:
        await orders.obey(carrying)
    assert server.answers() == [(1, None), (2, None)]
