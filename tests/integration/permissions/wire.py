"""A NATS client of one screen, over TLS and a blocking socket, that says exactly what it is told.

nats-py lower-cases errors, checks subjects and adds headers of its own. Here every byte is the
test's, and a PING is a barrier: nats-server handles what one connection sends in order, and hands
a message to its hearers before it reads the next one. So after the PONG every refusal is in, and
after a PONG to the hearer every message; nothing has to be waited for.
"""

import base64
import contextlib
import json
import re
import socket
import ssl
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any, Self
from urllib.parse import urlsplit

from bus_schemas.transport.credentials import Credentials
from bus_schemas.transport.target import BusTarget, tls_context

_SECONDS = 10.0
_REFUSED = re.compile(
    rb'Permissions Violation for (?:Publish to|Publish with Reply of|Subscription to) "([^"]*)"'
)
_AT_ONCE = 200
"""Messages between two barriers, so that neither side's buffers fill up."""


class SignInRefusedError(Exception):
    """nats-server ended the connection instead of letting the user in; says with which words."""


@dataclass(frozen=True)
class Heard:
    """A message as it came."""

    subject: str
    reply: str
    headers: bytes
    body: bytes

    def header(self, name: str) -> str | None:
        """Return the last value of header *name*."""
        values = re.findall(rb"(?m)^%s: ?(.*?)\r$" % name.encode(), self.headers)
        return values[-1].decode(errors="replace") if values else None

    @property
    def status(self) -> str:
        """The status that nats-server put into the header's first line, "" if none."""
        return self.headers[9:12].decode(errors="replace").strip()

    @property
    def answer(self) -> dict[str, Any]:
        """The body as JSON."""
        found: dict[str, Any] = json.loads(self.body)
        return found


@dataclass(frozen=True)
class Sent:
    """A message to send; *headers* are lines of `Name: value`."""

    subject: str
    body: bytes = b""
    reply: str = ""
    headers: tuple[str, ...] = ()

    def protocol(self) -> bytes:
        """Return the PUB or HPUB of the client protocol."""
        head = f"{self.subject} {self.reply}".rstrip().encode()
        if not self.headers:
            return b"PUB %s %d\r\n%s\r\n" % (head, len(self.body), self.body)
        block = "".join(f"{line}\r\n" for line in ("NATS/1.0", *self.headers, "")).encode()
        sizes = b"%d %d" % (len(block), len(block) + len(self.body))
        return b"HPUB %s %s\r\n%s%s\r\n" % (head, sizes, block, self.body)


