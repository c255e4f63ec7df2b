"""Evaluators as processes: two on one folder, killed in the middle and at every exact line."""

import asyncio
import contextlib
import os
import sys
from collections import Counter
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from bus_schemas.codec import decode
from bus_schemas.events import MessageParked, ServerUnlocked
from bus_schemas.flows import Role
from bus_schemas.requests import APPROVE
from bus_schemas.transport.fresh import fresh
from bus_schemas.transport.jetstream import read_batch
from bus_schemas.transport.ledger import Batch, Position
from platform_handlers.evaluator.app import run_evaluator
from platform_handlers.evaluator.servers import FILE_NAME, ServerStore
from tests.conftest import Platform
from tests.integration.vps.conftest import Fleet, fleet_on
from tests.integration.vps.starts import eventually, key, start
from vps_runtime.state import StateFolder
from vps_runtime.unlock import evaluator as asking

ROOT = Path(__file__).parents[3]


@pytest.fixture
async def fleet(platform: Platform, tmp_path: Path) -> AsyncIterator[Fleet]:
    """The platform without an evaluator."""
    async with fleet_on(platform, tmp_path / "servers", evaluating=False) as running:
        yield running


@contextlib.asynccontextmanager
async def running(*arguments: str, says: str) -> AsyncIterator[asyncio.subprocess.Process]:
    """Run a Python program until the block ends; it *says* so when it is ready."""
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        *("-m", *arguments),
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.DEVNULL,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    )
    try:
        assert process.stdout is not None
        async with asyncio.timeout(20):
            while says not in (line := (await process.stdout.readline()).decode()):
                assert line, f"{arguments} ended with {await process.wait()}"
        yield process
    finally:
        if process.returncode is None:
            process.kill()
        await process.wait()


def evaluating(fleet: Fleet) -> contextlib.AbstractAsyncContextManager[asyncio.subprocess.Process]:
    """Run `byok evaluator run` on the platform's folder."""
    state, url = fleet.platform.installation.root, fleet.platform.server.target.url
    words = ("platform_handlers", "--state", str(state), "--bus", url, "evaluator", "run")
    return running(*words, says="the evaluator answers")


async def unlocked(fleet: Fleet) -> Counter[tuple[str, int]]:
    """Return how often each unlock of each server was told."""
    messages = await read_batch(fleet.ops, "BYOK_LEDGER", 1, 4096)
    facts = [decode(m.data, m.subject).data for m in messages]
    return Counter((f.server_id, f.incarnation) for f in facts if isinstance(f, ServerUnlocked))


async def several_starts(state: StateFolder, number: int) -> set[bytes]:
    """Start one after the other; return the root keys seen, which should be one."""
    return {key(await start(state)) for _ in range(number)}


async def test_a_fleet_goes_on_unlocking_when_one_of_two_evaluators_is_killed(
    fleet: Fleet, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Both serve; kill -9 of either, and of the other later, loses and repeats no start."""
    monkeypatch.setattr(asking, "_WAIT_SECONDS", 1.0)
    states = [await fleet.enrol(f"acme-{number}") for number in range(8)]
    async with evaluating(fleet) as one, evaluating(fleet) as two:
        starts = [asyncio.create_task(several_starts(state, 3)) for state in states]

        async def half_way() -> bool:
            return len(await unlocked(fleet)) >= 8

        await eventually(half_way)
        one.kill()
        keys = await asyncio.gather(*starts)
        assert all(len(seen) == 1 for seen in keys)
        async with evaluating(fleet):
            two.kill()
            again = await asyncio.gather(*(several_starts(state, 1) for state in states))
            assert again == keys
            wanted = {(f"acme-{number}", n) for number in range(8) for n in range(1, 5)}

            async def all_told() -> bool:
                return set(await unlocked(fleet)) == wanted

            await eventually(all_told)


@pytest.mark.parametrize(
    ("step", "number"),
    [
        ("before-store", 1),
        ("after-store", 1),
        ("before-store", 2),
        ("after-store", 2),
        ("before-tell", 1),
        ("after-tell", 1),
        ("after-send", 1),
    ],
)
async def test_an_evaluator_may_be_killed_between_any_two_steps(
    fleet: Fleet, monkeypatch: pytest.MonkeyPatch, step: str, number: int
) -> None:
    """Before and after it stores an unlock or a commit, notes the fact, sends it."""
    monkeypatch.setattr(asking, "_WAIT_SECONDS", 1.0)
    installation, target = fleet.platform.installation, fleet.platform.server.target
    state = await fleet.enrol("acme-1")
    words = ("tests.integration.vps.doomed_evaluator", str(installation.root), target.url)
    async with running(*words, step, str(number), says="ready") as doomed:
        starting = asyncio.create_task(several_starts(state, 1))
        async with asyncio.timeout(20):
            assert await doomed.wait() == -9
    ready = asyncio.Event()
    healthy = asyncio.create_task(run_evaluator(installation, target, ready.set))
    try:
        await asyncio.wait_for(ready.wait(), 20)
        root_keys = await starting
        assert await several_starts(state, 1) == root_keys

        async def both_told() -> bool:
            return set(await unlocked(fleet)) == {("acme-1", 1), ("acme-1", 2)}

        await eventually(both_told)
    finally:
        healthy.cancel()
        await asyncio.gather(healthy, return_exceptions=True)


async def test_the_work_is_shared(fleet: Fleet) -> None:
    """Each request is answered once: the evaluators stand in one queue."""
    async with evaluating(fleet), evaluating(fleet):
        bus = await fleet.platform.bus(Role.API)
        client = await bus.client()
        inbox = client.new_inbox()
        answers = await client.subscribe(f"{inbox}.*")
        subject = APPROVE.fill({"server_id": "acme-1"})
        for number in range(20):
            await client.publish(subject, b"{}", reply=f"{inbox}.{number}")
        for _ in range(20):
            await answers.next_msg(timeout=5)
        await bus.request(subject, b"{}", wait=5)  # a second answer would have come before this
        assert answers.pending_msgs == 0


async def test_the_position_never_goes_back(tmp_path: Path) -> None:
    """A slower reader of the same ledger changes nothing of what the faster one has folded."""
    one = await ServerStore.open(tmp_path / FILE_NAME)
    two = await ServerStore.open(tmp_path / FILE_NAME)

    def batch(sequence: int) -> Batch:
        pointer = MessageParked(
            stream="byok-ledger", sequence=sequence, reader="evaluator", reason="malformed"
        )
        return Batch((), (fresh(pointer),), Position("then", sequence, "digest"))

    try:
        await one.apply(batch(7))
        await two.apply(batch(5))
        assert await one.position() == await two.position() == Position("then", 7, "digest")
        assert await two.waiting() == 1
        await two.apply(batch(8))
        assert await one.waiting() == 2
    finally:
        await one.close()
        await two.close()
