"""Calls through the gateway: the right key, the right head, the whole body, both ways."""

import asyncio
import json

import pytest

from bus_schemas.fields import CredentialKind
from tests.integration.gateway.conftest import NEW, OLD, SLOT, Rig, answering, odd_provider

CHAT = json.dumps({"model": "fake-1", "messages": [{"role": "user", "content": "hi"}]}).encode()
STREAM = json.dumps({"model": "fake-1", "stream": True}).encode()
POST = f"POST /{SLOT}/chat/completions"


async def test_a_call_reaches_the_provider_with_the_real_key(rig: Rig) -> None:
    """And without the agent's token; the receipt says revision and status."""
    answer = await rig.ask(POST, "Content-Type: application/json", "X-Mine: 1", body=CHAT)
    assert answer.status == 200
    assert json.loads(answer.body)["choices"]
    (call,) = rig.provider.calls
    assert (call.key, call.path, call.body) == (OLD, "/v1/chat/completions", CHAT)
    assert call.headers["x-mine"] == "1"
    assert call.headers["host"] == rig.provider.origin.removeprefix("http://")
    assert rig.token not in str(call.headers)
    assert set(call.headers) == {
        *("host", "authorization", "content-length", "content-type", "x-mine")
    }
    last = rig.calls.last[SLOT]
    assert (last.revision, last.status) == (1, 200)


@pytest.mark.parametrize("style", ["x-api-key", "x-goog-api-key", "bearer"])
async def test_the_key_goes_where_the_provider_wants_it(rig: Rig, style: str) -> None:
    """Wherever the agent had its token."""
    rig.keys.change(header_style=style)
    wire = await rig.wire()
    token = rig.token
    for shown in (f"x-api-key: {token}", f"X-Goog-Api-Key: {token}", f"api-key: {token}"):
        await wire.send(
            f"GET /{SLOT}/models HTTP/1.1\r\nHost: localhost\r\n{shown}\r\n\r\n".encode()
        )
        assert (await wire.answer()).status == 200
    assert [(call.key, call.style) for call in rig.provider.calls] == [(OLD, style)] * 3


async def test_a_sign_in_is_a_bearer_token(rig: Rig) -> None:
    """An OAuth access token never goes into a provider's key header."""
    rig.keys.change(kind=CredentialKind.OAUTH, header_style="x-api-key", provider="anthropic")
    assert (await rig.ask(POST, body=CHAT)).status == 200
    (call,) = rig.provider.calls
    assert (call.key, call.style) == (OLD, "bearer")
    assert call.headers["anthropic-beta"] == "oauth-2025-04-20"


async def test_without_a_usable_key_the_answer_is_401_at_once(rig: Rig) -> None:
    """Never 503, for which agents wait; nothing reaches the provider."""
    rig.keys.held.clear()
    answer = await rig.ask(POST, body=CHAT)
    assert answer.status == 401
    assert answer.headers["x-byok-problem"] == "no_usable_key"
    assert "byok-vps status" in json.loads(answer.body)["error"]["message"]
    assert rig.provider.calls == []


async def test_a_large_body_streams_through_whole(rig: Rig) -> None:
    """Twenty megabytes: more than is kept for a repetition, and than any buffer holds."""
    body = bytes(range(256)) * 80_000
    answer = await rig.ask(f"POST /{SLOT}/files", body=body)
    assert answer.status == 200
    assert rig.provider.calls[0].size == len(body)
    assert rig.gateway._room.left == 64 * 1024 * 1024  # noqa: SLF001 (all of it is given back)


async def test_a_chunked_body_passes(rig: Rig) -> None:
    """In pieces of the agent's own rhythm; its trailers are left out (RFC 9110 6.5.1)."""
    wire = await rig.wire()
    await wire.send(rig.request(POST, "Transfer-Encoding: chunked"))
    for piece in (b"5\r\nhello\r\n", b"6;x=y\r\n world\r\n", b"0\r\nX-Sum: 1\r\n\r\n"):
        await wire.send(piece)
        await asyncio.sleep(0)
    assert (await wire.answer()).status == 200
    assert rig.provider.calls[0].body == b"hello world"
    await wire.send(rig.request())  # the connection is still in step
    assert (await wire.answer()).status == 200


async def test_100_continue_is_sent_when_the_body_is_wanted(rig: Rig) -> None:
    """After the access was checked, not before."""
    wire = await rig.wire()
    head = rig.request(POST, "Expect: 100-continue", f"Content-Length: {len(CHAT)}")
    await wire.send(head)
    assert (await wire.head())[0] == 100
    await wire.send(CHAT)
    assert (await wire.answer()).status == 200
    assert "expect" not in rig.provider.calls[0].headers
    old = await rig.wire()  # RFC 9110 10.1.1: one that knows no 1xx is not sent one
    await old.send(rig.request(POST, "Expect: 100-continue", body=CHAT, version="1.0"))
    assert (await old.head())[0] == 200
    stranger = await rig.wire()
    await stranger.send(rig.request(POST, "Expect: 100-continue", "Content-Length: 9", token="no"))
    assert (await stranger.answer()).status == 401


