"""Obeys the orders of a desired document: decides, acts, answers. Safe to kill anywhere.

An effect that lies in the memory is one transaction with its answer. One that does not (pins, the
lock) is begun in one transaction, done, and answered in another: whoever starts after a crash
finds what was begun, does it again (twice is as once), and answers.

Trouble with one order (its disk, the pins' file) keeps those behind it waiting, except for what
only takes away: that is done out of turn, and counted and answered when its turn comes.
"""

import asyncio
import contextlib
import time
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import NoReturn, Protocol

import structlog

from bus_schemas.errors import ByokError, Refused
from bus_schemas.events.config import ConfigDesired, Order
from bus_schemas.events.reported import OrderAnswered, PinsChanged
from bus_schemas.orders import Addressee, OrderKind, known_kind, revision_of
from bus_schemas.transport.database import StorageFull
from bus_schemas.transport.private_files import sync_folder
from vps_runtime.enrolment.pins import Pins, change_pins, read_pins
from vps_runtime.facts.store import Draft, Facts, Telling
from vps_runtime.orders.outcome import outcome_of
from vps_runtime.orders.rules import (
    BEGUN,
    GENERATION,
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
    pending,
    pins_of_begun,
    stopped,
    taking_away,
)
from vps_runtime.rotation.rules import (
    Change,
    SlotRotation,
    retire_ordered,
    rotation_of,
    rotations,
)
from vps_runtime.rotation.store import carry_on
from vps_runtime.state import StateFolder

_log = structlog.get_logger(__name__)

_ABOUT_PINS = frozenset({OrderKind.TRUST, OrderKind.DISTRUST})


class LockOrdered(Exception):
    """The process has to end: only so does everything that it opened leave the memory.

    The lock is on the disk. The next process finds it, answers it and does not unlock.
    """


class Keys(Protocol):
    """Who holds the credentials that are in use."""

    async def prepare(self, slot_id: str, revision: int) -> None:
        """Open a pending revision: an order is about to bring it into use. Raises Refused."""
        ...

    def changed(self) -> None:
        """Hear that an order has changed which credentials may be used."""
        ...

    def withhold(self, revisions: Mapping[str, int]) -> None:
        """Use none up to these *revisions*, by slot, until this is called again."""
        ...


