"""The CA has expired: nobody gets in over TLS, and yet it can be changed without a restart."""

import asyncio
import os
import signal
import sys
import time
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from bus_schemas.flows import Role
from bus_schemas.transport.target import BusDenied
from platform_handlers.authority.initialise import InitPlan, initialise
from platform_handlers.authority.installation import Installation
from platform_handlers.authority.role_bus import role_bus
from platform_handlers.authority.server_conf import BusAddress
from platform_handlers.settings import Settings
from tests.expired import expire

_BOUND_SECONDS = 30


async def start(installation: Installation, *words: str) -> asyncio.subprocess.Process:
    """Start `byok *words*`."""
    return await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "platform_handlers", "--state", str(installation.root), *words),
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
        env={**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])},
    )


async def byok(installation: Installation, *words: str) -> tuple[int | None, str]:
    """Run `byok *words*` to its end."""
    process = await start(installation, *words)
    async with asyncio.timeout(_BOUND_SECONDS):
        said, _ = await process.communicate()
    return process.returncode, said.decode()


@pytest.fixture
async def running(tmp_path: Path) -> AsyncIterator[Installation]:
    """An installation whose bus runs, as operators run it."""
    plan = InitPlan(BusAddress("127.0.0.1", -1))
    installation = initialise(tmp_path / "byok", plan, now=int(time.time()))
    process = await start(installation, "nats", "run")
    assert process.stdout is not None
    async with asyncio.timeout(_BOUND_SECONDS):
        assert b"listens on tls://" in await process.stdout.readline()
        yield installation
        process.send_signal(signal.SIGTERM)
        await process.communicate()


async def test_an_expired_ca_is_changed_without_a_restart(running: Installation) -> None:
    """No connection can ask nats-server to reload; `byok nats run` sees the new files itself."""
    target = Settings(running.root).target()
    expire(running)
    with pytest.raises(BusDenied, match="certificate has expired"):
        await role_bus(running, target, Role.OPS).open()
    code, said = await byok(running, "ca", "renew")
    assert (code, "ca_expired" in said) == (77, True)
    assert (await byok(running, "ca", "add"))[0] == 0
    code, said = await byok(running, "ca", "use")
    assert (code, "nats-server shows it." in said) == (0, True), said
    await (await role_bus(running, target, Role.OPS).open()).close()
    assert (await byok(running, "ca", "retire"))[0] == 0
    await (await role_bus(running, target, Role.OPS).open()).close()
