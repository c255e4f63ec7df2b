"""Our own contestant: `byok-vps run` as it is, on a platform of its own, with a sealed key."""

import contextlib
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import aiohttp

from benchmarks.gateway.proxies import CHAT, Way
from benchmarks.gateway.talk import KEY
from platform_handlers.demo.stage import PLATFORM, VPS, Stage
from platform_handlers.demo.story import Story
from vps_runtime.state import StateFolder

_OWNER: Final = "bench"
_SERVER: Final = "bench-1"
_SLOT: Final = "openai"
_OK: Final = 200


@dataclass
class Byok:
    """A platform, an owner and a server: each a process of its own."""

    stage: Stage
    story: Story

    @property
    def state(self) -> StateFolder:
        """The server's folder."""
        return StateFolder(self.story.server_folder(_SERVER))

    @property
    def pid(self) -> int:
        """The runtime's process."""
        return self.stage.processes[_SERVER].pid

    async def enrol(self) -> str:
        """Make the owner and the server, and start it; return its key's fingerprint."""
        platform = (PLATFORM, "--state", str(self.story.installation.root))
        home = ("--home", str(self.story.owner_folder(_OWNER)))
        token = await self.stage.command(*platform, "owner", "add", _OWNER)
        await self.stage.command(PLATFORM, "owner", "keygen", *home)
        url = self.story.installation.api_url.read_text().strip()
        ca = ("--ca", str(self.story.installation.ca))
        await self.stage.command(PLATFORM, "owner", "connect", url, *ca, *home, stdin=token)
        said = await self.stage.command(PLATFORM, "owner", "fingerprint", *home)
        token = await self.stage.command(*platform, "server", "add", _OWNER, _SERVER)
        folder = ("--state", str(self.state.root))
        typed = ("--owner", said.split()[-1], "--token-file", "-")
        await self.stage.command(VPS, "join", *folder, *typed, stdin=token)
        self.stage.start(_SERVER, VPS, "run", *folder, "--gateway-port", "0")
        return (await self.stage.command(VPS, "fingerprint", *folder)).split()[-1]

    async def unlocked(self) -> None:
        """Wait until the runtime has unlocked and listens."""
        await self.stage.until("the gateway's start", self._listening)

    async def give_key(self, fingerprint: str, provider: int) -> Way:
        """Seal the provider's key for the server; return the way once it leads to an answer."""
        await self.stage.command(
            PLATFORM, "key", "set", _SERVER, _SLOT,
            "--provider", _SLOT, "--base-url", f"http://127.0.0.1:{provider}",
            "--server-fingerprint", fingerprint,
            "--home", str(self.story.owner_folder(_OWNER)),
            stdin=KEY,
        )  # fmt: skip
        port = int(self.state.gateway_url.read_text().strip().rpartition(":")[2])
        token = self.state.agent_token.read_text().strip()
        way = Way("byok", port, f"/{_SLOT}{CHAT}", token, self.pid)

        async def answered() -> bool | None:
            headers = {"Authorization": f"Bearer {token}"}
            url = f"http://127.0.0.1:{port}/{_SLOT}/v1/models"
            async with aiohttp.request("GET", url, headers=headers) as answer:
                return answer.status == _OK or None

        await self.stage.until("the first answer through the gateway", answered)
        return way

    async def _listening(self) -> bool | None:
        return self.state.gateway_url.exists() or None


@contextlib.asynccontextmanager
async def byok(folder: Path) -> AsyncIterator[Byok]:
    """Start the platform."""
    stage = Stage(folder)
    running = Byok(stage, Story(stage, lambda _text: None))
    try:
        await running.story.open_platform()
        yield running
    finally:
        await running.story.close()