class Orders:
    """What this server was ordered, on top of its memory of facts."""

    def __init__(
        self,
        state: StateFolder,
        facts: Facts,
        on_pins_changed: Callable[[], None] = lambda: None,
        keys: Keys | None = None,
    ) -> None:
        """Read whose orders count. *on_pins_changed* is called after each. Raises NotEnrolled.

        Without *keys* this server is locked: then none is in use.
        """
        settings = state.read_settings()
        self._me = Addressee(
            settings.owner_id, settings.server_id, state.read_identity().public_key
        )
        self._platform_key = state.read_orders_key()
        self._pins = state.pins
        self._state = state
        self._facts = facts
        self._on_pins_changed = on_pins_changed
        self._keys = keys

    @property
    def locked(self) -> bool:
        """Whether this server has to stay locked."""
        return is_locked(self._facts.told) or self._state.lock_note.exists()

    @property
    def generation(self) -> int:
        """The newest document whose orders were looked at; 0 for none."""
        return int(self._facts.told.get(GENERATION, 0))

    async def obey(self, document: ConfigDesired) -> None:
        """Take the orders of *document*, each once.

        Raises LockOrdered, and StorageFull, OSError, Refused(`pins_damaged`): what was answered
        until then is answered, the rest waits.
        """
        try:
            await self.finish()  # a full disk may have come between, not only a crash
            for order in pending(document, self._facts.told):
                await self._take(order, document)
        except (ByokError, OSError):
            await self._take_away(document)
            raise
        self._withhold(())
        gone = forgotten(document, self._facts.told)
        if gone or document.generation != self.generation:
            newest = {GENERATION: str(document.generation)}
            await self._facts.tell(remember=newest, forget=gone)

    async def finish(self) -> None:
        """Do and answer what was begun when the last process ended. Raises as `obey`."""
        if self._state.lock_note.exists():
            await self._facts.tell(remember={LOCKED: "noted"})  # the order's turn puts its id there
            self._state.lock_note.unlink()
            sync_folder(self._state.root)
        begun = self._facts.told.get(BEGUN)
        if begun is not None:
            await self._finish(Order.model_validate_json(begun))

    async def _take(self, order: Order, document: ConfigDesired) -> None:
        verdict = self._decide(order, document)
        number = {LAST_N: str(order.n)} if verdict.counted else {}
        if verdict.refused is not None:
            await self._answer(order, refused=verdict.refused, remember=number)
            return
        kind = known_kind(order)
        locks = kind is OrderKind.LOCK and not self.locked
        if not locks and kind not in _ABOUT_PINS:
            refused = await self._prepare(order)
            await self._answer(order, refused=refused, remember=number)
            return
        number[BEGUN] = order.model_dump_json()
        if locks:
            await self._lock(order, number)
        await self._facts.tell(remember=number)
        await self._finish(order)

    async def _take_away(self, document: ConfigDesired) -> None:
        """Stop and lock out of turn, while an order before that cannot be taken.

        Neither counted nor answered: else the orders before would come too late, and one among
        them that gives back would have the last word.
        """
        found = taking_away(document, self._facts.told)
        taking = [order for order in found if self._is_good(order, document)]
        self._withhold(taking)  # first: no disk is so full that a key stays in use
        for order in taking:
            if about_rotation(order):
                await carry_on(self._facts, order.slot_id or "", partial(_retired, order))
                self._keys_changed()
            elif known_kind(order) is not OrderKind.LOCK:
                await self._facts.tell(remember=effect(order)[0])
                self._keys_changed()
            elif not self.locked:
                await self._lock(order, {})
        self._withhold(())

    def _is_good(self, order: Order, document: ConfigDesired) -> bool:
        try:
            return self._decide(order, document).refused is None
        except Refused:
            return False  # its signer may be an owner, or not: the pins will tell

    def _withhold(self, orders: Sequence[Order]) -> None:
        """Keep back what *orders*, which are not written down yet, take out of use.

        In memory, and that is enough: a disk that is full lets nobody unlock.
        """
        told, revisions = self._facts.told, dict[str, int]()
        for order in orders:
            slot = order.slot_id or ""
            now = rotation_of(slot, told)
            last = _retired(order, now).rotation.floor if about_rotation(order) else now.current
            revisions[slot] = max(revisions.get(slot, 0), last or 0)
        if self._keys:
            self._keys.withhold(revisions)

    async def _lock(self, order: Order, number: dict[str, str]) -> NoReturn:
        """Write the lock down and end the process. No disk is so full that the keys may stay."""
        try:
            await self._facts.tell(remember={**number, LOCKED: order.order_id})
        except StorageFull:
            self._note_lock()
        raise LockOrdered(order.order_id)  # nothing is logged here: that may fail on this disk

    def _note_lock(self) -> None:
        """Keep the next process from unlocking. One name more for a file takes no space."""
        # A disk that does not even take the name lets nobody unlock: that has to write, too.
        with contextlib.suppress(OSError):
            self._state.lock_note.hardlink_to(self._state.settings)
            sync_folder(self._state.root)

    async def _finish(self, order: Order) -> None:
        pins = None
        if known_kind(order) in _ABOUT_PINS:
            try:
                pins = await asyncio.to_thread(change_pins, self._pins, self._change(order))
            except Refused as refusal:  # the console was used meanwhile
                if refusal.reason == "pins_damaged":
                    raise
                await self._answer(order, refused=refusal.reason, forget=[BEGUN])
                return
        await self._answer(order, pins=pins, forget=[BEGUN])

    def _change(self, order: Order) -> Callable[[Pins], Pins]:
        return partial(pins_of_begun, order)

    async def _answer(
        self,
        order: Order,
        *,
        refused: str | None = None,
        pins: Pins | None = None,
        remember: dict[str, str] | None = None,
        forget: Sequence[str] = (),
    ) -> None:
        """Tell what became of *order*, its effect, and the *pins* after it, all or nothing."""
        outcomes: list[str | None] = []
        changed: list[Draft] = []

        def decide(told: Mapping[str, str]) -> Telling:
            outcome = outcome_of(order, told, refused)
            outcomes.append(outcome.refused)
            memory = {**(remember or {}), **outcome.adds, answered_key(order): outcome.word}
            if pins is not None and told.get("pins") != ",".join(pins.pinned):
                memory["pins"] = ",".join(pins.pinned)
                changed.append(partial(PinsChanged, pinned=pins.pinned))
            answer = partial(
                OrderAnswered,
                order_id=order.order_id,
                order_n=order.n,
                kind=order.kind,
                slot_id=order.slot_id,
                outcome="refused" if outcome.refused else "applied",
                reason=outcome.refused,
                last_n=last_n({**told, **memory}),
            )
            return Telling([answer, *changed, *outcome.drafts], memory, [*forget, *outcome.takes])

        await self._facts.decide(decide)
        _log.warning("order_answered", order=order.order_id, kind=order.kind, refused=outcomes[0])
        self._keys_changed()
        if changed:
            self._on_pins_changed()

    async def _prepare(self, order: Order) -> str | None:
        """Make ready what *order* brings into use; return why that cannot be."""
        if order.kind != OrderKind.PROMOTE:
            return None
        if self._keys is None:  # whether its record opens can be seen with the vault open only
            return "locked"
        try:
            await self._keys.prepare(order.slot_id or "", revision_of(order))
        except Refused as refusal:
            return refusal.reason
        return None

    def _keys_changed(self) -> None:
        if self._keys:
            self._keys.changed()

    def _decide(self, order: Order, document: ConfigDesired) -> Ruling:
        """Say whether *order* is obeyed. Raises Refused(`pins_damaged`): nobody can say now."""
        told = self._facts.told
        standing = Standing(
            me=self._me,
            pins=self._pins_for(order),
            platform_key=self._platform_key,
            last_n=last_n(told),
            slots={slot.slot_id for slot in document.slots}
            | stopped(told)
            | rotations(told).keys(),
            now=time.time(),
        )
        return decide(order, standing)

    def _pins_for(self, order: Order) -> Pins:
        try:
            return read_pins(self._pins)
        except Refused:  # an owner's order waits until it is mended; the platform's needs no pin
            if order.signer != self._platform_key:
                raise
            return Pins()


def _retired(order: Order, before: SlotRotation) -> Change:
    return retire_ordered(before, revision_of(order))
