"""The boot sequence without a platform: what it waits out, and what it makes sure of first."""

import asyncio
import os
from collections.abc import Sequence
from pathlib import Path

import pytest

from bus_schemas.errors import Refused
from vps_runtime.state import StateFolder
from vps_runtime.unlock import boot
from vps_runtime.unlock.boot import keep_pins, pins_to_commit, unlock
from vps_runtime.unlock.evaluator import Evaluator, TurnedDown
from vps_runtime.unlock.rules import Start
from vps_runtime.vault.root_file import RootFile, write_root_file

BEGUN = RootFile(
    server_id="acme-1",
    g=1,
    share=b"\x0a" * 32,
    wrapped_root=bytes(60),
    next_share=b"\x0b" * 32,
)


@pytest.fixture
def state(tmp_path: Path) -> StateFolder:
    """A folder in which a start was begun."""
    folder = StateFolder(tmp_path)
    write_root_file(folder.root_file, BEGUN)
    return folder


class Answering(Evaluator):
    """Turns each start down, for the reasons it is given, in their order."""

    def __init__(self, *reasons: str, synced: Sequence[int] = ()) -> None:
        self.reasons = list(reasons)
        self.synced = synced
        self.before: list[int] = []
        """What had been synced when it was first told of the start."""

    async def challenge(self) -> None:
        """Have no nonce to give."""

    async def unlock(self, start: Start) -> tuple[bytes, bytes]:
        """Say no."""
        self.before = self.before or list(self.synced)
        raise TurnedDown(self.reasons.pop(0), f"generation {start.g}")


@pytest.mark.parametrize(
    "reason", ["server_reenrolled", "stale_nonce", "too_many_unlocks", "unknown_server"]
)
async def test_what_ends_by_itself_is_waited_out(
    state: StateFolder, reason: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """News that are on their way, a nonce that another request used up, an hour that is full."""
    monkeypatch.setattr(boot, "_FIRST_PAUSE", 0.001)
    with pytest.raises(Refused, match="server_not_active"):
        await unlock(state, "acme-1", Answering(reason, "server_not_active"))


async def test_what_needs_a_person_is_not_waited_out(state: StateFolder) -> None:
    """A copy would ask for ever, and its console would not say why."""
    for reason in ("stale_generation", "unlock_key_missing", "ratchet_forged"):
        with pytest.raises(Refused, match=reason):
            await unlock(state, "acme-1", Answering(reason, "unknown_server"))


async def test_a_start_that_was_begun_before_is_on_the_disk_before_anybody_is_asked(
    state: StateFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its writer may have been killed before the folder's fsync; a power cut then lost the share.

    The evaluator would have been told of that share, and take no other.
    """
    synced: list[int] = []
    monkeypatch.setattr(os, "fsync", lambda handle: synced.append(os.fstat(handle).st_ino))
    places = [state.root_file.stat().st_ino, state.root.stat().st_ino]
    evaluator = Answering("server_not_active", synced=synced)
    with pytest.raises(Refused, match="server_not_active"):
        await unlock(state, "acme-1", evaluator)
    assert evaluator.before == places


def test_damaged_pins_are_not_told_as_no_pins(state: StateFolder) -> None:
    """The start goes on, and the evaluator keeps what it knows; a missing file obeys nobody."""
    assert pins_to_commit(state) == ()
    state.pins.write_bytes(b"{")
    assert pins_to_commit(state) is None


async def test_each_change_of_the_pins_is_told_once(
    state: StateFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One that comes while the one before is being told is not lost, and none is told for ever."""
    changed, told = asyncio.Event(), asyncio.Event()
    waiting: list[bool] = []

    async def tell(*_: object) -> int:
        waiting.append(changed.is_set())
        if len(waiting) == 1:
            changed.set()
        else:
            told.set()
        return 1

    monkeypatch.setattr(boot, "_commit_again", tell)
    changed.set()
    keeping = asyncio.create_task(keep_pins(state, "acme-1", Answering(), changed))
    await asyncio.wait_for(told.wait(), 10)
    keeping.cancel()
    assert waiting == [False, False]
    assert not changed.is_set()
