"""One call: to the provider with the key that may be used now, and its answer back as it comes."""

import asyncio
import socket
import struct
from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Final, Protocol

import aiohttp
from yarl import URL

from vps_runtime.gateway import web
from vps_runtime.gateway.body import Body
from vps_runtime.gateway.headers import returned, sent
from vps_runtime.gateway.mask import Mask
from vps_runtime.gateway.problem import BROKE_OFF, NotPassedOn, no_usable_key
from vps_runtime.gateway.rules import Pairs, Target
from vps_runtime.gateway.upstream import HEAD_SECONDS, looking_again, problem_of
from vps_runtime.keys.calls import Calls
from vps_runtime.keys.keyring import KeyInUse

_UNAUTHORIZED: Final = 401
_FIRST_REFUSAL: Final = 400
_SWITCHING: Final = 101
_RESET: Final = struct.pack("ii", 1, 0)
"""`struct linger` of socket(7): close with a reset and not with an end."""


class Keys(Protocol):
    """Who says what may be used; `Keyring`."""

    async def fresh(self, slot_id: str, refused: KeyInUse | None = None) -> KeyInUse | None:
        """Return what may be used for *slot_id* at this moment, and is not the *refused* one.

        A sign-in may be refreshed for that; nothing comes between the answer and who asked.
        """
        ...

    def current(self, slot_id: str) -> KeyInUse | None:
        """Return what may be used for *slot_id* at this moment; None if nothing may."""
        ...


@dataclass(frozen=True)
class Call:
    """One call of the agent."""

    request: web.BaseRequest
    target: Target
    headers: Pairs
    body: Body


class _OutOfUse(Exception):
    """A key went out of use before it was sent to anybody."""


class Forwarder:
    """Passes calls on. It keeps nothing of them but what is on its way."""

    def __init__(self, keys: Keys, calls: Calls, client: aiohttp.ClientSession) -> None:
        self._keys = keys
        self._calls = calls
        self._client = client

    async def pass_on(self, call: Call) -> web.StreamResponse:
        """Return the answer, already under way if it is long. Raises NotPassedOn."""
        if not call.body.arrived:
            await self._usable(call.target.slot_id)  # else the agent would send it for nothing
        _ = await call.body.payload()  # a small one is here then
        # The key last: an order may have come meanwhile.
        key, answer = await self._ask(call, await self._usable(call.target.slot_id))
        try:
            newer = await self._newer(call, key) if answer.status == _UNAUTHORIZED else None
            if newer:
                answer.close()
                key, answer = await self._ask(call, newer)
            call.body.forget()
            return await self._answer(call, key, answer)
        finally:
            answer.close()  # does nothing to a connection whose answer was read to its end

    async def _usable(self, slot_id: str) -> KeyInUse:
        key = await self._keys.fresh(slot_id)
        if key is None:
            raise NotPassedOn(no_usable_key(slot_id))
        return key

    async def _newer(self, call: Call, used: KeyInUse) -> KeyInUse | None:
        """Return what to repeat a refused call with: only what came into use after it began.

        A sign-in whose access token is refused is refreshed.
        """
        now = await self._keys.fresh(used.slot_id, refused=used) if call.body.again else None
        return None if now is None or now.revision < used.revision else now

    async def _ask(self, call: Call, key: KeyInUse) -> tuple[KeyInUse, aiohttp.ClientResponse]:
        """Return the head of the provider's answer, and what it was asked with.

        That is not *key* if it went out of use while there was no connection yet.
        """
        while True:
            try:
                return key, await self._head(call, key)
            except _OutOfUse:
                key = await self._usable(key.slot_id)

    async def _head(self, call: Call, key: KeyInUse) -> aiohttp.ClientResponse:
        """Return the head of the provider's answer; `Calls` knows it by then."""
        slot_id, revision = key.slot_id, key.revision
        self._calls.began(slot_id, revision)  # in the step in which the key was asked for
        try:
            async with asyncio.timeout(HEAD_SECONDS):  # also for a provider that reads no body
                answer = await self._send(call, key)
        except (aiohttp.ClientError, OSError) as error:  # OSError: timeouts and TLS, too
            self._calls.failed(slot_id, revision)
            if call.body.problem:
                raise NotPassedOn(call.body.problem) from None
            self._calls.reached(slot_id, answered=False)
            raise NotPassedOn(problem_of(error)) from None
        except BaseException:
            self._calls.failed(slot_id, revision)
            raise
        self._calls.answered(slot_id, revision, answer.status)
        if answer.status == _SWITCHING:  # nobody asked for it
            answer.close()
            raise NotPassedOn(BROKE_OFF)
        return answer

    async def _send(self, call: Call, key: KeyInUse) -> aiohttp.ClientResponse:
        def look() -> None:
            if self._keys.current(key.slot_id) != key:
                raise _OutOfUse

        payload = await call.body.payload()
        headers = sent(call.headers, key.provider, key.kind, key.header_style, key.secret)
        if call.body.length is not None and payload is not None:
            headers["content-length"] = str(call.body.length)
        if payload is not None and not isinstance(payload, bytes):
            payload = self._while_usable(call, payload)
        with looking_again(look):
            return await self._client.request(
                call.request.method,
                URL(key.base_url.rstrip("/") + call.target.rest, encoded=True),
                headers=headers,
                data=payload,
                allow_redirects=False,
            )

    async def _while_usable(self, call: Call, parts: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
        """Yield *parts* until an order leaves the slot without a key: its head is out with one."""
        async for part in parts:
            if self._keys.current(call.target.slot_id) is None:
                call.body.fail(no_usable_key(call.target.slot_id))
            yield part

    async def _answer(
        self, call: Call, key: KeyInUse, answer: aiohttp.ClientResponse
    ) -> web.StreamResponse:
        headers = returned(answer.headers.items(), key.secret)
        mask = Mask(key.secret) if answer.status >= _FIRST_REFUSAL else None
        if answer.content.is_eof() and answer.content.exception() is None:
            whole = answer.content.read_nowait()  # all of it is here: one write
            if mask:
                whole = mask.feed(whole) + mask.rest()
            return web.Response(status=answer.status, headers=headers, body=whole or None)
        response = web.StreamResponse(status=answer.status, headers=headers)
        await response.prepare(call.request)
        try:
            await _pour(answer.content, response, mask)
        except (aiohttp.ClientError, TimeoutError):
            _cut(call.request, response)
        except BaseException:
            _cut(call.request, response)
            raise
        return response


async def _pour(
    content: aiohttp.StreamReader, response: web.StreamResponse, mask: Mask | None
) -> None:
    """Write each part as it comes; no faster than it is read, no more in memory than a buffer."""
    while part := await content.readany():
        if mask:
            part = mask.feed(part)
        async with asyncio.timeout(HEAD_SECONDS):  # a reader that has stopped
            await response.write(part)
    if mask:
        await response.write(mask.rest())


def _cut(request: web.BaseRequest, response: web.StreamResponse) -> None:
    """End the connection without an end of the answer, so that the agent sees that some is missing.

    What ends with the connection itself (HTTP/1.0) is cut by a reset.
    """
    response.force_close()
    transport = request.transport
    if transport is None:
        return
    if response.content_length is None and request.version < (1, 1):
        connection = transport.get_extra_info("socket")
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
    transport.close()
