"""The made-up provider as a process of its own, and a handle on it for tests that have no loop."""

import json
import subprocess
import sys
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

_ROOT = Path(__file__).resolve().parents[2]
_ENDING_SECONDS = 10


class ProviderProcess:
    """A running `python -m tests.provider`; the methods call its control interface."""

    def __init__(self, process: "subprocess.Popen[str]", origin: str) -> None:
        self.process = process
        self.origin = origin

    @property
    def base_url(self) -> str:
        """What a credential is sealed with."""
        return f"{self.origin}/v1"

    def accept(self, key: str, **behaviour: object) -> None:
        """Know *key*; *behaviour* are fields of `Behaviour`."""
        self._control("accept", {"key": key, "behaviour": behaviour})

    def kill(self, key: str) -> None:
        """Revoke *key*."""
        self._control("kill", {"key": key})

    def hold_heads(self, key: str) -> None:
        """Let calls with *key* wait before their head until `release`."""
        self._control("hold", {"key": key})

    def release(self, key: str) -> None:
        """Let them go on."""
        self._control("release", {"key": key})

    def calls(self, since: int = 0) -> list[dict[str, Any]]:
        """Return the calls but the first *since*: the fields of `Call`."""
        found = self._control(f"calls?since={since}")
        assert isinstance(found, list)
        return found

    def _control(self, verb: str, wish: object = None) -> object:
        body = None if wish is None else json.dumps(wish).encode()
        request = urllib.request.Request(f"{self.origin}/control/{verb}", data=body)  # noqa: S310
        with urllib.request.urlopen(request, timeout=10) as answer:  # noqa: S310 (loopback)
            return json.load(answer)


@contextmanager
def provider_process(port: int = 0, *, accepts_all: bool = False) -> Iterator[ProviderProcess]:
    """Start one and end it; port 0 takes a free one."""
    command = [sys.executable, "-m", "tests.provider", "--port", str(port)]
    command += ["--accepts-all"] if accepts_all else []
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=_ROOT)
    try:
        assert process.stdout is not None
        line = process.stdout.readline()  # its own word that it listens
        assert line.startswith("ready "), line
        yield ProviderProcess(process, line.split()[1])
    finally:
        process.terminate()
        process.wait(_ENDING_SECONDS)
        if process.stdout is not None:
            process.stdout.close()