async def test_the_first_part_comes_before_the_second_is_made(rig: Rig) -> None:
    """Nothing of a stream is held back, neither its head nor a part of it."""
    gate = rig.provider.hold_streams(OLD)
    wire = await rig.wire()
    await wire.send(rig.request(POST, body=STREAM))
    status, headers = await wire.head()
    assert (status, headers["content-type"]) == (200, "text/event-stream")
    assert (await wire.chunk()).startswith(b"data: ")
    gate.open()
    rest = b""
    while chunk := await wire.chunk():
        rest += chunk
    assert rest.endswith(b"data: [DONE]\n\n")


async def test_head_and_answers_without_a_body(rig: Rig) -> None:
    """HEAD, 204 and 304 have none, and the connection stays in step."""
    answer = await rig.ask(f"HEAD /{SLOT}/models")
    assert (answer.status, answer.body) == (200, b"")
    assert int(answer.headers["content-length"]) > 0
    for line in (b"204 No Content", b"304 Not Modified"):
        raw = b"HTTP/1.1 " + line + b"\r\nX-Mark: 1\r\n\r\n"
        async with odd_provider(answering(raw)) as url:
            rig.keys.change(base_url=url)
            wire = await rig.wire()
            await wire.send(rig.request())
            status, headers = await wire.head()
            assert (status, headers["x-mark"]) == (int(line[:3]), "1")
            assert "transfer-encoding" not in headers
            rig.keys.change(base_url=rig.provider.base_url)
            await wire.send(rig.request())
            assert (await wire.answer()).status == 200


async def test_an_old_client_gets_its_answer_to_the_end_of_the_connection(rig: Rig) -> None:
    """HTTP/1.0 knows no chunks."""
    wire = await rig.wire()
    await wire.send(rig.request(POST, body=STREAM, version="1.0"))
    answer = await wire.answer()
    assert "transfer-encoding" not in answer.headers
    assert answer.body.endswith(b"data: [DONE]\n\n")


@pytest.mark.parametrize("status", [301, 302, 307, 308])
async def test_a_redirect_is_passed_on_and_not_followed(rig: Rig, status: int) -> None:
    """Following it would carry the key to a host that is not in the seal."""
    rig.provider.behave(
        OLD, status=status, headers={"Location": "https://evil.example/", "Set-Cookie": "a=1"}
    )
    answer = await rig.ask()
    assert (answer.status, answer.headers["location"]) == (status, "https://evil.example/")
    assert "set-cookie" not in answer.headers
    assert len(rig.provider.calls) == 1


async def test_compressed_bytes_are_not_touched(rig: Rig) -> None:
    """Neither unpacked for the agent nor packed anew."""
    packed = b"\x1f\x8b not really gzip \x00\xff"
    raw = b"HTTP/1.1 200 OK\r\nContent-Encoding: gzip\r\nContent-Length: %d\r\n\r\n" % len(packed)
    async with odd_provider(answering(raw + packed)) as url:
        rig.keys.change(base_url=url)
        answer = await rig.ask()
    assert (answer.headers["content-encoding"], answer.body) == ("gzip", packed)


async def test_early_hints_and_trailers_do_no_harm(rig: Rig) -> None:
    """1xx answers are swallowed (RFC 9110 15.2), trailers left out."""
    raw = (
        b"HTTP/1.1 103 Early Hints\r\nLink: </x>\r\n\r\n"
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nTrailer: X-Sum\r\n\r\n"
        b"5\r\nhello\r\n0\r\nX-Sum: 1\r\n\r\n"
    )
    async with odd_provider(answering(raw)) as url:
        rig.keys.change(base_url=url)
        answer = await rig.ask()
    assert (answer.status, answer.body) == (200, b"hello")


async def test_a_key_that_is_echoed_does_not_come_back(rig: Rig) -> None:
    """In a refusal's body or head: neither the agent nor whoever reads its log may have it."""
    for status in (400, 401, 403, 500):
        rig.provider.behave(OLD, status=status, echo=True)
        answer = await rig.ask()
        assert answer.status == status
        assert OLD.encode() not in answer.body
        assert b"*" * len(OLD) in answer.body
        assert OLD not in str(answer.headers)


async def test_another_slot_has_another_key(rig: Rig) -> None:
    """Slots share the token and nothing else."""
    rig.keys.use(rig.provider.base_url, NEW, slot_id="backup")
    await rig.ask(f"GET /{SLOT}/models")
    await rig.ask("GET /backup/models")
    assert [call.key for call in rig.provider.calls] == [OLD, NEW]


async def test_connections_to_the_provider_are_kept(rig: Rig) -> None:
    """One for calls that follow each other."""
    peers = set()

    async def script(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        peers.add(writer.get_extra_info("peername"))
        while await reader.readuntil(b"\r\n\r\n"):
            writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")

    async with odd_provider(script) as url:
        rig.keys.change(base_url=url)
        for _ in range(3):
            assert (await rig.ask()).body == b"ok"
    assert len(peers) == 1
