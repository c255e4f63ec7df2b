"""The demo's processes: each part of the system runs as what it is, a program of its own."""

import asyncio
import contextlib
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeVar

from bus_schemas.errors import ByokError

_T = TypeVar("_T")
_POLL_SECONDS = 0.02
_STOP_SECONDS = 10.0
_COMMAND_SECONDS = 60.0
_FACT_SECONDS = 30.0

PLATFORM = "platform_handlers"
VPS = "vps_runtime"


class DemoFailed(ByokError):
    """Something the demo relies on did not happen; the message says what and where to look."""


@dataclass
class Stage:
    """A folder, and the processes that were started for it."""

    folder: Path
    processes: dict[str, subprocess.Popen[bytes]] = field(default_factory=dict)
    arguments: dict[str, tuple[str, ...]] = field(default_factory=dict)

    def log(self, name: str) -> Path:
        """Return where the process *name* writes."""
        return self.folder / "logs" / f"{name}.log"

    def start(self, name: str, *arguments: str) -> None:
        """Start `python -m *arguments*` in the background as *name*."""
        self.arguments[name] = arguments
        log = self.log(name)
        log.parent.mkdir(parents=True, exist_ok=True)
        with log.open("ab") as sink:
            self.processes[name] = subprocess.Popen(  # noqa: S603 (our own commands)
                [sys.executable, "-m", *arguments],
                stdin=subprocess.DEVNULL,
                stdout=sink,
                stderr=sink,
                env=_environment(),
                start_new_session=True,  # Ctrl-C reaches the demo alone, which stops them in order
            )

    def restart(self, name: str) -> None:
        """Start a process that has ended once more."""
        self.start(name, *self.arguments[name])

    def kill(self, name: str) -> None:
        """End *name* as a power cut would (SIGKILL)."""
        self.processes[name].kill()
        self.processes[name].wait()

    async def command(self, *arguments: str, stdin: str = "") -> str:
        """Run `python -m *arguments*` to its end; return what it printed.

        Raises DemoFailed with its last words.
        """
        process = await asyncio.create_subprocess_exec(
            sys.executable,
            "-m",
            *arguments,
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
            env=_environment(),
        )
        try:
            async with asyncio.timeout(_COMMAND_SECONDS):
                out, err = await process.communicate(stdin.encode())
        except TimeoutError:
            raise DemoFailed(f"{' '.join(arguments[:3])} did not end in time") from None
        finally:
            if process.returncode is None:  # out of time, or we are being cancelled
                process.kill()
                await process.communicate()
        if process.returncode:
            words = (err or out).decode(errors="replace").strip()[-800:]
            raise DemoFailed(f"{' '.join(arguments[:4])} ended with {process.returncode}: {words}")
        return out.decode()

    async def until(
        self, what: str, probe: Callable[[], Awaitable[_T | None]], *, every: float = _POLL_SECONDS
    ) -> _T:
        """Ask *probe* until it gives something. Raises DemoFailed when *what* does not happen."""
        deadline = time.monotonic() + _FACT_SECONDS
        while time.monotonic() < deadline:
            found = await probe()
            if found is not None:
                return found
            self.check()
            await asyncio.sleep(every)
        raise DemoFailed(f"{what} took over {_FACT_SECONDS:.0f} s; see {self.folder}/logs")

    def check(self) -> None:
        """Raise DemoFailed if a process has ended by itself."""
        for name, process in self.processes.items():
            if process.poll() is not None:
                tail = self.log(name).read_text(errors="replace")[-800:]
                raise DemoFailed(f"{name} ended with {process.returncode}:\n{tail}")

    def stop(self) -> None:
        """Ask all processes to end, the last started first, and wait for them."""
        for process in reversed(self.processes.values()):
            with contextlib.suppress(ProcessLookupError):
                process.send_signal(signal.SIGTERM)
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(_STOP_SECONDS)
                continue
            process.kill()
            process.wait()
        self.processes.clear()


def free_port() -> int:
    """Return a port that was free just now; a fixed one lets clients find a restarted server."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port: int = listener.getsockname()[1]
        return port


def _environment() -> dict[str, str]:
    """Return the environment without settings that would lead a process elsewhere."""
    return {
        name: value
        for name, value in os.environ.items()
        if not name.startswith("BYOK_") or name == "BYOK_LOG_LEVEL"
    }
