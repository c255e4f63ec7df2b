"""The made-up provider: one HTTP server on loopback that speaks what the real ones speak.

Test support: it ships in no package. Credentials that it does not know are refused with 401.
"""

import asyncio
import json
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import replace

from aiohttp import web

from tests.provider.answers import dialect, error, is_generation, models, streamed, whole
from tests.provider.behaviour import DEAD, Behaviour, Call, Gate

_KEPT_BODY = 65_536
_SECRETS_LONGEST = 64 * 1024 * 1024
_CLOSING_SECONDS = 0.1


class FakeProvider:
    """Answers by key. What it does and what it saw are attributes; it runs in the test's loop."""

    def __init__(self, *, accepts_all: bool = False) -> None:
        self.calls: list[Call] = []
        """Every call since the start, in the order of arrival; the control paths are none."""
        self.port = 0
        self._rest = Behaviour() if accepts_all else DEAD
        self._keys: dict[str, Behaviour] = {}
        self._heads: dict[str, Gate] = {}
        self._streams: dict[str, Gate] = {}
        self._changed = asyncio.Event()
        self.app = web.Application(client_max_size=_SECRETS_LONGEST + 1)
        self.app.router.add_route("*", "/{path:.*}", self._answer)

    @property
    def origin(self) -> str:
        """Where it is: `http://127.0.0.1:port`."""
        return f"http://127.0.0.1:{self.port}"

    @property
    def base_url(self) -> str:
        """What a credential is sealed with."""
        return f"{self.origin}/v1"

    # --- what it does ---

    def accept(self, key: str, behaviour: Behaviour | None = None) -> None:
        """Know *key* from now on; or change how it is answered."""
        self._keys[key] = behaviour or Behaviour()

    def behave(self, key: str, **changes: object) -> None:
        """Change some fields of the Behaviour of *key*."""
        self._keys[key] = replace(self.behaviour(key), **changes)  # type: ignore[arg-type]

    def kill(self, key: str) -> None:
        """Revoke *key*: 401 at once, also to calls whose head is not out yet."""
        self.accept(key, replace(self.behaviour(key), status=401))

    def behaviour(self, key: str | None) -> Behaviour:
        """Return what is done with *key*."""
        return self._keys.get(key, self._rest) if key else DEAD

    def hold_heads(self, key: str) -> Gate:
        """Let calls with *key* wait before the head of their answer until the gate is opened."""
        self._heads[key] = Gate()
        return self._heads[key]

    def hold_streams(self, key: str) -> Gate:
        """The same after the first part of each streamed answer."""
        self._streams[key] = Gate()
        return self._streams[key]

    # --- what it saw ---

    def with_key(self, key: str) -> list[Call]:
        """Return the calls that were made with *key*."""
        return [call for call in self.calls if call.key == key]

    async def until(self, fact: Callable[[], bool], *, within: float = 10) -> None:
        """Return once *fact* holds; it is looked at after everything that happens here."""
        async with asyncio.timeout(within):
            while not fact():
                self._changed.clear()
                await self._changed.wait()

    # --- running ---

    @asynccontextmanager
    async def serving(self, port: int = 0) -> AsyncIterator["FakeProvider"]:
        """Listen on loopback as long as the context lasts; port 0 takes a free one."""
        runner = web.AppRunner(
            self.app,
            access_log=None,
            handler_cancellation=True,
            shutdown_timeout=_CLOSING_SECONDS,
        )
        await runner.setup()
        try:
            await web.TCPSite(runner, "127.0.0.1", port).start()
            self.port = runner.addresses[0][1]
            yield self
        finally:
            await runner.cleanup()

    # --- one call ---

    async def _answer(self, request: web.Request) -> web.StreamResponse:
        key, style = _credential(request)
        names = {name.lower(): value for name, value in request.headers.items()}
        call = Call(key, style, request.method, request.path_qs, names)
        self.calls.append(call)
        self._tell()
        try:
            return await self._speak(request, call)
        except (asyncio.CancelledError, ConnectionError):
            call.gone = True
            raise
        finally:
            self._tell()

    async def _speak(self, request: web.Request, call: Call) -> web.StreamResponse:
        content = await request.read()
        call.body, call.size = content[:_KEPT_BODY], len(content)
        self._tell()
        behaviour = self.behaviour(call.key)
        if behaviour.head_after:
            await asyncio.sleep(behaviour.head_after)  # what it is there for: a slow provider
        if call.key in self._heads:
            await self._heads[call.key].passed()
        behaviour = self.behaviour(call.key)  # it may have been killed meanwhile
        call.status = behaviour.status
        if behaviour.status != web.HTTPOk.status_code:
            return self._refusal(call, behaviour)
        wish = _wish(content)
        model = str(wish.get("model", "fake-1"))
        speech = dialect(request.path)
        if not is_generation(request.path):
            answer = behaviour.answer or (models() | {"valid": True})
        elif wish.get("stream"):
            parts = streamed(speech, model, behaviour.pieces, behaviour.piece_size)
            return await self._stream(request, call, behaviour, list(parts))
        else:
            answer = whole(speech, model, behaviour.pieces)
        return web.json_response(answer, headers=behaviour.headers)

    def _refusal(self, call: Call, behaviour: Behaviour) -> web.Response:
        shown = call.key if behaviour.echo else None
        headers = dict(behaviour.headers)
        if shown:
            headers["X-Refused-Key"] = shown
        body = error(dialect(call.path.partition("?")[0]), behaviour.status, shown)
        return web.json_response(body, status=behaviour.status, headers=headers)

    async def _stream(
        self, request: web.Request, call: Call, behaviour: Behaviour, parts: list[bytes]
    ) -> web.StreamResponse:
        stream = web.StreamResponse(headers={"Content-Type": "text/event-stream"})
        stream.headers.update(behaviour.headers)
        await stream.prepare(request)
        for number, part in enumerate(parts):
            if number == behaviour.breaks_after:
                assert request.transport is not None
                request.transport.abort()
                break
            if number and behaviour.piece_after:
                await asyncio.sleep(behaviour.piece_after)  # the same: a slow one
            if number and call.key in self._streams:
                await self._streams[call.key].passed()
            await stream.write(part)
            call.sent += len(part)
            self._tell()
        return stream

    def _tell(self) -> None:
        self._changed.set()


def _credential(request: web.Request) -> tuple[str | None, str | None]:
    """Return the key of a call and where it was."""
    scheme, _, token = request.headers.get("Authorization", "").partition(" ")
    if scheme.lower() == "bearer":
        return token, "bearer"
    for name in ("x-api-key", "x-goog-api-key"):
        if name in request.headers:
            return request.headers[name], name
    if "key" in request.query:
        return request.query["key"], "query"
    return None, None


def _wish(content: bytes) -> dict[str, object]:
    try:
        read = json.loads(content)
    except ValueError:
        return {}
    return read if isinstance(read, dict) else {}
