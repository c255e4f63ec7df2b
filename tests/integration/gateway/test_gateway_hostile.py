"""Strangers on this machine, pages in a browser, smuggled requests, providers that misbehave."""

import asyncio
import json
import logging
import os
import stat

import pytest
import structlog

from tests.integration.gateway.conftest import NEW, OLD, SLOT, Rig, Wire, answering, odd_provider
from vps_runtime.gateway import server as server_module
from vps_runtime.gateway.server import GatewayOptions
from vps_runtime.gateway.upstream import open_client
from vps_runtime.local_access import agent_token
from vps_runtime.state import NotEnrolled, StateFolder

SMUGGLED = f"GET /{SLOT}/smuggled HTTP/1.1\r\nHost: localhost\r\n\r\n".encode()


@pytest.mark.parametrize("token", ["", "placeholder", OLD, NEW, "byok-agent-"])
async def test_a_stranger_is_told_what_is_missing(rig: Rig, token: str) -> None:
    """Without the agent's token nothing happens, not even with the provider's own key."""
    answer = await rig.ask(token=token)
    assert (answer.status, answer.headers["x-byok-problem"]) == (401, "agent_token")
    assert "byok-vps openclaw-config" in json.loads(answer.body)["error"]["message"]
    assert answer.headers["www-authenticate"].startswith("Bearer")
    assert rig.provider.calls == []


async def test_a_token_in_the_query_is_none(rig: Rig) -> None:
    """Addresses end up in logs and histories; and nothing of it reaches the provider."""
    path = f"GET /{SLOT}/models?key={rig.token}&access_token={rig.token}"
    assert (await rig.ask(path, token="no")).status == 401
    assert (await rig.ask(path)).status == 200
    assert [call.path for call in rig.provider.calls] == ["/v1/models"]


@pytest.mark.parametrize(
    ("line", "headers", "problem"),
    [
        (f"GET /{SLOT}/models", ["Origin: http://evil.example"], "origin"),
        (f"OPTIONS /{SLOT}/models", ["Origin: http://evil.example"], "origin"),
        (f"TRACE /{SLOT}/models", [], "method"),
        ("GET http://evil.example/openai/models", [], "path"),
        (f"GET //evil.example/{SLOT}/models", [], "path"),
        (f"GET /{SLOT}/../anthropic/v1", [], "path"),
        (f"GET /{SLOT}/%2e%2e/x", [], "path"),
        (f"GET /{SLOT}/%0d%0aX-Evil:%201", [], "path"),
        (f"GET /{SLOT}/realtime", ["Connection: Upgrade", "Upgrade: websocket"], "upgrade"),
        (f"POST /{SLOT}/files", ["Content-Length: 99999999999"], "too_large"),
        (f"POST /{SLOT}/files", ["Expect: miracles"], "expect"),
    ],
)
async def test_what_is_no_plain_call_is_refused(
    rig: Rig, line: str, headers: list[str], problem: str
) -> None:
    """Each with its reason; nothing reaches the provider."""
    answer = await rig.ask(line, *headers)
    assert answer.headers["x-byok-problem"] == problem
    assert json.loads(answer.body)["error"]["message"].startswith("byok: ")
    assert rig.provider.calls == []


@pytest.mark.parametrize(
    "headers",
    [
        "Content-Length: 4\r\nTransfer-Encoding: chunked\r\n",
        "Transfer-Encoding: chunked\r\nContent-Length: 4\r\n",
        "Content-Length: 4\r\nContent-Length: 40\r\n",
        "Content-Length: 4, 40\r\n",
        "Content-Length: +4\r\n",
        "Content-Length: -1\r\n",
        "Content-Length: 0x4\r\n",
        "Content-Length : 4\r\n",
        "Transfer-Encoding: xchunked\r\n",
        "Transfer-Encoding: gzip, chunked\r\n",
        "Transfer-Encoding: chunked\r\nTransfer-Encoding: identity\r\n",
        "Transfer-Encoding:\x0bchunked\r\n",
        "X-A: 1\r\n Content-Length: 4\r\n",
        "X-A: 1\nContent-Length: 4\r\n",
        "X-A: 1\rContent-Length: 4\r\n",
        "X-A: \x001\r\n",
        "X A: 1\r\n",
        ": 1\r\n",
    ],
)
async def test_an_unclear_length_ends_the_connection(rig: Rig, headers: str) -> None:
    """Of two readings of one request the second never becomes a request of its own."""
    wire = await rig.wire()
    head = (
        f"POST /{SLOT}/files HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer {rig.token}\r\n"
    )
    await wire.send(f"{head}{headers}\r\n0\r\n\r\n".encode() + SMUGGLED)
    assert (await wire.answer()).status in {400, 401}  # what is left over has no token
    assert [call.path for call in rig.provider.calls if "smuggled" in call.path] == []
    assert all(call.size == 0 for call in rig.provider.calls)


