"""A database that another process keeps locked, or a full disk: tasks wait for it and go on."""

import asyncio
import contextlib
import sqlite3
from collections.abc import AsyncIterator, Coroutine, Iterator
from pathlib import Path
from typing import Any

import pytest
from structlog.testing import capture_logs

from bus_schemas.flows import Role
from bus_schemas.transport.database import fetch_one
from platform_handlers.config import service as config_service
from platform_handlers.config.service import ConfigHandler
from platform_handlers.config.store import FILE_NAME as CONFIG_FILE
from platform_handlers.config.store import ConfigStore
from platform_handlers.provisioning.registry import FILE_NAME, Registry
from platform_handlers.provisioning.service import run_provisioning
from tests.conftest import Platform


class Owners:
    """Nobody's servers."""

    async def owner_of_active_server(self, server_id: str) -> str | None:
        """Know of none."""


@contextlib.contextmanager
def locked(path: Path, first: str) -> Iterator[sqlite3.Connection]:
    """Do *first* and then keep the database locked, as another process might."""
    other = sqlite3.connect(path, isolation_level=None)
    other.executescript(first)
    other.execute("BEGIN IMMEDIATE")
    try:
        yield other
    finally:
        other.execute("ROLLBACK")
        other.close()


@contextlib.asynccontextmanager
async def running(work: Coroutine[Any, Any, None]) -> AsyncIterator[asyncio.Task[None]]:
    """Run *work*, which must not end by itself."""
    task = asyncio.create_task(work)
    try:
        yield task
        assert not task.done()
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


async def until_said(logs: list[Any], event: str, task: asyncio.Task[None]) -> None:
    """Wait for a line of the log, ten seconds at most."""
    async with asyncio.timeout(10):
        while not any(line["event"] == event for line in logs):
            assert not task.done(), task
            await asyncio.sleep(0.01)


async def until_empty(path: Path, query: str) -> None:
    """Wait until *query* finds nothing, ten seconds at most."""
    with contextlib.closing(sqlite3.connect(path)) as database:
        async with asyncio.timeout(10):
            while database.execute(query).fetchone():  # noqa: ASYNC110 (another connection)
                await asyncio.sleep(0.01)


async def test_a_locked_registry_does_not_end_the_pushing_of_claims(platform: Platform) -> None:
    """What a command recorded meanwhile is pushed once there is access again."""
    installation, target = platform.installation, platform.server.target
    path = installation.platform / FILE_NAME
    async with await Registry.open(path) as registry:
        await fetch_one(registry.database, "PRAGMA busy_timeout=0")  # not five seconds
        with capture_logs() as logs:
            work = run_provisioning(installation, target, registry)
            async with running(work) as task:
                with locked(path, "UPDATE claims SET wanted = wanted + 1"):
                    await until_said(logs, "claims_wait", task)
                await until_empty(path, "SELECT 1 FROM claims WHERE pushed < wanted")


async def test_a_locked_store_does_not_end_the_purging(
    platform: Platform, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Sealed messages and answered orders are taken off the bus once there is access again."""
    monkeypatch.setattr(config_service, "_PURGE_AGAIN_SECONDS", 0.02)
    path = platform.installation.platform / CONFIG_FILE
    store = await ConfigStore.open(path)
    await fetch_one(store.database, "PRAGMA busy_timeout=0")
    bus = await platform.bus(Role.CONFIG)
    for row in (
        "INSERT INTO purges VALUES ('acme-1', 'main', 1)",
        "INSERT INTO withdrawals VALUES ('acme-1', 1, 1)",
    ):
        handler = ConfigHandler(store, bus, Owners())
        async with contextlib.AsyncExitStack() as stack:
            with capture_logs() as logs, locked(path, row):
                task = await stack.enter_async_context(running(handler.run()))
                await until_said(logs, "purge_waits", task)
            await until_empty(path, f"SELECT 1 FROM {row.split()[2]}")  # noqa: S608 (our own two)
    await store.close()
