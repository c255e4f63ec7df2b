"""One platform, one server, one made-up provider and the real OpenClaw, for a whole module."""

import asyncio
import contextlib
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from pathlib import Path

import aiohttp
import pytest
import pytest_asyncio

from bus_schemas.api import SlotStep
from platform_handlers.demo.stage import free_port
from tests.openclaw.installed import OpenClaw
from tests.openclaw.owned import Owned
from tests.provider.server import FakeProvider
from vps_runtime.openclaw.link import Connection, Target, connected

GRACE_SECONDS = 3.0
"""A turn with the made-up provider takes one second, most of it after its call."""


@dataclass
class Cast:
    """All that plays along."""

    owned: Owned
    provider: FakeProvider
    openclaw: OpenClaw
    gateway_port: int
    client: aiohttp.ClientSession
    keys: list[str] = field(default_factory=list)
    """Every key that the owner ever sealed, the newest last."""

    async def rotate(self, slot: str, base_url: str = "") -> int:
        """Seal a new key for *slot*, called like its provider, and wait until it may be used.

        Return its revision.
        """
        key = f"made-up-key-of-{slot}-{len(self.keys):03}-0123456789abcdef0123456789"
        self.keys.append(key)
        self.provider.accept(key)
        revision = await self.owned.seal(slot, slot, key, base_url or self.provider.base_url)
        rotation = await self.owned.step(slot, revision, SlotStep.VERIFIED, SlotStep.REJECTED)
        assert any(step.promoted for step in rotation.steps), rotation
        return revision

    @contextlib.asynccontextmanager
    async def talking(self) -> AsyncIterator[Connection]:
        """Connect to OpenClaw as whoever uses the agent."""
        target = Target(self.openclaw.url, self.openclaw.token_file)
        async with connected(self.client, target) as connection:
            listening = asyncio.create_task(connection.listen())
            try:
                yield connection
            finally:
                listening.cancel()
                await asyncio.gather(listening, return_exceptions=True)

    def served(self, since: int) -> list[str | None]:
        """Return the keys of the chats that the provider was asked for from call *since* on."""
        return [call.key for call in self.provider.calls[since:] if call.method == "POST"]


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def cast(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Cast]:
    """Start platform, server and provider. OpenClaw is configured and started by each test."""
    folder: Path = tmp_path_factory.mktemp("openclaw")
    openclaw = OpenClaw(folder / "agent", free_port())
    gateway_port = free_port()
    options = (
        *("--gateway-port", str(gateway_port), "--health-seconds", "2"),
        *("--openclaw-url", openclaw.url, "--openclaw-token-file", str(openclaw.token_file)),
        *("--openclaw-grace", str(GRACE_SECONDS), "--exec-slot", "groq"),
    )
    owned = Owned(folder, options)
    async with FakeProvider().serving() as provider, aiohttp.ClientSession() as client:
        try:
            await owned.open()
            yield Cast(owned, provider, openclaw, gateway_port, client)
        finally:
            openclaw.stop()
            owned.close()
