"""Starts of a server against the real evaluator, killed at every step, and copies of its disk."""

import asyncio
import shutil
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from bus_schemas.approval import Approval, ApprovalReply
from bus_schemas.flows import Role
from bus_schemas.requests import APPROVE
from bus_schemas.transport.connection import Bus
from tests.integration.vps.conftest import Fleet
from vps_runtime.connection.tokens import TokenStore
from vps_runtime.state import StateFolder
from vps_runtime.unlock import boot
from vps_runtime.unlock.boot import Unlocked, unlock
from vps_runtime.unlock.evaluator import Evaluator
from vps_runtime.vault.root_file import RootFile, write_root_file

STEPS = ("begun", "answered", "half-written", "replaced", "committed")
"""Where a start is killed: each name is the last thing that was done."""


class Killed(BaseException):
    """Stands for the kill: nothing in the sequence may catch it."""


@asynccontextmanager
async def connected(state: StateFolder) -> AsyncIterator[Evaluator]:
    """Yield the evaluator as this server reaches it."""
    server_id = state.read_settings().server_id
    bus = await Bus(state.target(), server_id, TokenStore(state).working).open()
    try:
        yield Evaluator(bus, state.read_identity(), state.read_evaluator())
    finally:
        await bus.close()


async def start(state: StateFolder) -> Unlocked:
    """Run one whole start."""
    async with connected(state) as evaluator:
        return await unlock(state, state.read_settings().server_id, evaluator)


def key(unlocked: Unlocked) -> bytes:
    """Return its root key."""
    return bytes(unlocked.root_key.view())


def copied(state: StateFolder, to: Path) -> StateFolder:
    """Return a copy of the whole disk of *state*, as a thief or a snapshot has it."""
    sockets = shutil.ignore_patterns("*.sock")  # a name on the disk, and nothing behind it
    return StateFolder(shutil.copytree(state.root, to, ignore=sockets))


async def killed_start(state: StateFolder, step: str) -> None:
    """Run a start that is killed right after *step*."""
    with pytest.MonkeyPatch.context() as patch:
        _die_after(step, patch)
        with pytest.raises(Killed):
            await start(state)


def _die_after(step: str, patch: pytest.MonkeyPatch) -> None:
    write = write_root_file
    if step == "begun":
        patch.setattr(Evaluator, "unlock", _dying(None))
    elif step == "answered":
        patch.setattr(Evaluator, "unlock", _dying(Evaluator.unlock))
    elif step == "committed":
        patch.setattr(Evaluator, "commit", _dying(Evaluator.commit))
    else:

        def die(path: Path, file: RootFile) -> None:
            if file.next_share is not None:  # the one before the question
                write(path, file)
                return
            if step == "half-written":
                path.with_name(f".{path.name}.dead.tmp").write_bytes(b"{")
            else:
                write(path, file)
            raise Killed

        patch.setattr(boot, "write_root_file", die)


def _dying(real: Callable[..., Awaitable[object]] | None) -> Callable[..., Awaitable[object]]:
    async def die(*arguments: object) -> object:
        if real is not None:
            await real(*arguments)
        raise Killed

    return die


async def send_approval(fleet: Fleet, approval: Approval, *, to: str | None = None) -> str | None:
    """Hand *approval* in as the API does; return the reason of a refusal, None if it was taken."""
    bus = await fleet.platform.bus(Role.API)
    subject = APPROVE.fill({"server_id": to or approval.server_id})
    answer = await bus.request(subject, approval.model_dump_json().encode(), wait=5)
    return ApprovalReply.model_validate_json(answer.data).refused


async def eventually(fact: Callable[[], Awaitable[bool]]) -> None:
    """Wait, with a bound, until *fact* holds."""
    async with asyncio.timeout(20):
        while not await fact():  # noqa: ASYNC110 (another process makes it so)
            await asyncio.sleep(0.02)
