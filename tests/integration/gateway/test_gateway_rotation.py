"""A key is replaced while calls are on their way; a key is taken out of use."""

import asyncio
import json

import pytest

from tests.integration.gateway.conftest import NEW, OLD, SLOT, Answer, Rig, odd_provider
from vps_runtime.gateway.body import KEPT

CHAT = json.dumps({"model": "fake-1", "messages": []}).encode()
POST = f"POST /{SLOT}/chat/completions"


async def answer_of(rig: Rig, body: bytes, *, rotated: bool = True) -> Answer:
    """Kill the key of a call while it waits for its head, and return the answer."""
    gate = rig.provider.hold_heads(OLD)
    waiting = asyncio.create_task(rig.ask(POST, body=body))
    await rig.provider.until(lambda: any(call.size == len(body) for call in rig.provider.calls))
    assert rig.calls.uses_older(SLOT, 2)
    if rotated:
        rig.keys.use(rig.provider.base_url, NEW, revision=2)
    rig.provider.kill(OLD)
    gate.open()
    return await waiting


async def test_a_401_of_an_older_revision_is_repeated_with_the_current_one(rig: Rig) -> None:
    """Once, with the same body: the agent never learns of it."""
    answer = await answer_of(rig, CHAT)
    assert answer.status == 200
    assert [(call.key, call.status) for call in rig.provider.calls] == [(OLD, 401), (NEW, 200)]
    assert rig.provider.calls[1].body == CHAT
    assert not rig.calls.uses_older(SLOT, 2)
    assert rig.calls.last[SLOT].revision == 2


async def test_it_is_repeated_once_only(rig: Rig) -> None:
    """A second refusal is the answer."""
    rig.provider.kill(NEW)
    answer = await answer_of(rig, CHAT)
    assert answer.status == 401
    assert [call.key for call in rig.provider.calls] == [OLD, NEW]


async def test_without_a_newer_key_nothing_is_repeated(rig: Rig) -> None:
    """The provider's word on the current one stands."""
    answer = await answer_of(rig, CHAT, rotated=False)
    assert answer.status == 401
    assert [call.key for call in rig.provider.calls] == [OLD]


async def test_an_older_key_never_comes_back(rig: Rig) -> None:
    """Not even if it were the current one again."""
    rig.keys.use(rig.provider.base_url, OLD, revision=5)
    gate = rig.provider.hold_heads(OLD)
    waiting = asyncio.create_task(rig.ask(POST, body=CHAT))
    await rig.provider.until(lambda: len(rig.provider.calls) == 1)
    rig.keys.use(rig.provider.base_url, NEW, revision=4)
    rig.provider.kill(OLD)
    gate.open()
    assert (await waiting).status == 401
    assert [call.key for call in rig.provider.calls] == [OLD]


async def test_a_body_too_large_to_keep_is_not_repeated(rig: Rig) -> None:
    """The 401 goes to the agent; nothing is sent in part."""
    answer = await answer_of(rig, b"x" * (KEPT + 1))
    assert answer.status == 401
    assert [call.key for call in rig.provider.calls] == [OLD]


async def test_the_largest_kept_body_is_repeated_whole(rig: Rig) -> None:
    """Eight megabytes exactly."""
    answer = await answer_of(rig, b"x" * KEPT)
    assert answer.status == 200
    assert [call.size for call in rig.provider.calls] == [KEPT, KEPT]


async def test_a_key_taken_out_of_use_is_refused_at_once(rig: Rig) -> None:
    """The next call, also on a connection that was open before; nothing reaches the provider."""
    wire = await rig.wire()
    await wire.send(rig.request())
    assert (await wire.answer()).status == 200
    rig.keys.held.clear()
    await wire.send(rig.request())
    assert (await wire.answer()).headers["x-byok-problem"] == "no_usable_key"
    assert len(rig.provider.calls) == 1


async def test_an_order_overtakes_a_body_on_its_way(rig: Rig) -> None:
    """A call whose body comes slowly is made with what may be used when it is there."""
    wire = await rig.wire()
    await wire.send(rig.request(POST, f"Content-Length: {len(CHAT)}"))
    await wire.send(CHAT[:5])
    await rig.ask()  # the other call's head has been read meanwhile
    rig.keys.held.clear()
    await wire.send(CHAT[5:])
    assert (await wire.answer()).headers["x-byok-problem"] == "no_usable_key"
    assert [call.method for call in rig.provider.calls] == ["GET"]


