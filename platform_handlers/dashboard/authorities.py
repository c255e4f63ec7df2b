"""How owners' machines learn of the platform's next CA: named in every answer, fetched when new."""

from collections.abc import Callable

from starlette.datastructures import MutableHeaders
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from bus_schemas.authorities import API_HEADER, API_PATH, SignedAuthorities

Published = Callable[[], SignedAuthorities | None]
"""Returns the signed list, None where there is none."""


def authorities_route(published: Published) -> Route:
    """Return the route of the signed list, which anybody may have."""

    async def answer(_: Request) -> Response:
        found = published()
        if found is None:
            return Response(status_code=404)
        return Response(found.model_dump_json(), media_type="application/json")

    return Route(API_PATH, answer)


class NamesAuthorities:
    """ASGI middleware: the API's answers carry the ids of the platform's CAs."""

    def __init__(self, app: ASGIApp, published: Published) -> None:
        self._app = app
        self._published = published

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request, with the header added."""

        async def send_named(message: Message) -> None:
            if message["type"] == "http.response.start" and (found := self._published()):
                headers = MutableHeaders(scope=message)
                headers[API_HEADER] = " ".join(sorted(found.ids()))
            await send(message)

        of_api = scope["type"] == "http" and scope["path"].startswith("/api/")
        await self._app(scope, receive, send_named if of_api else send)
