"""A wrong JetStream key: `byok nats run` makes nothing, so nothing is lost."""

import asyncio
import os
import signal
import sys
import time
from pathlib import Path

import pytest

from bus_schemas.errors import Refused
from bus_schemas.finding import Grade
from bus_schemas.flows import Role
from bus_schemas.streams import STREAMS
from bus_schemas.transport.jetstream import stream_state
from bus_schemas.transport.target import BusTarget
from platform_handlers.authority.initialise import InitPlan, initialise
from platform_handlers.authority.installation import Installation
from platform_handlers.authority.nats_process import start_nats_server
from platform_handlers.authority.role_bus import role_bus
from platform_handlers.authority.server_conf import BusAddress, jetstream_key_configuration
from platform_handlers.authority.store import check_store, stored_streams
from platform_handlers.authority.streams import make_streams
from platform_handlers.doctor.examine import examine

_BOUND_SECONDS = 30


async def nats_run(installation: Installation) -> tuple[int | None, str]:
    """Run `byok nats run` until it listens, then stop it; return its exit code and its words."""
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "platform_handlers"),
        *("--state", str(installation.root), "nats", "run"),
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
        env={**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])},
    )
    assert process.stdout is not None
    async with asyncio.timeout(_BOUND_SECONDS):
        if await process.stdout.readline():
            process.send_signal(signal.SIGTERM)
        _, said = await process.communicate()
    return process.returncode, said.decode()


async def doctor(installation: Installation) -> list[str]:
    """Return what `byok doctor` says is bad, while nothing runs."""
    target = BusTarget(installation.bus_url.read_text().strip(), installation.ca)
    found = await examine(installation, target)
    return [f"{f.check}: {f.detail}" for f in found if f.grade is Grade.BAD]


async def created(installation: Installation, log: Path) -> list[str]:
    """Return when each stream was made."""
    server = await start_nats_server(installation, log=log)
    bus = await role_bus(installation, server.target, Role.SETUP).open()
    try:
        return [(await stream_state(bus, stream.name)).created for stream in STREAMS]
    finally:
        await bus.close()
        server.stop()


async def test_no_empty_stream_is_made_over_one_that_cannot_be_opened(tmp_path: Path) -> None:
    """However often it is tried: with the right key everything is there again."""
    plan = InitPlan(BusAddress("127.0.0.1", -1))
    installation = initialise(tmp_path / "byok", plan, now=int(time.time()))
    assert await nats_run(installation) == (0, "")
    before = await created(installation, tmp_path / "log")
    stored = stored_streams(installation)
    assert stored == {stream.name for stream in STREAMS}
    key = installation.nats / "jetstream-key.conf"
    right = key.read_text()
    key.write_text(jetstream_key_configuration("another key"))
    for _ in range(2):
        code, said = await nats_run(installation)
        assert (code, said.count("\n")) == (78, 1)
        assert said.startswith("byok: store_locked: nats-server cannot open BYOK_CONFIG, ")
        assert "put the right key back" in said
        assert stored_streams(installation) == stored
        [line] = [line for line in await doctor(installation) if line.startswith("bus: ")]
        assert line.endswith(f"; the last `byok nats run` ended with {said[6:-1]}")
    key.write_text(right)
    assert await nats_run(installation) == (0, "")
    [line] = [line for line in await doctor(installation) if line.startswith("bus: ")]
    assert line.endswith("(it says why if it does not stay), or open the way to it")
    assert await created(installation, tmp_path / "log") == before


async def test_what_nats_server_itself_would_do(tmp_path: Path) -> None:
    """Why it is never asked: the attempt fails, and takes the old stream away with it."""
    plan = InitPlan(BusAddress("127.0.0.1", -1))
    installation = initialise(tmp_path / "byok", plan, now=int(time.time()))
    assert (await nats_run(installation))[0] == 0
    key = installation.nats / "jetstream-key.conf"
    key.write_text(jetstream_key_configuration("another key"))
    server = await start_nats_server(installation, log=tmp_path / "log")
    bus = await role_bus(installation, server.target, Role.SETUP).open()
    try:
        with pytest.raises(Refused, match="store_locked"):
            await check_store(installation, bus)
        with pytest.raises(Exception, match="10049"):
            await make_streams(bus)
    finally:
        await bus.close()
        server.stop()
    assert len(stored_streams(installation)) == len(STREAMS) - 1
