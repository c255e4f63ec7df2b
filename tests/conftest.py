"""Fixtures for every test that needs a real bus: nats-server with TLS, our own configuration."""

import time
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest

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

pytest_plugins = ("tests.claims",)


@dataclass
class Platform:
    """A fresh installation: nats-server runs, the streams are made, servers' facts are taken in."""

    installation: Installation
    server: NatsServer
    later: float = 0.0
    """Seconds by which the intake's clock is put forward."""
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

    async def close(self) -> None:
        """Close what was opened, then stop the server."""
        for bus in self._open:
            await bus.close()
        self.server.stop()


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
        clock = lambda: time.monotonic() + running.later  # noqa: E731 (one line, used once)
        await Intake(await running.bus(Role.INTAKE), clock).listen()
        yield running
    finally:
        await running.close()
