"""A gateway in the test's own loop, between a raw socket and a made-up provider."""

import asyncio
import re
import socket
import tempfile
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path

import pytest

from bus_schemas.fields import CredentialKind
from tests.provider.server import FakeProvider
from vps_runtime.gateway.forward import Forwarder
from vps_runtime.gateway.server import Gateway, GatewayOptions
from vps_runtime.gateway.upstream import open_client
from vps_runtime.keys.calls import Calls
from vps_runtime.keys.keyring import KeyInUse
from vps_runtime.local_access import agent_token
from vps_runtime.state import StateFolder

SLOT = "openai"
OLD, NEW = "sk-canary-old-0123456789", "sk-canary-new-0123456789"
_BOUND_SECONDS = 10.0
_CHUNK = re.compile(rb"([0-9a-f]+)\r\n")


@dataclass
class Keys:
    """What may be used, as a test wants it."""

    held: dict[str, KeyInUse] = field(default_factory=dict)

    async def fresh(self, slot_id: str, refused: KeyInUse | None = None) -> KeyInUse | None:
        """Return it, unless it was refused (`gateway.forward.Keys`)."""
        found = self.held.get(slot_id)
        return None if found and refused and found.secret == refused.secret else found

    def current(self, slot_id: str) -> KeyInUse | None:
        """Return it."""
        return self.held.get(slot_id)

    def use(self, base_url: str, secret: str, revision: int = 1, slot_id: str = SLOT) -> None:
        """Bring a key into use."""
        kind = CredentialKind.API_KEY
        self.held[slot_id] = KeyInUse(slot_id, revision, "openai", kind, base_url, "bearer", secret)

    def change(self, slot_id: str = SLOT, **changes: object) -> None:
        """Change fields of a slot's key."""
        self.held[slot_id] = replace(self.held[slot_id], **changes)  # type: ignore[arg-type]


@dataclass(frozen=True)
class Answer:
    """An answer as it was on the wire."""

    status: int
    headers: dict[str, str]
    """Names in lower case."""
    body: bytes
    whole: bool = True
    """Whether it had an end."""


class Wire:
    """One connection, written and read byte by byte: no client decides what is sent."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader = reader
        self.writer = writer

    async def send(self, data: bytes) -> None:
        """Send as it is."""
        self.writer.write(data)
        await self.writer.drain()

    async def head(self) -> tuple[int, dict[str, str]]:
        """Read the head of an answer; an early one (1xx) is an answer, too."""
        async with asyncio.timeout(_BOUND_SECONDS):
            raw = (await self.reader.readuntil(b"\r\n\r\n")).decode("latin-1")
        first, *lines = raw.strip().split("\r\n")
        pairs = [line.partition(": ") for line in lines]
        return int(first.split()[1]), {name.lower(): value for name, _, value in pairs}

    async def answer(self, *, bodiless: bool = False) -> Answer:
        """Read an answer to its end, or to where it was cut."""
        status, headers = await self.head()
        async with asyncio.timeout(_BOUND_SECONDS):
            try:
                body = b"" if bodiless else await self._body(headers)
            except (asyncio.IncompleteReadError, ConnectionError):
                return Answer(status, headers, b"", whole=False)
        return Answer(status, headers, body)

    async def _body(self, headers: dict[str, str]) -> bytes:
        if "content-length" in headers:
            return await self.reader.readexactly(int(headers["content-length"]))
        if headers.get("transfer-encoding") != "chunked":
            return await self.reader.read()
        body = b""
        while chunk := await self.chunk():
            body += chunk
        return body

    async def chunk(self) -> bytes:
        """Read one chunk; the last one is empty."""
        async with asyncio.timeout(_BOUND_SECONDS):
            line = await self.reader.readuntil(b"\r\n")
            data = await self.reader.readexactly(int(line, 16) + 2)
        return data[:-2]

    def close(self) -> None:
        """Go away without a word."""
        self.writer.transport.abort()


@dataclass
class Rig:
    """The gateway and what is around it."""

    provider: FakeProvider
    keys: Keys
    calls: Calls
    gateway: Gateway
    state: StateFolder
    token: str
    wires: list[Wire] = field(default_factory=list)

    async def wire(self, *, limit: int = 2**20) -> Wire:
        """Connect to the port; closed at the end of the test."""
        port = self.gateway.port
        wire = Wire(*await asyncio.open_connection("127.0.0.1", port, limit=limit))
        self.wires.append(wire)
        return wire

    def request(
        self,
        line: str = f"GET /{SLOT}/models",
        *headers: str,
        body: bytes = b"",
        token: str | None = None,
        version: str = "1.1",
    ) -> bytes:
        """Return a request; a body brings its length along."""
        lines = [f"{line} HTTP/{version}", "Host: 127.0.0.1"]
        lines.append(f"Authorization: Bearer {self.token if token is None else token}")
        lines += headers
        if body:
            lines.append(f"Content-Length: {len(body)}")
        return "\r\n".join([*lines, "", ""]).encode() + body

    async def ask(self, *request: str, body: bytes = b"", token: str | None = None) -> Answer:
        """Make one call on a connection of its own."""
        wire = await self.wire()
        await wire.send(self.request(*request, body=body, token=token))
        return await wire.answer(bodiless=bool(request) and request[0].startswith("HEAD"))


@asynccontextmanager
async def running(state: StateFolder, keys: Keys, options: GatewayOptions) -> AsyncIterator[Rig]:
    """Run a gateway and a provider that knows `OLD` and `NEW`."""
    calls = Calls()
    async with FakeProvider().serving() as provider, open_client() as client:
        for key in (OLD, NEW):
            provider.accept(key)
        keys.use(provider.base_url, OLD)
        gateway = Gateway(state, options)
        await gateway.listen()
        work = asyncio.create_task(gateway.run())
        rig = Rig(provider, keys, calls, gateway, state, agent_token(state))
        try:
            with gateway.using(Forwarder(keys, calls, client)):
                yield rig
            for wire in rig.wires:
                wire.close()
        finally:
            work.cancel()
            await asyncio.gather(work, return_exceptions=True)


@pytest.fixture
async def rig() -> AsyncIterator[Rig]:
    """A gateway on a free port; a short path for its socket, which has room for 107 bytes."""
    with tempfile.TemporaryDirectory(prefix="byok-") as folder:
        async with running(StateFolder(Path(folder)), Keys(), GatewayOptions(port=0)) as found:
            yield found


Script = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


@asynccontextmanager
async def odd_provider(script: Script) -> AsyncIterator[str]:
    """Serve *script* on loopback, for what no HTTP server would send; yields the base URL."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            await script(reader, writer)
        except (ConnectionError, asyncio.IncompleteReadError):
            pass
        finally:
            writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    try:
        port = server.sockets[0].getsockname()[1]
        yield f"http://127.0.0.1:{port}/v1"
    finally:
        server.close()


def answering(raw: bytes) -> Script:
    """Return a script that reads a head and answers *raw*."""

    async def script(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(raw)
        await writer.drain()

    return script


def small_buffers(writer: asyncio.StreamWriter) -> None:
    """Let the kernel hold little for a slow reader."""
    connection = writer.get_extra_info("socket")
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 65_536)
