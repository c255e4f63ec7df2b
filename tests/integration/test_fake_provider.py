"""The made-up provider itself: what the other tests take for granted about it."""

import asyncio
from collections.abc import AsyncIterator

import aiohttp
import pytest

from tests.provider.process import provider_process
from tests.provider.server import FakeProvider

KEY = "sk-made-up-1"
CHAT = {"model": "fake-1", "messages": [{"role": "user", "content": "hi"}]}


@pytest.fixture
async def provider() -> AsyncIterator[FakeProvider]:
    """A provider in this loop that knows one key."""
    async with FakeProvider().serving() as running:
        running.accept(KEY)
        yield running


@pytest.fixture
async def client() -> AsyncIterator[aiohttp.ClientSession]:
    """A caller."""
    async with aiohttp.ClientSession() as session:
        yield session


def bearer(key: str) -> dict[str, str]:
    """Return the header of an OpenAI-style call."""
    return {"Authorization": f"Bearer {key}"}


async def test_both_dialects_answer(provider: FakeProvider, client: aiohttp.ClientSession) -> None:
    """A chat completion and a message, each with the key where that dialect has it."""
    chat = f"{provider.base_url}/chat/completions"
    async with client.post(chat, json=CHAT, headers=bearer(KEY)) as answer:
        assert (await answer.json())["choices"][0]["finish_reason"] == "stop"
    message = f"{provider.base_url}/messages"
    async with client.post(message, json=CHAT, headers={"x-api-key": KEY}) as answer:
        assert (await answer.json())["stop_reason"] == "end_turn"
    assert [(call.style, call.path) for call in provider.with_key(KEY)] == [
        ("bearer", "/v1/chat/completions"),
        ("x-api-key", "/v1/messages"),
    ]


@pytest.mark.parametrize(("path", "last"), [("chat/completions", "[DONE]"), ("messages", "stop")])
async def test_both_dialects_stream(
    provider: FakeProvider, client: aiohttp.ClientSession, path: str, last: str
) -> None:
    """The first part comes before the provider has made the second."""
    gate = provider.hold_streams(KEY)
    url = f"{provider.base_url}/{path}"
    async with client.post(url, json=CHAT | {"stream": True}, headers=bearer(KEY)) as answer:
        assert await answer.content.readline()
        gate.open()
        assert last in (await answer.text())[-80:]


async def test_a_killed_key_gets_401_even_while_it_waits(
    provider: FakeProvider, client: aiohttp.ClientSession
) -> None:
    """What a revocation in the middle of a turn looks like; the body may repeat the key."""
    provider.behave(KEY, echo=True)
    gate = provider.hold_heads(KEY)

    async def call() -> tuple[int, str]:
        async with client.get(f"{provider.base_url}/models", headers=bearer(KEY)) as answer:
            return answer.status, await answer.text()

    waiting = asyncio.create_task(call())
    await provider.until(lambda: len(provider.calls) == 1)
    provider.kill(KEY)
    gate.open()
    status, body = await waiting
    assert status == 401
    assert KEY in body


async def test_a_broken_stream_has_no_end(
    provider: FakeProvider, client: aiohttp.ClientSession
) -> None:
    """The connection is cut, so that a caller sees that something is missing."""
    provider.behave(KEY, breaks_after=3)
    chat = f"{provider.base_url}/chat/completions"
    async with client.post(chat, json=CHAT | {"stream": True}, headers=bearer(KEY)) as answer:
        with pytest.raises(aiohttp.ClientPayloadError):
            await answer.read()


async def test_the_process_is_steered_from_outside() -> None:
    """The same as a process: keys are made, held, killed and asked for over its control paths."""
    with provider_process() as provider:
        provider.accept(KEY, pieces=2)
        async with aiohttp.ClientSession(headers=bearer(KEY)) as client:
            async with client.get(f"{provider.base_url}/models") as answer:
                assert answer.status == 200
            provider.kill(KEY)
            async with client.get(f"{provider.base_url}/models") as answer:
                assert answer.status == 401
        assert [(call["key"], call["status"]) for call in provider.calls()] == [
            (KEY, 200),
            (KEY, 401),
        ]
