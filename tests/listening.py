"""A service manager for tests: the socket that systemd would hold, and what is said to it."""

import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field


@dataclass
class Listening:
    """The socket, where it is, and every datagram taken from it so far."""

    inlet: socket.socket
    address: str
    heard: list[str] = field(default_factory=list)

    def environment(self, watchdog_seconds: float) -> dict[str, str]:
        """Return the environment that makes a process speak to us."""
        period = str(int(watchdog_seconds * 1_000_000))
        return {**os.environ, "NOTIFY_SOCKET": self.address, "WATCHDOG_USEC": period}

    def next(self, wait: float = 20.0) -> str:
        """Return the next datagram. Raises TimeoutError after *wait* seconds."""
        self.inlet.settimeout(wait)
        self.heard.append(self.inlet.recv(4096).decode())
        return self.heard[-1]

    def until(self, word: str) -> str:
        """Return the next datagram that has the line *word*, or one that begins like it."""
        while True:
            said = self.next()
            if any(line.startswith(word) for line in said.splitlines()):
                return said

    def silent_for(self, seconds: float) -> bool:
        """Take what is waiting; whether then nothing comes for so long."""
        self.inlet.settimeout(0)
        try:
            while True:
                self.heard.append(self.inlet.recv(4096).decode())
        except BlockingIOError:
            pass
        try:
            self.next(seconds)
        except TimeoutError:
            return True
        return False


@contextmanager
def listening(address: str) -> Iterator[Listening]:
    """Hold the socket at *address*: a path, or `@name` in the abstract namespace."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as inlet:
        inlet.bind(f"\0{address[1:]}" if address.startswith("@") else address)
        yield Listening(inlet, address)
