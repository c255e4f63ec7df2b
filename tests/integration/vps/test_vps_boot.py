"""The boot sequence against the real evaluator, broken off at every step."""

import shutil
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

import pytest

from bus_schemas.errors import Refused
from bus_schemas.transport.connection import Bus
from bus_schemas.transport.target import BusUnavailable
from tests.integration.vps.conftest import Fleet
from vps_runtime.connection.tokens import TokenStore
from vps_runtime.state import StateFolder
from vps_runtime.unlock import boot
from vps_runtime.unlock.boot import Unlocked, unlock
from vps_runtime.unlock.evaluator import Evaluator
from vps_runtime.vault.root_file import read_root_file
from vps_runtime.vault.store import DiskFull

SERVER = "acme-1"


class Killed(BaseException):
    """Stands for the kill: nothing in the sequence may catch it."""


@asynccontextmanager
async def connected(state: StateFolder) -> AsyncIterator[Evaluator]:
    """Yield the evaluator as this server reaches it."""
    bus = await Bus(state.target(), SERVER, TokenStore(state).working).open()
    try:
        yield Evaluator(bus, state.read_identity(), state.read_evaluator())
    finally:
        await bus.close()


async def start(state: StateFolder) -> Unlocked:
    """Run one whole start."""
    async with connected(state) as evaluator:
        return await unlock(state, SERVER, evaluator)


@pytest.fixture
async def state(fleet: Fleet) -> StateFolder:
    """An enrolled server that was never unlocked."""
    folder: StateFolder = await fleet.enrol(SERVER)
    return folder


async def test_every_start_gives_the_same_root_key(state: StateFolder) -> None:
    """The share changes at each start, the root key never, and the starts are counted."""
    first, share = await start(state), read_root_file(state.root_file).share
    second = await start(state)
    assert (first.incarnation, second.incarnation) == (1, 2)
    assert first.root_key == second.root_key
    assert read_root_file(state.root_file).share != share
    assert first.root_key not in state.root_file.read_bytes()
    assert first.root_key.hex() not in repr(first)


def dies_in(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Kill the sequence when it comes to *name*."""

    def die(*_: object) -> None:
        raise Killed

    if name == "write_root_file":
        monkeypatch.setattr(boot, name, die)
        return

    async def die_later(*_: object) -> None:
        die()

    monkeypatch.setattr(Evaluator, name, die_later)


@pytest.mark.parametrize("step", ["unlock", "write_root_file", "commit"])
@pytest.mark.parametrize("starts_before", [0, 1])
async def test_a_kill_at_any_step_is_made_good(
    state: StateFolder, monkeypatch: pytest.MonkeyPatch, step: str, starts_before: int
) -> None:
    """Whatever was done before the kill, the next start opens, and with the same root key."""
    known = [(await start(state)).root_key for _ in range(starts_before)]
    with monkeypatch.context() as patch:
        dies_in(step, patch)
        with pytest.raises(Killed):
            await start(state)
    after = await start(state)
    assert known in ([], [after.root_key])
    assert (await start(state)).root_key == after.root_key


async def test_a_lost_commit_answer_is_asked_for_again(
    state: StateFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The commit was stored and its answer lost: asking again gives the same incarnation."""
    real: Callable[..., Awaitable[int]] = Evaluator.commit
    answers = []

    async def lose_the_first(self: Evaluator, g: int, preimage: bytes) -> int:
        answers.append(await real(self, g, preimage))
        if len(answers) == 1:
            raise BusUnavailable("the answer was lost")
        return answers[-1]

    monkeypatch.setattr(Evaluator, "commit", lose_the_first)
    assert (await start(state)).incarnation == 1
    assert answers == [1, 1]


async def test_a_copy_of_an_older_disk_is_refused(state: StateFolder) -> None:
    """Once the live server has moved on, a stolen older disk opens nothing, the live one does."""
    await start(state)
    old = state.root / "old.json"
    shutil.copy(state.root_file, old)
    live = await start(state)
    new = state.root_file.read_bytes()
    shutil.copy(old, state.root_file)
    with pytest.raises(Refused, match="stale_generation"):
        await start(state)
    state.root_file.write_bytes(new)
    assert (await start(state)).root_key == live.root_key


async def test_a_full_disk_keeps_the_old_generation(
    state: StateFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without space for the new root file the old one stays whole, and a retry works."""
    first = await start(state)
    before = state.root_file.read_bytes()

    def full(*_: object) -> None:
        raise DiskFull("root.json")

    with monkeypatch.context() as patch:
        patch.setattr(boot, "write_root_file", full)
        with pytest.raises(DiskFull):
            await start(state)
    assert state.root_file.read_bytes() == before
    assert (await start(state)).root_key == first.root_key


async def test_a_lost_root_file_is_never_replaced_silently(state: StateFolder) -> None:
    """A new root key beside old records would strand them for ever."""
    await start(state)
    state.root_file.unlink()
    state.vault.mkdir()
    (state.vault / "anthropic.1.vault").write_bytes(b"record")
    with pytest.raises(Refused, match="root_file_missing"):
        await start(state)


async def test_another_evaluators_keys_are_refused(state: StateFolder) -> None:
    """Keys that the pinned evaluator did not sign are worth nothing."""
    pinned = state.read_evaluator().model_copy(update={"signing_key": b"\x07" * 32})
    state.evaluator.write_text(pinned.model_dump_json())
    with pytest.raises(Refused, match="bad_signature"):
        await start(state)


async def test_tags_are_the_same_on_every_server(fleet: Fleet, state: StateFolder) -> None:
    """One input gives one output under one epoch, whoever asks, and another under no key."""
    await fleet.enrol("acme-2")
    async with connected(state) as evaluator:
        keys = await evaluator.keys()
        epoch = keys.current_epoch
        key = keys.fingerprint_public_keys[epoch]
        first = await evaluator.fingerprint(epoch, key, [b"a" * 32, b"b" * 32])
        again = await evaluator.fingerprint(epoch, key, [b"b" * 32])
        assert first[1:] == again
        with pytest.raises(Refused, match="bad_proof"):
            await evaluator.fingerprint(epoch, keys.unlock_public_key, [b"a" * 32])
