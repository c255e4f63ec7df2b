"""Rotations on a server's own disk: calls, orders, verdicts and kills in any order."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from bus_schemas.errors import Refused
from bus_schemas.events.fingerprint import FingerprintRenewed, FingerprintRetired
from bus_schemas.events.health import Validity
from bus_schemas.orders import OrderKind
from bus_schemas.transport.database import StorageFull
from tests.refreshing import SLOT
from tests.rotating import Rotating, rotating
from vps_runtime.facts.store import Facts, Telling
from vps_runtime.facts.told import stored_memory
from vps_runtime.keys.keyring import Keyring
from vps_runtime.rotation import plan
from vps_runtime.rotation.rules import Verdict
from vps_runtime.vault.credentials import Held


@pytest.fixture
async def server(tmp_path: Path) -> AsyncIterator[Rotating]:
    """A server without credentials."""
    async with rotating(tmp_path / "server") as running:
        yield running


async def test_a_rotation_is_told_step_by_step(server: Rotating) -> None:
    """Stored, verified, in use, drained, retired: each once, and in this order."""
    await server.rotate(1)
    server.hand.revision = 1
    await server.rotate(2)
    server.calls.began(SLOT, 2)
    server.calls.answered(SLOT, 2, 200)
    await server.turn()
    server.hand.revision = None
    await server.turn()
    await server.turn()
    assert server.steps() == [
        "Stored 1",
        "Verified 1 valid",
        "Drained 1",
        "Stored 2",
        "Verified 2 valid",
        "InUse 2 200",
        "Drained 2",
        "Retired 1",
    ]
    assert server.held == [2]


async def test_the_older_key_waits_for_calls_hands_and_tags(server: Rotating) -> None:
    """It is used no more at once, but stays until nobody waits with it and the tags are told."""
    await server.rotate(1)
    server.calls.began(SLOT, 1)
    server.hand.revision = 1
    server.tagger.away = True
    await server.rotate(2)
    assert "Drained 2" not in server.steps()
    server.calls.failed(SLOT, 1)
    await server.turn()
    assert "Drained 2" not in server.steps()
    server.hand.revision = None
    await server.turn()
    assert server.steps()[-1] == "Drained 2"
    assert server.held == [1, 2]
    server.tagger.away = False
    await server.turn()
    assert server.held == [2]


async def test_a_refused_key_leaves_no_trace_but_its_facts(server: Rotating) -> None:
    """The one in use goes on; tags of the refused one are told as gone, and only those."""
    await server.rotate(1)
    server.judge.of[2] = Validity.INVALID
    await server.put(2)
    await server.turn()
    assert (server.current, server.held) == (1, [1])
    assert server.steps()[-3:] == [
        "Stored 2",
        "Verified 2 invalid",
        "Rejected 2 refused_by_provider",
    ]
    [renewed] = [fact for fact in server.told() if isinstance(fact, FingerprintRenewed)][-1:]
    assert [one.revision for one in renewed.held] == [1]
    assert not [fact for fact in server.told() if isinstance(fact, FingerprintRetired)]
    assert server.server.facts.told["rejected/anthropic"] == "2/refused_by_provider"
    await server.rotate(3)
    assert "rejected/anthropic" not in server.server.facts.told


async def test_three_in_a_row_leave_one_before_the_current_at_most(server: Rotating) -> None:
    """However long the oldest is in somebody's hand."""
    server.hand.revision = 1
    server.judge.of[4] = Validity.UNKNOWN
    await server.rotate(1, 2, 3)
    await server.put(4)
    await server.turn()
    assert server.held == [2, 3, 4]
    assert "Drained 3" not in server.steps()


async def test_the_owner_forces_what_nobody_can_judge(server: Rotating) -> None:
    """It is ready in the step in which the order is answered: no call finds the slot empty."""
    await server.rotate(1)
    server.judge.of[2] = Validity.UNKNOWN
    await server.put(2)
    await server.turn()
    assert (server.current, server.steps()[-1]) == (1, "Verified 2 unknown")
    assert await server.give(OrderKind.PROMOTE, 2) is None
    assert server.current == 2
    assert await server.give(OrderKind.PROMOTE, 2) == "not_pending"
    assert await server.give(OrderKind.PROMOTE, 3) == "not_held"


