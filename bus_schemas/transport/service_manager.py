"""What a service tells systemd: ready, still working, stopping, and one line about its state.

The protocol is a datagram to the socket that `NOTIFY_SOCKET` names: sd_notify(3). Without that
variable nobody listens and nothing is sent.
"""

import contextlib
import os
import socket
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Self

_MICRO = 1_000_000


@dataclass
class ServiceManager:
    """Whoever started this process and wants to hear from it; it may be nobody."""

    address: str = ""
    """A path, or `@` and a name in Linux's abstract namespace; empty: nobody listens."""
    watchdog_seconds: float | None = None
    """So long without a `ping` and the process is killed and started anew; None: for ever."""
    starting: bool = True
    """Until `ready`, a ping also asks for more time to start."""

    @classmethod
    def of(cls, environment: Mapping[str, str], pid: int) -> Self:
        """Read what systemd said to process *pid* (sd_watchdog_enabled(3))."""
        address = environment.get("NOTIFY_SOCKET", "")
        if not address.startswith(("/", "@")):
            return cls()
        period = environment.get("WATCHDOG_USEC", "")
        ours = environment.get("WATCHDOG_PID", str(pid)) == str(pid)
        seconds = int(period) / _MICRO if ours and period.isdecimal() and int(period) else None
        return cls(address, seconds)

    def ready(self, status: str) -> None:
        """Say that the service serves, and in one line how."""
        self.starting = False
        self._send("READY=1", _status(status))

    def status(self, status: str) -> None:
        """Say in one line what the service does. Anybody may read it: ids and numbers only."""
        self._send(_status(status))

    def stopping(self) -> None:
        """Say that the end was asked for."""
        self._send("STOPPING=1")

    def ping(self) -> None:
        """Say that work goes on; while the service starts, that it may take longer."""
        more = int(_MICRO * (self.watchdog_seconds or 0)) if self.starting else 0
        self._send("WATCHDOG=1", *([f"EXTEND_TIMEOUT_USEC={more}"] if more else []))

    def _send(self, *lines: str) -> None:
        if not self.address:
            return
        address = f"\0{self.address[1:]}" if self.address[0] == "@" else self.address
        # Never wait and never fail for it: a full or closed socket is systemd's trouble. A missed
        # ping is followed by the next one.
        with (
            socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as outlet,
            contextlib.suppress(OSError),
        ):
            outlet.sendto("\n".join(lines).encode(), socket.MSG_DONTWAIT, address)


def from_environment() -> ServiceManager:
    """Return the service manager of this process."""
    return ServiceManager.of(os.environ, os.getpid())


def _status(text: str) -> str:
    return f"STATUS={' '.join(text.split())}"