async def test_a_bad_chunk_is_not_passed_on_as_an_end(
    rig: Rig, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The provider never sees the body as whole, whether it comes with the head or later."""
    monkeypatch.setattr(server_module, "_BODY_SECONDS", 0.2)
    head = rig.request(f"POST /{SLOT}/files", "Transfer-Encoding: chunked")
    good, bad = b"5\r\nhello\r\n", b"XX\r\n" + SMUGGLED
    wire = await rig.wire()
    await wire.send(head + good + bad)
    assert (await wire.answer()).status == 400
    wire = await rig.wire()
    await wire.send(head + good)
    await rig.provider.until(lambda: len(rig.provider.calls) == 1)
    await wire.send(bad)
    answer = await wire.answer()
    assert (answer.status, answer.headers["x-byok-problem"]) == (408, "too_slow")
    assert all(call.status is None for call in rig.provider.calls)


@pytest.mark.parametrize(
    ("hosts", "status"),
    [(["evil.example"], 403), (["localhost", "evil.example"], 400), ([], 400)],
)
async def test_a_rebound_name_gets_nothing(rig: Rig, hosts: list[str], status: int) -> None:
    """What a page in a browser can do when its name points at 127.0.0.1."""
    lines = "".join(f"Host: {host}\r\n" for host in hosts)
    head = f"GET /{SLOT}/models HTTP/1.1\r\n{lines}Authorization: Bearer {rig.token}\r\n\r\n"
    wire = await rig.wire()
    await wire.send(head.encode())
    assert (await wire.answer()).status == status
    assert rig.provider.calls == []


async def test_the_head_has_limits(rig: Rig) -> None:
    """Of a line's length and of the number of headers."""
    for big in ("X-Big: " + "x" * 9_000, "\r\n".join(f"X-{n}: 1" for n in range(64))):
        assert (await rig.ask(f"GET /{SLOT}/models", big)).status == 400
    assert (await rig.ask(f"GET /{SLOT}/" + "x" * 9_000)).status == 400
    assert rig.provider.calls == []


async def test_a_call_of_unclear_length_is_the_last_of_its_connection(rig: Rig) -> None:
    """Where the next one begins depends on who reads."""
    wire = await rig.wire()
    await wire.send(
        f"POST /{SLOT}/files HTTP/1.0\r\nConnection: keep-alive\r\nx-api-key: {rig.token}\r\n"
        "Transfer-Encoding: chunked\r\n\r\n0\r\n\r\n".encode()
        + rig.request(f"GET /{SLOT}/smuggled")
    )
    answer = await wire.answer()
    assert (answer.status, answer.headers["x-byok-problem"]) == (400, "framing")
    assert await wire.reader.read() == b""
    assert rig.provider.calls == []


async def test_a_provider_does_not_speak_in_the_gateways_name(rig: Rig) -> None:
    """Whoever reads `X-Byok-Problem` knows that it was not the provider."""
    raw = b"HTTP/1.1 401 No\r\nX-Byok-Problem: agent_token\r\nContent-Length: 0\r\n\r\n"
    async with odd_provider(answering(raw)) as url:
        rig.keys.change(base_url=url)
        answer = await rig.ask()
    assert answer.status == 401
    assert "x-byok-problem" not in answer.headers


# --- the Unix socket ---


async def unix(rig: Rig) -> Wire:
    """Connect to the socket."""
    wire = Wire(*await asyncio.open_unix_connection(rig.state.gateway_socket))
    rig.wires.append(wire)
    return wire


async def test_the_socket_knows_its_user_without_a_token(rig: Rig) -> None:
    """The kernel says who it is; a placeholder is as good as anything."""
    wire = await unix(rig)
    await wire.send(rig.request(token="placeholder"))
    assert (await wire.answer()).status == 200
    assert rig.provider.calls[0].key == OLD


async def test_a_neighbour_is_refused_on_the_socket(rig: Rig) -> None:
    """Whatever token it has."""
    object.__setattr__(rig.gateway.options, "user", os.geteuid() + 1)
    wire = await unix(rig)
    await wire.send(rig.request())
    answer = await wire.answer()
    assert (answer.status, answer.headers["x-byok-problem"]) == (403, "agent_user")
    assert rig.provider.calls == []


# --- the token ---


def test_the_token_is_made_once_and_for_its_owner_only(tmp_path: object) -> None:
    """Long, random, 0600; a damaged one is said, never replaced behind the agent's back."""
    state = StateFolder(tmp_path)  # type: ignore[arg-type]
    token = agent_token(state)
    assert len(token) > 50
    assert agent_token(state) == token
    assert stat.S_IMODE(state.agent_token.stat().st_mode) == 0o600
    for damaged in ("", "byok-agent-", "x" * 60):
        state.agent_token.write_text(damaged)
        with pytest.raises(NotEnrolled, match=r"agent\.token"):
            agent_token(state)


# --- providers ---


@pytest.mark.parametrize(
    ("raw", "problem"),
    [
        (b"", "broke_off"),
        (b"HTTP/1.1 200", "broke_off"),
        (b"nonsense\r\n\r\n", "broke_off"),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\nContent-Length: 5\r\n\r\nhello", "broke_off"),
        (b"HTTP/1.1 200 OK\r\nX-Big: " + b"x" * 100_000 + b"\r\n\r\n", "broke_off"),
        (b"HTTP/1.1 101 Switching\r\nUpgrade: x\r\nConnection: upgrade\r\n\r\n", "broke_off"),
    ],
)
async def test_an_answer_that_is_none_is_said_so(rig: Rig, raw: bytes, problem: str) -> None:
    """502 with a sentence, in the provider's own form of an error."""
    async with odd_provider(answering(raw)) as url:
        rig.keys.change(base_url=url)
        answer = await rig.ask(f"POST /{SLOT}/messages", body=b"{}")
    assert (answer.status, answer.headers["x-byok-problem"]) == (502, problem)
    assert "nothing says that the key is bad" in json.loads(answer.body)["error"]["message"]
    assert not rig.calls.uses_older(SLOT, 99)


async def test_an_unreachable_provider_is_said_so(rig: Rig) -> None:
    """Nobody listens; a name that is none; a certificate that nobody signed."""
    for url in ("http://127.0.0.1:9/v1", "https://byok.invalid/v1"):
        rig.keys.change(base_url=url)
        answer = await rig.ask()
        assert (answer.status, answer.headers["x-byok-problem"]) == (502, "unreachable")


async def test_a_head_that_cannot_be_sent_on_is_left_out(rig: Rig) -> None:
    """Bytes that are no text do not cost the answer; the words beside the status never pass."""
    raw = (
        b"HTTP/1.1 200 \xe9"
        + OLD.encode()
        + b"\r\nX-Odd: \xe9\r\nX-Good: 1\r\nContent-Length: 2\r\n\r\nok"
    )
    async with odd_provider(answering(raw)) as url:
        rig.keys.change(base_url=url)
        answer = await rig.ask()
    assert (answer.status, answer.body, answer.headers["x-good"]) == (200, b"ok", "1")
    assert "x-odd" not in answer.headers


async def test_proxies_of_the_environment_are_not_used(
    monkeypatch: pytest.MonkeyPatch, rig: Rig
) -> None:
    """Whoever sets the environment does not get the keys."""
    for name in ("http_proxy", "HTTP_PROXY", "https_proxy", "ALL_PROXY"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")
    assert (await rig.ask()).status == 200
    async with open_client() as client:
        assert not client.trust_env


# --- logs ---


@pytest.mark.parametrize("level", [logging.DEBUG])
async def test_nothing_of_a_call_is_in_the_logs(
    rig: Rig, level: int, caplog: pytest.LogCaptureFixture
) -> None:
    """At the chattiest level, over good calls and every kind of bad one, a planted bug included."""
    caplog.set_level(level)
    canary = "canary-of-the-agent"
    with structlog.testing.capture_logs() as said:
        rig.provider.behave(OLD, status=401, echo=True)
        for line in (f"POST /{SLOT}/{canary}", f"GET /{SLOT}/{canary}\x01", f"{canary} /x"):
            await rig.ask(line, f"X-Mine: {canary}", body=canary.encode())
        await rig.ask(f"GET /{SLOT}/{canary}", token=canary)
        async with odd_provider(answering(f"{OLD} {canary}\r\n\r\n".encode())) as url:
            rig.keys.change(base_url=url)
            await rig.ask()
        rig.keys.change(base_url=f"http://[{canary}")  # no address: a bug, as far as we know
        broken = await rig.ask(f"GET /{SLOT}/{canary}", body=canary.encode())
    assert broken.headers["x-byok-problem"] == "bug"
    assert [line["event"] for line in said] == ["gateway_bug"]
    spoken = json.dumps(said) + caplog.text
    for secret in (canary, OLD, rig.token):
        assert secret not in spoken
        assert secret.encode() not in broken.body


def test_the_socket_is_for_the_own_user_unless_told_otherwise() -> None:
    """The default is the narrowest."""
    assert GatewayOptions().user == os.geteuid()