async def test_an_order_ends_a_long_body_on_its_way(rig: Rig) -> None:
    """Its head went out with the key that is now retired; no more follows, and no end."""
    wire = await rig.wire()
    await wire.send(rig.request(f"POST /{SLOT}/files", "Transfer-Encoding: chunked"))
    await wire.send(b"5\r\nhello\r\n")
    await rig.provider.until(lambda: len(rig.provider.calls) == 1)
    rig.keys.held.clear()
    await wire.send(b"5\r\nworld\r\n0\r\n\r\n")
    assert (await wire.answer()).headers["x-byok-problem"] == "no_usable_key"
    await rig.provider.until(lambda: rig.provider.calls[0].gone)
    assert rig.provider.calls[0].status is None
    assert not rig.calls.uses_older(SLOT, 99)


@pytest.mark.parametrize("rotated", [False, True])
async def test_an_order_overtakes_a_connection_on_its_way(
    rig: Rig, monkeypatch: pytest.MonkeyPatch, rotated: bool
) -> None:
    """A name that is looked up for half a minute: no key goes out that was retired meanwhile."""
    loop = asyncio.get_running_loop()
    asked, found, look_up = asyncio.Event(), asyncio.Event(), loop.getaddrinfo

    async def slow(*args: object, **words: object) -> object:
        asked.set()
        await found.wait()
        return await look_up(*args, **words)  # type: ignore[arg-type]

    monkeypatch.setattr(loop, "getaddrinfo", slow)
    rig.keys.change(base_url=f"http://localhost:{rig.provider.port}/v1")
    waiting = asyncio.create_task(rig.ask(POST, body=CHAT))
    await asked.wait()
    if rotated:
        rig.keys.use(rig.provider.base_url, NEW, revision=2)
    else:
        rig.keys.held.clear()
    found.set()
    answer = await waiting
    assert answer.status == (200 if rotated else 401)
    assert rig.provider.with_key(OLD) == []
    assert len(rig.provider.calls) == rotated
    assert not rig.calls.uses_older(SLOT, 99)


async def test_a_call_that_is_tried_again_does_not_bring_a_retired_key_back(rig: Rig) -> None:
    """A kept connection ends without an answer, and the library makes the call once more."""
    heads: list[bytes] = []
    arrived, over = asyncio.Event(), asyncio.Event()

    async def script(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        heads.append(await reader.readuntil(b"\r\n\r\n"))
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")
        heads.append(await reader.readuntil(b"\r\n\r\n"))
        arrived.set()
        await over.wait()

    async with odd_provider(script) as url:
        rig.keys.change(base_url=url)
        assert (await rig.ask()).body == b"ok"
        waiting = asyncio.create_task(rig.ask())
        await arrived.wait()
        rig.keys.held.clear()
        over.set()
        assert (await waiting).headers["x-byok-problem"] == "no_usable_key"
    assert len(heads) == 2


async def test_a_stream_goes_on_with_the_key_it_began_with(rig: Rig) -> None:
    """Once its head is out it does not count for `drained`; it ends as if nothing had happened."""
    gate = rig.provider.hold_streams(OLD)
    wire = await rig.wire()
    await wire.send(rig.request(POST, body=b'{"stream": true}'))
    assert (await wire.head())[0] == 200
    rig.keys.use(rig.provider.base_url, NEW, revision=2)
    assert not rig.calls.uses_older(SLOT, 2)
    rig.provider.kill(OLD)
    gate.open()
    rest = b""
    while chunk := await wire.chunk():
        rest += chunk
    assert rest.endswith(b"data: [DONE]\n\n")


async def test_no_call_is_lost_in_twenty_rotations(rig: Rig) -> None:
    """Eight callers, streams and whole answers; each old key dies the moment it is drained."""
    rig.provider.behave(OLD, head_after=0.002)
    over = asyncio.Event()
    statuses: list[int] = []

    async def caller(body: bytes) -> None:
        wire = await rig.wire()
        while not over.is_set():
            await wire.send(rig.request(POST, body=body))
            answer = await wire.answer()
            statuses.append(answer.status)
            assert answer.whole

    async def used(key: str) -> None:
        await rig.provider.until(lambda: len(rig.provider.with_key(key)) > 4)

    callers = [asyncio.create_task(caller(body)) for body in (CHAT, b'{"stream": true}') * 4]
    settled = asyncio.Event()
    rig.calls.on_settled(settled.set)
    for revision in range(2, 22):
        old, new = rig.keys.held[SLOT].secret, f"sk-canary-{revision}-0123456789"
        rig.provider.accept(new, rig.provider.behaviour(old))
        rig.keys.use(rig.provider.base_url, new, revision=revision)
        while rig.calls.uses_older(SLOT, revision):
            settled.clear()
            await settled.wait()
        rig.provider.kill(old)
        await used(new)
    over.set()
    await asyncio.gather(*callers)
    assert len(statuses) >= 100
    assert set(statuses) == {200}
    assert all(call.status == 200 for call in rig.provider.calls)
