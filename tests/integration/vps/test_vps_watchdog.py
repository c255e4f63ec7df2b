"""The agent as systemd sees it."""

import asyncio
import os
import sys
import time
from pathlib import Path

from bus_schemas.orders import Addressee
from bus_schemas.transport.pulse import Pulse
from bus_schemas.transport.service_manager import ServiceManager
from platform_handlers.config.orders.lock import lock_server
from tests.integration.vps.conftest import Agent, Fleet, api_key
from tests.listening import listening
from tests.system.secrets_hunt import hits
from vps_runtime.agent import AgentOptions, Ending, _until_locked
from vps_runtime.gateway.server import GatewayOptions

_BOUND_SECONDS = 20.0
SECRET = "sk-ant-api03-status-line-canary"


async def test_systemd_hears_of_the_agents_work_and_of_nothing_secret(fleet: Fleet) -> None:
    """Ready once it is unlocked, pings while it works, silence when the disk hangs.

    A disk that hangs is a pins file that never gives a byte.
    """
    state = await fleet.enrol("acme-1")
    secrets = [SECRET, *(p.read_text("latin-1") for p in state.root.iterdir() if p.is_file())]
    with listening(str(fleet.folder / "notify")) as systemd:
        log = fleet.folder / "agent.log"
        with log.open("wb") as sink:
            process = await asyncio.create_subprocess_exec(
                *(sys.executable, "-m", "vps_runtime", "run", "--state", str(state.root)),
                *("--health-seconds", "0.1"),
                stderr=sink,
                env={
                    **systemd.environment(watchdog_seconds=1.0),
                    "PYTHONPATH": str(Path(__file__).parents[3]),
                },
            )
        fleet.agents.append(Agent(process, log))
        ready = await asyncio.to_thread(systemd.until, "READY=1")
        assert ready == "READY=1\nSTATUS=acme-1 is unlocked (start 1), 0 slots held"
        assert systemd.heard[0] == "STATUS=waiting for the platform"
        for _ in range(3):
            assert await asyncio.to_thread(systemd.next) == "WATCHDOG=1"
        envelope = await fleet.seal("acme-1", payload=api_key(SECRET))
        state.pins.unlink()
        os.mkfifo(state.pins)
        await fleet.send(envelope)
        async with asyncio.timeout(_BOUND_SECONDS):
            while not await asyncio.to_thread(systemd.silent_for, 2.0):  # two periods
                assert process.returncode is None
        assert hits("systemd", "\n".join(systemd.heard).encode(), secrets) == []


async def test_systemd_hears_that_the_agent_stops(fleet: Fleet) -> None:
    """A stop that was asked for is said before the work ends."""
    state = await fleet.enrol("acme-1")
    with listening(str(fleet.folder / "notify")) as systemd:
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "vps_runtime", "run", "--state", str(state.root)),
            stderr=asyncio.subprocess.DEVNULL,
            env={**systemd.environment(60.0), "PYTHONPATH": str(Path(__file__).parents[3])},
        )
        fleet.agents.append(Agent(process, fleet.folder / "none"))
        await asyncio.to_thread(systemd.until, "READY=1")
        process.terminate()
        assert await asyncio.to_thread(systemd.until, "STOPPING=1") == "STOPPING=1"
        assert await process.wait() == 0


async def essential(pulse: Pulse, clock: "Clock", wanted: str) -> set[str]:
    """Wait until *wanted* is watched; return the names of all that is."""
    async with asyncio.timeout(_BOUND_SECONDS):
        while True:
            clock.ahead = 1e6  # by now everybody is late
            found = set(pulse.stuck())
            clock.ahead = 0.0
            if wanted in found:
                return found
            await asyncio.sleep(0.02)


class Clock:
    """A clock that can be put forward."""

    ahead = 0.0

    def __call__(self) -> float:
        """Return the time."""
        return time.monotonic() + self.ahead


async def test_every_loop_of_the_agent_is_watched_locked_or_not(fleet: Fleet) -> None:
    """A locked agent whose orders hang could never be unlocked, and nobody would start it anew."""
    state = await fleet.enrol("acme-1")
    to = Addressee("acme", "acme-1", state.read_identity().public_key)
    installation, target = fleet.platform.installation, fleet.platform.server.target
    options = AgentOptions(gateway=GatewayOptions(port=0))
    clock = Clock()
    pulse = Pulse(ServiceManager(), clock)
    with pulse.watching():
        agent = asyncio.create_task(_until_locked(state, options))
        unlocked = await essential(pulse, clock, "reconciler")
        assert unlocked == {
            *("announcer", "gateway", "health", "link", "orders", "outbox", "pins"),
            *("reconciler", "refresher", "rotator"),
        }
        locking = asyncio.create_task(lock_server(installation, target, to))
        assert await asyncio.wait_for(agent, _BOUND_SECONDS) is Ending.LOCKED
        agent = asyncio.create_task(_until_locked(state, options))
        locked = await essential(pulse, clock, "orders")
        assert locked == {"gateway", "health", "link", "orders", "outbox"}
        assert (await locking).locked
        agent.cancel()
        await asyncio.wait({agent})
