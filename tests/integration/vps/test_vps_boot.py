"""The boot sequence against the real evaluator, broken off at every step."""

import shutil
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest

from bus_schemas.errors import Refused
from bus_schemas.transport.target import BusUnavailable
from tests.integration.vps.conftest import Fleet
from tests.integration.vps.starts import (
    STEPS,
    connected,
    copied,
    key,
    killed_start,
    start,
)
from vps_runtime.state import StateFolder
from vps_runtime.unlock import boot
from vps_runtime.unlock.evaluator import Evaluator, TurnedDown
from vps_runtime.unlock.rules import begin
from vps_runtime.vault.root_file import read_root_file
from vps_runtime.vault.store import DiskFull

SERVER = "acme-1"


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
    assert key(first) == key(second)
    assert read_root_file(state.root_file).share != share
    assert key(first) not in state.root_file.read_bytes()
    assert key(first).hex() not in repr(first)


@pytest.mark.parametrize("first", STEPS)
async def test_a_server_boots_after_any_kill_and_its_copies_do_not(
    fleet: Fleet, tmp_path: Path, first: str
) -> None:
    """Killed anywhere, and once more anywhere, it boots with its key; older disks never do."""
    cases = [(0, None), (0, first), *((1, second) for second in (None, *STEPS))]
    for number, (starts_before, second) in enumerate(cases):
        state = await fleet.enrol(f"acme-{number}")
        known = [key(await start(state)) for _ in range(starts_before)]
        copies = [copied(state, tmp_path / f"{number}-before")]
        for kill in filter(None, (first, second)):
            await killed_start(state, kill)
            copies.append(copied(state, tmp_path / f"{number}-{len(copies)}"))
        alive = await start(state)
        assert known in ([], [key(alive)])
        for copy in copies:
            with pytest.raises(Refused, match="stale_generation"):
                await start(copy)
        again = await start(state)
        assert (key(again), again.incarnation) == (key(alive), alive.incarnation + 1)


@pytest.mark.parametrize("step", ["answered", "half-written", "replaced"])
async def test_a_copy_from_before_a_start_is_refused_even_if_its_commit_got_lost(
    state: StateFolder, tmp_path: Path, step: str
) -> None:
    """The evaluator knows that a start was begun; who has not its next share did not begin it."""
    live = await start(state)
    older = copied(state, tmp_path / "older")
    await killed_start(state, step)
    for _ in range(2):
        with pytest.raises(Refused, match="stale_generation"):
            await start(older)
    again = await start(state)
    assert key(again) == key(live)


async def test_a_lost_commit_answer_is_asked_for_again(
    state: StateFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The commit was stored and its answer lost: asking again gives the same incarnation."""
    real: Callable[..., Awaitable[int]] = Evaluator.commit
    answers = []

    async def lose_the_first(*arguments: object) -> int:
        answers.append(await real(*arguments))
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
    assert key(await start(state)) == key(live)


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
    assert key(await start(state)) == key(first)


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
    async with connected(state) as evaluator:
        with pytest.raises(Refused, match="bad_signature") as caught:
            await evaluator.keys()
        found = begin(None, server_id=SERVER, first_share=b"\x01" * 32, next_share=b"\x02" * 32)
        with pytest.raises(Refused, match="bad_signature"):
            await evaluator.unlock(found)
        assert not isinstance(caught.value, TurnedDown)  # so that a start waits for the right one


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
            await evaluator.fingerprint(epoch, b"\x07" * 32, [b"a" * 32])
