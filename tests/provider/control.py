"""The control interface of the made-up provider's process: JSON over the same port, no secrecy."""

from typing import Any

from aiohttp import web

from tests.provider.behaviour import BEHAVIOUR, Gate
from tests.provider.server import FakeProvider


def add_control(provider: FakeProvider) -> None:
    """Add `/control/…` to what *provider* answers; the longer path goes first."""
    gates: dict[str, Gate] = {}

    async def accept(request: web.Request) -> web.Response:
        wish: dict[str, Any] = await request.json()
        provider.accept(wish["key"], BEHAVIOUR.validate_python(wish.get("behaviour", {})))
        return web.json_response({})

    async def kill(request: web.Request) -> web.Response:
        provider.kill((await request.json())["key"])
        return web.json_response({})

    async def hold(request: web.Request) -> web.Response:
        key = (await request.json())["key"]
        gates[key] = provider.hold_heads(key)
        return web.json_response({})

    async def release(request: web.Request) -> web.Response:
        gates[(await request.json())["key"]].open()
        return web.json_response({})

    async def calls(request: web.Request) -> web.Response:
        since = int(request.query.get("since", "0"))
        return web.json_response([call.as_json() for call in provider.calls[since:]])

    for handler in (accept, kill, hold, release):
        provider.app.router.add_post(f"/control/{handler.__name__}", handler)
    provider.app.router.add_get("/control/calls", calls)