async def test_a_key_that_cannot_be_opened_is_not_forced(
    server: Rotating, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The order is refused with the reason, and the one in use goes on."""
    await server.rotate(1)
    server.judge.of[2] = Validity.UNKNOWN
    await server.put(2)
    await server.turn()

    async def damaged(*_: object) -> None:
        raise Refused("vault_record_damaged", "slot anthropic")

    monkeypatch.setattr(Keyring, "open", damaged)
    assert await server.give(OrderKind.PROMOTE, 2) == "vault_record_damaged"
    server.judge.of[2] = Validity.VALID
    monkeypatch.setattr(plan, "_PENDING_FIRST", 0)
    await server.rotator.catch_up()
    assert server.current == 1


async def test_a_pending_key_is_given_up(server: Rotating) -> None:
    """Also while the provider is being asked about it: its answer comes too late."""
    await server.rotate(1)
    for revision, late in ((2, Validity.VALID), (3, Validity.INVALID)):
        server.judge.of[revision] = late
        held = await server.put(revision)
        await server.announcer.catch_up()
        answer = asyncio.Event()

        async def slow(asked: Held, answer: asyncio.Event = answer) -> Verdict:
            await answer.wait()
            return Verdict(server.judge.of[asked.revision])

        asking = asyncio.create_task(_judged_by(server, slow))
        assert await server.give(OrderKind.ABORT, held.revision) is None
        answer.set()
        await asking
        await server.turn()
        assert (server.current, server.held) == (1, [1])
        assert server.steps()[-1] == f"Aborted {revision} aborted_by_owner"
    assert await server.give(OrderKind.ABORT, 3) == "not_held"
    assert await server.give(OrderKind.ABORT, 1) == "not_pending"


async def _judged_by(server: Rotating, judge: Callable[[Held], object]) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(server.judge, "judge", judge)
        await server.rotator.catch_up()


async def test_a_compromised_key_is_out_of_use_at_once(server: Rotating) -> None:
    """In the step that answers the order; what waits takes over when it is verified."""
    await server.rotate(1, 2)
    server.judge.of[3] = Validity.UNKNOWN
    await server.put(3)
    await server.turn()
    assert await server.give(OrderKind.RETIRE, 2) is None
    assert server.current is None
    await server.turn()
    assert server.held == [3]
    assert server.steps()[-1] == "Retired 2"
    server.judge.of[3] = Validity.VALID
    assert await server.give(OrderKind.VERIFY, 3) is None
    await server.turn()
    assert server.current == 3


async def test_a_key_is_retired_before_it_comes(server: Rotating) -> None:
    """The order was faster than the sealing: it is never used, and not even told as stored."""
    await server.rotate(1)
    assert await server.give(OrderKind.RETIRE, 2) is None
    assert server.current is None
    await server.put(2)
    await server.turn()
    assert (server.current, server.held) == (None, [])
    assert [revision for _, revision in server.judge.asked] == [1]
    assert [step for step in server.steps() if step.endswith(" 2")] == []
    await server.rotate(3)


async def test_a_key_that_was_stored_when_its_retirement_came_is_not_taken_on(
    server: Rotating,
) -> None:
    """In the vault and not told yet: the order wins."""
    await server.rotate(1)
    await server.put(2)
    assert await server.give(OrderKind.RETIRE, 2) is None
    await server.turn()
    assert (server.current, server.held) == (None, [])
    assert server.steps()[-1] == "Retired 1"


async def test_not_every_number_there_is_can_be_retired(server: Rotating) -> None:
    """It would end the slot for good."""
    await server.rotate(1)
    assert await server.give(OrderKind.RETIRE, 2000) == "revision_jump"
    assert server.current == 1


async def test_orders_about_one_revision_in_one_document_are_obeyed_in_turn(
    server: Rotating,
) -> None:
    """The second sees what the first has done."""
    await server.rotate(1)
    server.judge.of[2] = Validity.UNKNOWN
    await server.put(2)
    await server.turn()
    kinds = (OrderKind.PROMOTE, OrderKind.ABORT, OrderKind.RETIRE, OrderKind.VERIFY)
    reasons = await server.obey(*(server.order(kind, 2) for kind in kinds))
    assert reasons == [None, "not_pending", None, "not_held"]
    assert server.current is None


async def test_an_order_to_verify_outlives_a_kill(tmp_path: Path) -> None:
    """Answered, and not yet done: the next start asks the provider, and tells."""
    async with rotating(tmp_path / "server") as before:
        await before.rotate(1)
        assert await before.give(OrderKind.VERIFY, 1) is None
        assert before.steps()[-1] == "Drained 1"
    async with rotating(tmp_path / "server") as server:
        await server.turn()
        assert server.steps()[-1] == "Verified 1 valid"
        assert server.steps().count("Verified 1 valid") == 2


async def test_a_refused_call_asks_for_a_new_verdict_and_so_does_one_that_works_again(
    server: Rotating, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The key stays in use: nothing else could take its place."""
    monkeypatch.setattr(plan, "_REFUSED_SECONDS", 0)
    await server.rotate(1)
    for status, verdict in ((401, Validity.INVALID), (200, Validity.VALID)):
        server.judge.of[1] = verdict
        for _ in range(3):
            server.calls.began(SLOT, 1)
            server.calls.answered(SLOT, 1, status)
        await server.rotator.catch_up()
        rotation = server.server.rotation(SLOT)
        assert (rotation.current, rotation.validity) == (1, verdict)
    assert len(server.judge.asked) == 3
    server.calls.began(SLOT, 1)
    server.calls.answered(SLOT, 1, 200)
    await server.rotator.catch_up()
    assert len(server.judge.asked) == 3


async def test_what_an_older_build_has_stored_is_verified_and_used(server: Rotating) -> None:
    """It told them as stored and knew of no rotation; only the newest counts."""
    for revision in (1, 2):
        await server.server.facts.tell(remember=stored_memory(await server.put(revision)))
    await server.turn()
    await server.turn()
    assert (server.current, server.held) == (2, [2])
    assert server.steps() == ["Retired 1", "Verified 2 valid", "Drained 2"]


async def test_a_stopped_slot_sends_its_key_to_nobody(server: Rotating) -> None:
    """Not even to ask the provider: that would be a use."""
    await server.put(1)
    await server.announcer.catch_up()
    await server.server.facts.tell(remember={f"stopped/{SLOT}": "id"})
    await server.rotator.catch_up()
    assert server.judge.asked == []
    await server.server.facts.tell(forget=[f"stopped/{SLOT}"])
    await server.rotator.catch_up()
    assert server.current == 1


async def test_a_full_disk_promotes_nothing_and_the_rotator_goes_on(
    server: Rotating, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What is used and what is told never differ; with room again it goes on by itself."""
    await server.put(1)
    await server.announcer.catch_up()
    monkeypatch.setattr(plan, "_PENDING_FIRST", 0)
    decide, full = Facts.decide, asyncio.Event()

    async def no_room(self: Facts, decision: Callable[..., Telling]) -> None:
        if not full.is_set():
            full.set()
            raise StorageFull("no room")
        await decide(self, decision)

    monkeypatch.setattr(Facts, "decide", no_room)
    async with _running(server):
        await asyncio.wait_for(full.wait(), 5)
        assert server.current is None
        await _once(lambda: server.current == 1)


async def test_no_disk_is_so_full_that_a_retired_key_stays_in_use(
    server: Rotating, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Who got hold of the agent can fill the disk; the order is answered once it is written."""
    await server.rotate(1)
    retire = server.order(OrderKind.RETIRE, 1)

    async def no_room(*_: object) -> None:
        raise StorageFull("no room")

    with monkeypatch.context() as full:
        full.setattr(Facts, "decide", no_room)
        with pytest.raises(StorageFull):
            await server.obey(retire)
        assert server.current is None
        assert server.server.rotation(SLOT).current == 1
    assert await server.obey(retire) == [None]
    await server.rotate(2)


async def test_the_receipt_is_of_the_key_that_is_current_when_it_is_told(server: Rotating) -> None:
    """A call with the one before, answered in the moment of the promotion, takes nobody's place."""
    await server.rotate(1)
    server.judge.of[2] = Validity.UNKNOWN
    await server.put(2)
    await server.turn()
    server.calls.began(SLOT, 1)
    server.calls.answered(SLOT, 1, 200)
    assert await server.give(OrderKind.PROMOTE, 2) is None
    server.calls.began(SLOT, 2)
    server.calls.answered(SLOT, 2, 200)
    await server.turn()
    assert "InUse 2 200" in server.steps()


async def test_a_key_is_open_before_it_is_forced_also_while_it_is_taken_on(
    server: Rotating, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The order may come between the vault's write and its fact."""
    await server.rotate(1)
    await server.put(2)
    order, decide = server.order(OrderKind.PROMOTE, 2), Facts.decide

    async def taken_on_first(self: Facts, decision: Callable[..., Telling]) -> None:
        monkeypatch.setattr(Facts, "decide", decide)
        await server.announcer.catch_up()
        await decide(self, decision)

    monkeypatch.setattr(Facts, "decide", taken_on_first)
    assert await server.obey(order) == [None]
    assert server.current == 2


async def test_a_stop_on_a_full_disk_is_lifted_by_what_comes_after_it(
    server: Rotating, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What was kept back without a note is kept back only until there is one."""
    await server.rotate(1)
    stop = server.about_slot(OrderKind.STOP_SLOT)

    async def no_room(*_: object) -> None:
        raise StorageFull("no room")

    with monkeypatch.context() as full:
        full.setattr(Facts, "decide", no_room)
        with pytest.raises(StorageFull):
            await server.obey(stop)
        assert server.current is None
    assert await server.obey(stop, server.about_slot(OrderKind.RESUME_SLOT)) == [None, None]
    assert server.current == 1


async def test_a_provider_that_comes_back_ends_the_waiting(
    server: Rotating, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Asked again and again without anybody's help, and told as unknown once."""
    monkeypatch.setattr(plan, "_PENDING_FIRST", 0.01)
    monkeypatch.setattr("vps_runtime.keys.rotator._LOOK_SECONDS", 0.01)
    server.judge.of[1] = Validity.UNKNOWN
    await server.put(1)
    await server.announcer.catch_up()
    async with _running(server):
        await _once(lambda: len(server.judge.asked) > 3)
        server.judge.of[1] = Validity.LIMITED
        await _once(lambda: server.current == 1)
    assert server.steps()[:3] == ["Stored 1", "Verified 1 unknown", "Verified 1 limited"]


async def test_the_last_call_that_ends_is_enough_to_be_drained(
    server: Rotating, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nobody waits for the next look; and receipts wake the rotator once, not at every call."""
    monkeypatch.setattr("vps_runtime.keys.rotator._LOOK_SECONDS", 60)
    await server.rotate(1)
    server.calls.began(SLOT, 1)
    await server.rotate(2)
    async with _running(server):
        server.calls.began(SLOT, 2)
        server.calls.answered(SLOT, 2, 200)
        await _once(lambda: server.steps()[-1] == "InUse 2 200")
        server.calls.answered(SLOT, 1, 200)
        await _once(lambda: server.steps()[-1] == "Drained 2")


@asynccontextmanager
async def _running(server: Rotating) -> AsyncIterator[None]:
    """Let the rotator run."""
    task = asyncio.create_task(server.rotator.run())
    try:
        yield
    finally:
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task


async def _once(fact: Callable[[], bool]) -> None:
    """Wait for *fact*, with a bound."""
    async with asyncio.timeout(10):
        while not fact():  # noqa: ASYNC110 (another task makes it so)
            await asyncio.sleep(0.005)
