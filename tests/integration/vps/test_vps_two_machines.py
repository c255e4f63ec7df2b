"""What an owner is told when a server's disk was copied, or when it obeys other keys."""

import asyncio
import shutil
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path

import pytest

from bus_schemas.errors import Refused
from bus_schemas.events import BannerEvent
from bus_schemas.events.banner import BannerCode, CopySign
from bus_schemas.flows import Role
from platform_handlers.banner.words import words_for
from platform_handlers.health import rules
from platform_handlers.health.handler import HealthHandler
from tests.integration.vps.conftest import Agent, Fleet
from tests.integration.vps.starts import copied, killed_start, start
from tests.telling import banners_until, handling
from vps_runtime.commands import run_command
from vps_runtime.state import StateFolder

SERVER = "acme-1"
OTHER_KEY = "ABCDEFGHIJ234567ABCD"


@asynccontextmanager
async def watching(fleet: Fleet, folder: Path) -> AsyncIterator[None]:
    """Have the platform's health and fingerprint handlers at work."""
    await asyncio.to_thread(folder.mkdir)
    health = await HealthHandler.open(folder, await fleet.platform.bus(Role.HEALTH))
    task = asyncio.create_task(health.run())
    try:
        async with handling(fleet.platform, folder):
            yield
    finally:
        task.cancel()
        with suppress(asyncio.CancelledError):
            await task


async def told(fleet: Fleet, code: BannerCode) -> BannerEvent:
    """Wait for a banner of *code* and return its newest event."""
    events = await banners_until(fleet.platform, lambda told: any(b.code is code for b in told))
    return [event for event in events if event.code is code][-1]


async def copied_live(fleet: Fleet, live: Agent, state: StateFolder, to: Path) -> StateFolder:
    """Copy the disk of a running server, but for the database that it writes to meanwhile."""
    await live.ready()
    await fleet.sealing_key(SERVER)  # the vault's first record is written
    ignore = shutil.ignore_patterns("outbox.db*", ".*.tmp", "*.sock")  # no disk has a socket
    return StateFolder(await asyncio.to_thread(shutil.copytree, state.root, to, ignore=ignore))


async def test_a_stale_copy_is_told_of_while_the_live_server_goes_on(
    fleet: Fleet, tmp_path: Path
) -> None:
    """An older disk asks, is refused and told; the server it was copied from boots as ever."""
    state = await fleet.enrol(SERVER)
    await start(state)
    old = copied(state, tmp_path / "old")
    await start(state)
    async with watching(fleet, tmp_path / "platform"):
        with pytest.raises(Refused, match="stale_generation"):
            await start(old)
        raised = await told(fleet, BannerCode.CLONE_SUSPECTED)
        assert raised.copies is not None
        assert raised.copies.signs == (CopySign.STALE_DISK,)
        assert (raised.state, raised.owner_id, raised.slot_id) == ("raised", "acme", None)
        assert (await start(state)).incarnation == 3
        assert await told(fleet, BannerCode.CLONE_SUSPECTED) == raised


async def test_two_machines_that_run_at_once_are_told_of(
    fleet: Fleet, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A copy of the newest disk unlocks, as nobody can forbid; the original gives it away."""
    monkeypatch.setattr(rules, "STRAY_SECONDS", 0.5)
    state = await fleet.enrol(SERVER)
    async with watching(fleet, tmp_path / "platform"):
        live = await fleet.start(state)
        copy = await fleet.start(await copied_live(fleet, live, state, tmp_path / "copy"))
        assert (await copy.ready())["incarnation"] == 2
        raised = await told(fleet, BannerCode.CLONE_SUSPECTED)
        assert raised.copies is not None
        assert raised.copies.signs == (CopySign.TWO_RUNNING,)
        assert live.process.returncode is None


async def test_a_key_pinned_on_the_console_of_a_running_server_is_told_of(
    fleet: Fleet, tmp_path: Path
) -> None:
    """`byok-vps trust` beside the running agent: the banner names the key that was added."""
    state = await fleet.enrol(SERVER)
    async with watching(fleet, tmp_path / "platform"):
        agent = await fleet.start(state)
        await agent.ready()
        await fleet.sealing_key(SERVER)  # told after the pins: the baseline is on the ledger
        arguments = ["trust", OTHER_KEY, "--state", str(state.root)]
        assert await asyncio.to_thread(run_command, arguments) == 0
        raised = await told(fleet, BannerCode.OWNER_KEY_CHANGED)
        assert raised.keys is not None
        assert (raised.keys.added, raised.keys.removed) == ((OTHER_KEY,), ())
        assert "Added: ABCD EFGH IJ23 4567 ABCD." in words_for(raised).explanation


async def test_a_copy_that_never_commits_is_told_of_by_the_original(
    fleet: Fleet, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whoever has the evaluator's answer can open the disk, and need not say that they did."""
    monkeypatch.setattr(rules, "STRAY_SECONDS", 0.5)
    state = await fleet.enrol(SERVER)
    async with watching(fleet, tmp_path / "platform"):
        live = await fleet.start(state)
        copy = await copied_live(fleet, live, state, tmp_path / "copy")
        await killed_start(copy, "answered")
        raised = await told(fleet, BannerCode.CLONE_SUSPECTED)
        assert raised.copies is not None
        assert raised.copies.signs == (CopySign.TWO_RUNNING,)
