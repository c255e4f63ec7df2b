"""Fixtures for every test that needs a real bus: nats-server with TLS, our own configuration."""

import logging
import time
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest
import structlog

from bus_schemas.flows import Role
from bus_schemas.transport.connection import Bus
from bus_schemas.transport.credentials import parse_credentials
from platform_handlers.authority.accounts import user_credentials
from platform_handlers.authority.initialise import InitPlan, initialise
from platform_handlers.authority.installation import Installation
from platform_handlers.authority.nats_process import NatsServer, start_nats_server
from platform_handlers.authority.server_conf import BusAddress
from platform_handlers.authority.streams import make_streams
from platform_handlers.intake.handler import Intake
from platform_handlers.intake.starts import RatchetStarts

pytest_plugins = ("tests.claims",)


@dataclass
class Platform:
    """A fresh installation: nats-server runs, the streams are made, servers' facts are taken in."""

    installation: Installation
    server: NatsServer
    later: float = 0.0
    """Seconds by which the intake's clock is put forward."""
    starts: int = 100_000
    """How often servers were started that no evaluator has a ratchet of: most tests need none."""
    _open: list[Bus] = field(default_factory=list)

    async def bus(self, role: Role, name: str | None = None, *, tags: tuple[str, ...] = ()) -> Bus:
        """Connect as *role*: platform roles by their file, all others as a new user *name*."""
        if name is None:
            credentials = parse_credentials(self.installation.credentials(role).read_text())
        else:
            credentials = user_credentials(
                self.installation, role, name, now=int(time.time()), tags=tags
            )
        user = name or role.value
        bus = await Bus(self.server.target, user, lambda: credentials, api=role.api).open()
        self._open.append(bus)
        return bus

    async def take_facts(self) -> None:
        """Run an intake from now on."""
        bus = await self.bus(Role.INTAKE)
        starts = PretendedStarts(RatchetStarts(bus), self)
        await Intake(bus, starts, lambda: time.monotonic() + self.later).listen()

    async def close(self) -> None:
        """Close what was opened, then stop the server."""
        for bus in self._open:
            await bus.close()
        self.server.stop()


@dataclass(frozen=True)
class PretendedStarts:
    """The real ones; of a server that has none, as many as the platform under test pretends."""

    real: RatchetStarts
    platform: Platform

    async def newest(self, server_id: str) -> int:
        """Return the number of a server's newest start (`Starts`)."""
        return await self.real.newest(server_id) or self.platform.starts


@pytest.fixture(autouse=True)
def _own_logs() -> Iterator[None]:
    """Leave logging as it was: a command that ran in this process has set it up for itself."""
    root = logging.getLogger()
    configured, before = structlog.is_configured(), structlog.get_config()
    level, handlers = root.level, list(root.handlers)
    yield
    root.setLevel(level)
    root.handlers[:] = handlers
    if configured:
        structlog.configure(**before)
    else:
        structlog.reset_defaults()


@pytest.fixture
def installation(tmp_path: Path) -> Installation:
    """A fresh installation whose nats-server will choose a free port."""
    plan = InitPlan(BusAddress("127.0.0.1", -1))
    return initialise(tmp_path / "byok", plan, now=int(time.time()))


@pytest.fixture
async def platform(installation: Installation, tmp_path: Path) -> AsyncIterator[Platform]:
    """A running bus, exactly as the demo and production configure it."""
    server = await start_nats_server(installation, log=tmp_path / "nats-server.log")
    running = Platform(installation, server)
    try:
        await make_streams(await running.bus(Role.SETUP))
        await running.take_facts()
        yield running
    finally:
        await running.close()
