"""Moves the rotations on: asks the provider, brings what is good into use, tells each step.

Level-triggered like the reconciler: every pass compares the memory with the vault, the calls and
the clock, so a wake that is lost, repeated or late changes nothing, and a kill anywhere is caught
up with at the next start.
"""

import asyncio
import contextlib
import random
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import Protocol

import structlog

from bus_schemas.errors import ByokError, Refused
from bus_schemas.events.health import Validity
from bus_schemas.providers import load_providers
from bus_schemas.transport.back_off import BackOff, jittered
from bus_schemas.transport.wake import woken
from vps_runtime.keys.calls import Answer, Calls, KeyUser
from vps_runtime.keys.keyring import Keyring
from vps_runtime.orders.rules import may_be_used
from vps_runtime.rotation.held import serves
from vps_runtime.rotation.plan import Asked, due_at
from vps_runtime.rotation.rules import (
    Change,
    Verdict,
    accepts,
    answered,
    drained,
    judged,
    rotations,
)
from vps_runtime.rotation.store import Event, carry_on
from vps_runtime.unlocked import UnlockedServer
from vps_runtime.vault.credentials import Held

_log = structlog.get_logger(__name__)

_LOOK_SECONDS = 5.0
_PATIENCE_SECONDS = 60.0
"""For one verdict; who asks gives up sooner."""
_AT_ONCE = 8
"""Providers asked at the same time."""
_REFUSED = frozenset({401, 403})


class Judge(Protocol):
    """Asks the provider whether a credential is good."""

    async def judge(self, held: Held) -> Verdict:
        """Return its verdict; no answer is `unknown`. Raises Refused(`vault_record_damaged`)."""
        ...