@dataclass
class Wire:
    """One signed-in connection."""

    name: str
    _socket: ssl.SSLSocket
    _unread: bytearray = field(default_factory=bytearray)
    _at: int = 0
    heard: list[Heard] = field(default_factory=list)
    errors: list[bytes] = field(default_factory=list)
    _subscriptions: int = 0

    @classmethod
    def open(
        cls, target: BusTarget, credentials: Credentials, name: str = "", **connect: object
    ) -> Self:
        """Sign in. Raises SignInRefusedError. *connect* replaces fields of CONNECT."""
        address = urlsplit(target.url)
        plain = socket.create_connection((address.hostname, address.port), _SECONDS)
        plain.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        context = tls_context(target.ca_file)
        wire = cls(name, context.wrap_socket(plain, server_hostname=address.hostname))
        info = json.loads(wire._line().removeprefix(b"INFO "))
        signature = base64.urlsafe_b64encode(credentials.sign(info["nonce"].encode()))
        words = {
            "jwt": credentials.jwt,
            "sig": signature.decode().rstrip("="),
            "verbose": False,
            "pedantic": False,
            "headers": True,
            "no_responders": True,
            "lang": "test",
            "version": "1",
            "protocol": 1,
        } | connect
        try:
            wire.say(b"CONNECT %s\r\n" % json.dumps(words).encode())
            wire.barrier()
        except OSError:
            wire.close()
            raise SignInRefusedError(b" ".join(wire.errors).decode()) from None
        return wire

    def close(self) -> None:
        """Close the connection."""
        self._socket.close()

    def say(self, protocol: bytes) -> None:
        """Send bytes as they are."""
        self._socket.sendall(protocol)

    def barrier(self) -> None:
        """Return when the server has done all that was said, and told us all there was to tell."""
        self.say(b"PING\r\n")
        while not self._take():
            pass

    def listen(self, subject: str, queue: str = "") -> None:
        """Subscribe; the server knows when this returns."""
        self._subscriptions += 1
        words = f"SUB {subject} {queue} {self._subscriptions}" if queue else ""
        self.say((words or f"SUB {subject} {self._subscriptions}").encode() + b"\r\n")
        self.barrier()

    def until_ended(self) -> None:
        """Return when the server has ended the connection. Raises TimeoutError."""
        with contextlib.suppress(ConnectionError, ssl.SSLError):
            while True:
                self._take()

    def refused_subscriptions(self, subjects: Sequence[str], queue: str = "") -> set[str]:
        """Try to subscribe to each of *subjects*, one at a time, and return those refused."""
        words = (f"{subject} {queue}".rstrip() for subject in subjects)
        return self._refused([f"SUB {w} 9\r\nUNSUB 9\r\n".encode() for w in words])

    def refused(self, messages: Iterable[Sent]) -> set[str]:
        """Send all of *messages* and return the subjects that nats-server refused."""
        return self._refused([message.protocol() for message in messages])

    def send(self, *messages: Sent) -> None:
        """Send *messages*, none of which may be refused."""
        assert self.refused(messages) == set()

    def answers(self, *messages: Sent) -> list[Heard]:
        """Send each of *messages* from an inbox of its own and return the answers, in order."""
        self._subscriptions += 1
        inbox, sid = f"_INBOX.{self.name}.{self._subscriptions}", self._subscriptions
        self.say(f"SUB {inbox}.* {sid}\r\n".encode())
        for n, asked in enumerate(messages):
            sent = Sent(asked.subject, asked.body, f"{inbox}.{n}", asked.headers)
            self.say(sent.protocol())
        found: dict[str, Heard] = {}
        others: list[Heard] = []
        while len(found) < len(messages):
            self._take()
            for message in self.heard:
                if message.subject.startswith(f"{inbox}."):
                    found[message.subject] = message
                else:
                    others.append(message)
            self.heard.clear()
        self.heard = others
        self.say(f"UNSUB {sid}\r\n".encode())
        return [found[f"{inbox}.{n}"] for n in range(len(messages))]

    def take_heard(self) -> list[Heard]:
        """Return what came since the last time, barrier included."""
        self.barrier()
        heard, self.heard = self.heard, []
        return heard

    def until_heard(self, count: int) -> list[Heard]:
        """Return what came, once it is *count* messages. Raises TimeoutError."""
        while len(self.heard) < count:
            self._take()
        return self.take_heard()

    def _refused(self, protocol: Sequence[bytes]) -> set[str]:
        self.errors.clear()
        for start in range(0, len(protocol), _AT_ONCE):
            self.say(b"".join(protocol[start : start + _AT_ONCE]))
            self.barrier()
        found = [_REFUSED.search(error) for error in self.errors]
        assert all(found), self.errors  # an error of another kind proves nothing
        # Go quotes what cannot be seen the way JSON does.
        return {json.loads(b'"%s"' % match[1]) for match in found if match}

    def _take(self) -> bool:
        """Take in one thing the server says; True if it was the PONG."""
        line = self._line()
        if line == b"PONG":
            return True
        if line == b"PING":
            self.say(b"PONG\r\n")
        elif line.startswith(b"-ERR "):
            self.errors.append(line)
        elif line.startswith((b"MSG ", b"HMSG ")):
            self._take_message(line.split())
        return False

    def _take_message(self, words: list[bytes]) -> None:
        sizes = words[-2:] if words[0] == b"HMSG" else [b"0", words[-1]]
        reply = words[3] if len(words) == (6 if words[0] == b"HMSG" else 5) else b""
        headers, total = int(sizes[0]), int(sizes[1])
        whole = self._bytes(total + 2)
        text = (words[1].decode(), reply.decode())
        self.heard.append(Heard(*text, whole[:headers], whole[headers:total]))

    def _line(self) -> bytes:
        while (end := self._unread.find(b"\r\n", self._at)) < 0:
            self._read()
        line, self._at = bytes(self._unread[self._at : end]), end + 2
        return line

    def _bytes(self, size: int) -> bytes:
        while len(self._unread) - self._at < size:
            self._read()
        start, self._at = self._at, self._at + size
        return bytes(self._unread[start : start + size])

    def _read(self) -> None:
        more = self._socket.recv(1 << 16)
        if not more:
            raise ConnectionError("nats-server closed the connection")
        del self._unread[: self._at]
        self._at = 0
        self._unread += more
