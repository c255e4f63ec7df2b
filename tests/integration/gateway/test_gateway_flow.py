"""Slow readers, slow writers, calls that are broken off on either side."""

import asyncio
import json
import resource
from dataclasses import replace

import pytest

from tests.integration.gateway.conftest import (
    OLD,
    SLOT,
    Rig,
    answering,
    odd_provider,
    small_buffers,
)
from vps_runtime.gateway import body as body_module
from vps_runtime.gateway import forward as forward_module
from vps_runtime.gateway import server as server_module

STREAM = json.dumps({"model": "fake-1", "stream": True}).encode()
POST = f"POST /{SLOT}/chat/completions"
MANY = 64 * 1024 * 1024


async def test_a_slow_reader_holds_the_provider_back(rig: Rig) -> None:
    """Buffers fill up and then nothing more is taken: memory does not grow with the answer."""
    rig.provider.behave(OLD, pieces=1024, piece_size=MANY // 1024)
    wire = await rig.wire(limit=65_536)
    small_buffers(wire.writer)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    await wire.send(rig.request(POST, body=STREAM))
    await wire.head()
    (call,) = rig.provider.calls
    seen = -1
    while seen != call.sent:  # it stands still when two looks, a while apart, see the same
        seen = call.sent
        await asyncio.sleep(0.2)
    assert call.sent < MANY // 2
    # The provider's list of parts is in this process, too: that much it may have grown.
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < (MANY + 24_000_000) // 1024
    rest = 0
    while chunk := await wire.chunk():
        rest += len(chunk)
    assert rest >= MANY


@pytest.mark.parametrize("streams", [False, True])
async def test_an_agent_that_goes_away_ends_the_provider_s_work(rig: Rig, streams: bool) -> None:
    """While the head is awaited, and in the middle of a stream: at once, or it costs money."""
    hold = rig.provider.hold_streams if streams else rig.provider.hold_heads
    hold(OLD)
    wire = await rig.wire()
    await wire.send(rig.request(POST, body=STREAM))
    await rig.provider.until(lambda: any(call.size for call in rig.provider.calls))
    if streams:
        await wire.head()
    wire.close()
    await rig.provider.until(lambda: rig.provider.calls[0].gone)
    assert not rig.calls.uses_older(SLOT, 99)


@pytest.mark.parametrize("version", ["1.0", "1.1"])
async def test_a_broken_stream_has_no_clean_end(rig: Rig, version: str) -> None:
    """Whoever reads it sees that something is missing, whatever ends a body in its version."""
    rig.provider.behave(OLD, breaks_after=4)
    wire = await rig.wire()
    await wire.send(rig.request(POST, body=STREAM, version=version))
    answer = await wire.answer()
    assert answer.status == 200
    assert not answer.whole
    assert (await rig.ask(f"GET /{SLOT}/models")).status == 200


async def test_a_body_shorter_than_announced_has_no_clean_end(rig: Rig) -> None:
    """The same where a length was given."""
    raw = b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nhello"
    async with odd_provider(answering(raw)) as url:
        rig.keys.change(base_url=url)
        assert not (await rig.ask()).whole


async def test_an_answer_before_the_body_was_read_arrives(rig: Rig) -> None:
    """A provider that refuses a large body early is heard, and the call ends."""
    raw = b"HTTP/1.1 413 Too Large\r\nContent-Length: 2\r\nConnection: close\r\n\r\nno"
    async with odd_provider(answering(raw)) as url:
        rig.keys.change(base_url=url)
        wire = await rig.wire()
        await wire.send(rig.request(f"POST /{SLOT}/files", "Content-Length: 30000000"))
        await wire.send(b"x" * 100_000)
        answer = await wire.answer()
    assert (answer.status, answer.body) == (413, b"no")


async def test_an_early_401_is_repeated_with_the_rest_of_the_body(rig: Rig) -> None:
    """What was sent already is kept, what comes later follows it; nothing is lost between."""
    raw = b"HTTP/1.1 401 Unauthorized\r\nContent-Length: 0\r\n\r\n"
    came = asyncio.Event()

    async def script(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        await reader.read(1000)
        rig.keys.use(rig.provider.base_url, "sk-canary-new-0123456789", revision=2)
        writer.write(raw)
        await writer.drain()
        came.set()
        await reader.read()

    content = bytes(range(256)) * 1000
    async with odd_provider(script) as url:
        rig.keys.change(base_url=url)
        wire = await rig.wire()
        await wire.send(rig.request(f"POST /{SLOT}/files", f"Content-Length: {len(content)}"))
        await wire.send(content[:100_000])
        await came.wait()
        await rig.provider.until(lambda: len(rig.provider.calls) == 1)
        await wire.send(content[100_000:])
        assert (await wire.answer()).status == 200
    assert rig.provider.calls[0].size == len(content)
    assert rig.provider.calls[0].body == content[:65_536]


async def test_a_body_that_stands_still_is_given_up(
    rig: Rig, monkeypatch: pytest.MonkeyPatch
) -> None:
    """408, and the connection is closed."""
    monkeypatch.setattr(server_module, "_BODY_SECONDS", 0.05)
    for length in ("Content-Length: 100", "Content-Length: 100000", "Transfer-Encoding: chunked"):
        answer = await rig.ask(f"POST /{SLOT}/files", length)
        assert (answer.status, answer.headers["x-byok-problem"]) == (408, "too_slow")
    assert all(call.status is None for call in rig.provider.calls)


async def test_a_provider_that_reads_no_body_is_given_up(
    rig: Rig, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Else the call would wait for its head for ever, and its key would never be drained."""
    monkeypatch.setattr(forward_module, "HEAD_SECONDS", 0.3)
    over = asyncio.Event()

    async def script(_reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        assert isinstance(writer.transport, asyncio.ReadTransport)
        writer.transport.pause_reading()
        await over.wait()

    async with odd_provider(script) as url:
        rig.keys.change(base_url=url)
        answer = await rig.ask(f"POST /{SLOT}/files", body=b"x" * 20_000_000)
        over.set()
    assert (answer.status, answer.headers["x-byok-problem"]) == (504, "no_answer")
    assert not rig.calls.uses_older(SLOT, 99)


async def test_a_body_without_a_length_is_limited_as_well(
    rig: Rig, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is cut off when it gets too large; the provider never sees an end of it."""
    monkeypatch.setattr(body_module, "LARGEST", 300_000)
    wire = await rig.wire()
    await wire.send(rig.request(f"POST /{SLOT}/files", "Transfer-Encoding: chunked"))
    for _ in range(4):
        await wire.send(b"186a0\r\n" + b"x" * 100_000 + b"\r\n")
    answer = await wire.answer()
    assert (answer.status, answer.headers["x-byok-problem"]) == (413, "too_large")
    assert all(call.status is None for call in rig.provider.calls)


async def test_a_silent_connection_is_closed(rig: Rig) -> None:
    """One that says nothing, and one that says its head letter by letter (slowloris)."""
    assert server_module._IDLE_SECONDS == 75.0  # noqa: SLF001
    silent, slow = await rig.wire(), await rig.wire()
    await slow.send(b"GET /openai/models HTTP/1.1\r\nHost: loc")
    loop = asyncio.get_running_loop()
    asked = loop.time
    loop.time = lambda: asked() + 100  # type: ignore[method-assign]
    try:
        for wire in (silent, slow):
            async with asyncio.timeout_at(asked() + 200):
                assert await wire.reader.read() == b""
    finally:
        loop.time = asked  # type: ignore[method-assign]


async def test_there_are_only_so_many_calls_and_connections(
    rig: Rig, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One call too many gets 429 and Retry-After; one connection too many is closed."""
    monkeypatch.setattr(server_module, "_MOST_CALLS", 1)
    gate = rig.provider.hold_heads(OLD)
    waiting = asyncio.create_task(rig.ask())
    await rig.provider.until(lambda: len(rig.provider.calls) == 1)
    answer = await rig.ask()
    assert (answer.status, answer.headers["retry-after"]) == (429, "1")
    monkeypatch.setattr(server_module, "_MOST_CONNECTIONS", 1)
    wire = await rig.wire()
    assert await wire.reader.read() == b""
    gate.open()
    assert (await waiting).status == 200


def test_full_listeners_leave_files_for_the_rest() -> None:
    """The vault, the bus and the orders go on when strangers hold every connection."""
    calls, connections = server_module._MOST_CALLS, server_module._MOST_CONNECTIONS  # noqa: SLF001
    assert calls + 2 * connections <= 1024 - 128


async def test_bodies_are_kept_as_long_as_there_is_room(rig: Rig) -> None:
    """Past it a call goes through all the same; only a 401 is not repeated then."""
    rig.gateway._room.left = 10  # noqa: SLF001
    rig.provider.kill(OLD)
    rig.keys.change(revision=1)
    content = b"x" * 100_000
    gate = rig.provider.hold_heads(OLD)
    waiting = asyncio.create_task(rig.ask(f"POST /{SLOT}/files", body=content))
    await rig.provider.until(lambda: any(call.size for call in rig.provider.calls))
    rig.keys.held[SLOT] = replace(
        rig.keys.held[SLOT], revision=2, secret="sk-canary-new-0123456789"
    )
    gate.open()
    assert (await waiting).status == 401
    assert rig.gateway._room.left == 10  # noqa: SLF001
