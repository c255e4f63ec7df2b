"""Builds the dashboard and serves it over TLS.

There is no access log: paths hold one-time secrets, headers hold tokens. What goes wrong is
logged by the kind of the error alone.
"""

import asyncio
import contextlib
import logging
import socket
from collections.abc import AsyncIterator, Iterator

import structlog
import uvicorn
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import Response

from bus_schemas.transport.database import StorageFull
from bus_schemas.transport.jetstream import StreamError
from bus_schemas.transport.pulse import watched
from bus_schemas.transport.target import BusUnavailable
from platform_handlers.authority.installation import Installation
from platform_handlers.authority.rotation import check_pair
from platform_handlers.banner.feed import Feed
from platform_handlers.dashboard import api
from platform_handlers.dashboard.authorities import (
    NamesAuthorities,
    Published,
    authorities_route,
)
from platform_handlers.dashboard.certificate import keep_current
from platform_handlers.dashboard.headers import SecurityHeaders
from platform_handlers.dashboard.page import Page
from platform_handlers.dashboard.patience import PatientProtocol
from platform_handlers.dashboard.ports import Neighbours
from platform_handlers.dashboard.problems import ProblemError, unavailable
from platform_handlers.dashboard.stream import HEARTBEAT_SECONDS

_log = structlog.get_logger(__name__)

_GOODBYE_SECONDS = 3
"""Open streams get this long when the process ends; browsers come back by themselves."""

_STUCK_SECONDS = 30.0
"""uvicorn takes a step every tenth of a second; without one for so long it is stuck (`pulse`)."""


def build_api(
    neighbours: Neighbours,
    feed: Feed,
    *,
    heartbeat: float = HEARTBEAT_SECONDS,
    authorities: Published = lambda: None,
) -> Starlette:
    """Return the application; *feed* must be run by the caller. *heartbeat* is in seconds."""
    desk = api.Desk(neighbours, feed, heartbeat)
    app = Starlette(
        routes=[authorities_route(authorities), *api.routes(desk), *Page(desk).routes()],
        middleware=[
            Middleware(SecurityHeaders),
            Middleware(NamesAuthorities, published=authorities),
        ],
        exception_handlers={
            ProblemError: _problem,
            HTTPException: _routing_problem,
            BusUnavailable: _bus_problem,
            StreamError: _bus_problem,
            StorageFull: _bus_problem,
        },
    )
    app.state.closing = desk.closing
    return app


@contextlib.asynccontextmanager
async def serve(
    app: Starlette, installation: Installation, *, host: str = "127.0.0.1", port: int = 0
) -> AsyncIterator[str]:
    """Serve *app* with the installation's certificate; give its `https://` address.

    Port 0 lets the system choose. Raises OSError when the address is taken or the pair unreadable,
    Refused(`pair_broken`).
    """
    pair = installation.api_pair
    check_pair(pair)
    with _listening(host, port) as listener:
        server = _Server(
            uvicorn.Config(
                app,
                http=PatientProtocol,
                ssl_certfile=pair.certificate,
                ssl_keyfile=pair.key,
                log_config=None,
                access_log=False,
                server_header=False,
                lifespan="off",
                timeout_graceful_shutdown=_GOODBYE_SECONDS,
                h11_max_incomplete_event_size=32 * 1024,
            )
        )
        # `access_log=False` only takes its handlers away, and whoever adds one brings it back.
        logging.getLogger("uvicorn.access").disabled = True
        server.config.load()  # a bad certificate is told here, to whoever starts us
        serving = watched("https", server.serve([listener]), within=_STUCK_SECONDS, ends=True)
        running = asyncio.create_task(serving, name="https")
        assert server.config.ssl is not None  # noqa: S101 (both files were given)
        renewing = asyncio.create_task(keep_current(server.config.ssl, pair), name="certificate")
        try:
            await server.wait_until_ready(running)
            yield f"https://{host}:{listener.getsockname()[1]}"
        finally:
            renewing.cancel()
            app.state.closing.set()
            server.should_exit = True
            await running


class _Server(uvicorn.Server):
    """uvicorn as a part of a larger program."""

    def __init__(self, config: uvicorn.Config) -> None:
        super().__init__(config)
        self._ready = asyncio.Event()

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        self._ready.set()

    async def wait_until_ready(self, running: "asyncio.Task[None]") -> None:
        """Return once connections are answered. Raises what stopped it before that."""
        ready = asyncio.create_task(self._ready.wait())
        try:
            await asyncio.wait({ready, running}, return_when=asyncio.FIRST_COMPLETED)
        finally:
            ready.cancel()
        if running.done():
            running.result()

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Leave signals to the program we are a part of."""
        yield


@contextlib.contextmanager
def _listening(host: str, port: int) -> Iterator[socket.socket]:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    listener = socket.create_server((host, port), family=family, backlog=512)
    try:
        yield listener
    finally:
        listener.close()


async def _problem(_: Request, error: Exception) -> Response:
    assert isinstance(error, ProblemError)  # noqa: S101 (registered for it alone)
    return error.response()


async def _routing_problem(_: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)  # noqa: S101 (registered for it alone)
    code = {404: "not-found", 405: "method-not-allowed"}.get(error.status_code, "http")
    detail = "There is nothing at this address, or not by this method. See docs/protocol.md."
    headers = dict(error.headers or {})
    return ProblemError(error.status_code, code, error.detail, detail, headers).response()


async def _bus_problem(_: Request, error: Exception) -> Response:
    _log.warning("api_unavailable", error=type(error).__name__)
    return unavailable("The platform's message bus or disk does not answer.").response()
