"""Callers who connect and then take their time."""

import asyncio
import ssl

import pytest

from bus_schemas.api import PROBLEM_TYPE
from platform_handlers.dashboard import bodies
from platform_handlers.dashboard.patience import PatientProtocol
from tests.integration.dashboard.conftest import Faces

Streams = tuple[asyncio.StreamReader, asyncio.StreamWriter]


async def connect(faces: Faces) -> Streams:
    """Open a TLS connection and say nothing."""
    trust = ssl.create_default_context(cafile=faces.installation.ca)
    host, _, port = faces.url.removeprefix("https://").rpartition(":")
    return await asyncio.open_connection(host, int(port), ssl=trust)


async def rest(reader: asyncio.StreamReader) -> bytes:
    """Return what still comes before the platform hangs up."""
    async with asyncio.timeout(10):
        try:
            return await reader.read()
        except ConnectionResetError:
            return b""


@pytest.mark.parametrize("said", [b"", b"GET / HTTP/1.1\r\nHost: localhost\r\nX-Slow: "])
async def test_who_never_finishes_a_request_is_let_go(
    faces: Faces, monkeypatch: pytest.MonkeyPatch, said: bytes
) -> None:
    """Each would keep one of the process's files open, which the handlers need."""
    monkeypatch.setattr(PatientProtocol, "silence_seconds", 0.2)
    reader, writer = await connect(faces)
    writer.write(said)
    assert await rest(reader) == b""
    writer.close()


async def test_an_open_stream_is_no_silence(faces: Faces, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever listens has a request in progress, for hours."""
    monkeypatch.setattr(PatientProtocol, "silence_seconds", 0.05)
    reader, writer = await connect(faces)
    token = faces.tokens["acme"]
    head = ("GET /api/banners/stream HTTP/1.1", "Host: x", f"Authorization: Bearer {token}")
    writer.write("\r\n".join((*head, "", "")).encode())
    async with asyncio.timeout(10):
        for _ in range(2):
            await reader.readuntil(b": still here")
    writer.close()


async def test_there_are_never_too_many_connections(
    faces: Faces, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The one too many is closed, those before it stay."""
    monkeypatch.setattr(PatientProtocol, "most_connections", 2)
    kept = [await connect(faces) for _ in range(2)]
    reader, writer = await connect(faces)
    assert await rest(reader) == b""
    kept[0][1].write(b"GET /servers HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
    assert b" 401 " in await rest(kept[0][0])
    for _, open_one in (*kept, (reader, writer)):
        open_one.close()


async def test_a_body_must_come_in_time(faces: Faces, monkeypatch: pytest.MonkeyPatch) -> None:
    """A byte now and then would hold a request open for ever."""
    monkeypatch.setattr(bodies, "_BODY_SECONDS", 0.2)
    reader, writer = await connect(faces)
    token = faces.tokens["acme"]
    head = (
        "POST /api/servers/acme-1/slots/main HTTP/1.1",
        "Host: x",
        f"Authorization: Bearer {token}",
        "Content-Type: application/json",
        "Content-Length: 100",
    )
    writer.write("\r\n".join((*head, "", "{")).encode())
    answer = await rest(reader)
    assert b" 408 " in answer
    assert PROBLEM_TYPE.encode() in answer
    writer.close()