class Rotator:
    """The one task that brings revisions into use."""

    def __init__(
        self,
        server: UnlockedServer,
        keyring: Keyring,
        calls: Calls,
        judge: Judge,
        users: Sequence[KeyUser] = (),
    ) -> None:
        """*users* are all who may still use an older revision, besides *calls*."""
        self._server = server
        self._keyring = keyring
        self._judge = judge
        self._users = (calls, *users)
        self._asked: dict[tuple[str, int], Asked] = {}
        self._asking: set[tuple[str, int]] = set()
        self._at_once = asyncio.Semaphore(_AT_ONCE)
        self._receipts: dict[str, Answer] = {}
        self._draining = False
        self._on_moved: list[Callable[[], None]] = []
        self._wake = asyncio.Event()
        calls.on_answer(self._heard)
        calls.on_settled(self._call_ended)

    def on_moved(self, callback: Callable[[], None]) -> None:
        """Call *callback* after each step of a rotation: there may be something to tell."""
        self._on_moved.append(callback)

    def wake(self) -> None:
        """Say that something may have changed."""
        self._wake.set()

    def changed(self) -> None:
        """Say that an order or the document has changed what may be used."""
        self._keyring.changed()
        self.wake()

    def withhold(self, revisions: Mapping[str, int]) -> None:
        """Use none up to these *revisions*, by slot: an order that cannot be written down yet."""
        self._keyring.withhold(revisions)

    def doubt(self, held: Held) -> None:
        """Say that *held*'s sign-in is over: it is judged anew at once, which asks nobody."""
        self._asked.pop((held.slot_id, held.revision), None)
        self.wake()

    async def open(self) -> None:
        """Open what may be used and is not open yet: at the start, before anybody asks for it."""
        for slot, held in self._server.usable.items():
            if self._keyring.current(slot) is None:
                with contextlib.suppress(Refused):  # its disk, perhaps: there is a next time
                    await self._keyring.open(held)

    async def prepare(self, slot_id: str, revision: int) -> None:
        """Open a revision that is about to come into use. Raises Refused.

        Also one that is not told as stored yet: it may be pending by the time it is used.
        """
        held = self._server.credentials.get(slot_id, revision)
        if held and serves(self._server.rotation(slot_id), revision):
            await self._keyring.open(held)

    async def catch_up(self) -> None:
        """Take every step that is due, until each provider asked has answered. Raises StorageFull.

        `run` does not wait for the answers.
        """
        async with asyncio.TaskGroup() as asking:
            await self._move()
            self._ask(asking)
        await self._move()

    async def run(self) -> None:
        """Move on for ever; cancel to stop. Trouble is retried with jittered back-off."""
        back_off = BackOff(first=0.5, longest=60.0)
        async with asyncio.TaskGroup() as asking:
            while True:
                self._wake.clear()
                pause = _LOOK_SECONDS
                try:
                    await self._move()
                    self._ask(asking)
                    back_off.over()
                except (ByokError, OSError) as error:
                    pause = back_off.pause()
                    _log.warning("rotator_waits", error=str(error))
                await woken(self._wake, pause)

    async def _move(self) -> None:
        """Take every step that needs no answer of a provider."""
        await self.open()
        for slot, answer in list(self._receipts.items()):
            event = partial(answered, revision=answer.revision, status=answer.status)
            await self._carry_on(slot, event)
            if self._receipts.get(slot) is answer:  # else a newer one came while it was told
                del self._receipts[slot]
        await self._tell_drained()
        if await self._server.clear_out():
            self._keyring.changed()
            self._moved()

    async def _tell_drained(self) -> None:
        waiting = False
        for slot, rotation in rotations(self._server.facts.told).items():
            current = rotation.current
            if current is None or rotation.drained:
                continue
            if any(user.uses_older(slot, current) for user in self._users):
                waiting = self._draining = True  # at once: it may end while another is told
            else:
                await self._carry_on(slot, partial(drained, revision=current))
        self._draining = waiting

    def _call_ended(self) -> None:
        """Look again if somebody waits for that; calls are many, rotations are few."""
        if self._draining:
            self.wake()

    def _ask(self, asking: asyncio.TaskGroup) -> None:
        """Ask about every revision whose time has come, each in a task of its own."""
        now, told = time.monotonic(), self._server.facts.told
        self._asked = {key: asked for key, asked in self._asked.items() if self._is_alive(*key)}
        for slot, rotation in rotations(told).items():
            for revision in filter(None, (rotation.pending, rotation.current)):
                key = slot, revision
                due = due_at(rotation, revision, self._asked.get(key))
                held = self._server.credentials.get(slot, revision)
                if due is None or due > now or held is None or key in self._asking:
                    continue
                if may_be_used(slot, told):
                    self._asking.add(key)
                    asking.create_task(self._judge_one(held), name=f"judge {slot}")

    def _is_alive(self, slot_id: str, revision: int) -> bool:
        rotation = self._server.rotation(slot_id)
        return revision in {rotation.current, rotation.pending}

    async def _judge_one(self, held: Held) -> None:
        key = held.slot_id, held.revision
        try:
            async with self._at_once:
                verdict = await self._verdict(held)
            await self._act_on(held, verdict)
        except (ByokError, OSError) as error:
            _log.warning("verdict_waits", slot=held.slot_id, error=str(error))
            await asyncio.sleep(jittered(1.0))  # a full disk: asked again, not at once
        finally:
            self._asking.discard(key)
            self.wake()

    async def _verdict(self, held: Held) -> Verdict:
        try:
            async with asyncio.timeout(_PATIENCE_SECONDS):
                return await self._judge.judge(held)
        except TimeoutError:
            return Verdict(Validity.UNKNOWN)
        except Refused as refusal:
            _log.error("vault_record_unusable", error=str(refusal))
            return Verdict(Validity.UNKNOWN, reason=refusal.reason)

    async def _act_on(self, held: Held, verdict: Verdict) -> None:
        slot, revision = held.slot_id, held.revision
        last = self._asked.get((slot, revision))
        unknown = verdict.validity is Validity.UNKNOWN
        times = (last.unknown if last else 0) + 1 if unknown else 0
        self._asked[slot, revision] = Asked(time.monotonic(), times, spread=_spread())
        if verdict.good:
            await self.prepare(slot, revision)  # first: no call may fall between the two
        event = partial(judged, revision=revision, verdict=verdict, at=int(time.time()))
        await self._carry_on(slot, event)

    async def _carry_on(self, slot_id: str, event: Event) -> Change:
        change = await carry_on(self._server.facts, slot_id, event)
        if change.steps:
            self._keyring.changed()
            self._moved()
        return change

    def _moved(self) -> None:
        for callback in self._on_moved:
            callback()

    def _heard(self, answer: Answer) -> None:
        """Look at the head of an answer: the receipt, or a sign that the verdict has changed."""
        rotation = self._server.rotation(answer.slot_id)
        if answer.revision != rotation.current:
            return
        good = accepts(answer.status)
        noted = self._receipts.get(answer.slot_id)
        if good and not rotation.used and (not noted or noted.revision != answer.revision):
            self._receipts[answer.slot_id] = answer
            self.wake()
        if good if rotation.validity is Validity.INVALID else self._refuses(answer):
            self._doubt(answer.slot_id, answer.revision)

    def _refuses(self, answer: Answer) -> bool:
        """Whether *answer* may mean that the key is no good; some providers say that by 400."""
        held = self._server.credentials.get(answer.slot_id, answer.revision)
        known = load_providers().get(held.provider) if held else None
        says = known.verify.verdict(answer.status) if known else Validity.UNKNOWN
        return answer.status in _REFUSED or says is Validity.INVALID

    def _doubt(self, slot_id: str, revision: int) -> None:
        asked = self._asked.get((slot_id, revision))
        if asked and not asked.refused:
            self._asked[slot_id, revision] = replace(asked, refused=True)
            self.wake()


def _spread() -> float:
    return random.uniform(0.9, 1.1)  # noqa: S311 (keeps a fleet out of step)
