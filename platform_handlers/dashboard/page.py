"""The page: sign-in by a one-time link, the board, and the pieces its script fetches.

Link scanners and previews follow every link they see, so opening one shows a button and uses
nothing up; only the button's POST does.
"""

import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined
from starlette.requests import Request
from starlette.responses import HTMLResponse, RedirectResponse, Response
from starlette.routing import Mount, Route
from starlette.staticfiles import StaticFiles

from bus_schemas.fields import at_utc
from bus_schemas.keys import in_fours
from platform_handlers.banner.view import list_of, view_of
from platform_handlers.dashboard.api import Desk
from platform_handlers.dashboard.bodies import read_form
from platform_handlers.dashboard.callers import (
    COOKIE,
    Caller,
    check_csrf,
    check_same_origin,
    csrf_token,
    visitor_of,
)
from platform_handlers.dashboard.problems import no_banner
from platform_handlers.dashboard.shown import (
    Shown,
    commands_marked,
    counts_of,
    in_list,
    provider_name,
    receipt_words,
    silence_words,
    slot_words,
)

_SESSION_SECONDS = 12 * 3600
"""How long the browser keeps the cookie; the registry ends sessions by its own clock."""
_STATIC = Path(__file__).parent / "static"

Visit = Callable[[Request, Caller], Awaitable[Response]]


class Page:
    """Every HTML answer."""

    def __init__(self, desk: Desk) -> None:
        self._desk = desk
        self._templates = Environment(
            loader=PackageLoader("platform_handlers.dashboard"),
            autoescape=True,
            undefined=StrictUndefined,
            trim_blocks=True,
            lstrip_blocks=True,
        )
        self._templates.filters.update(
            commands=commands_marked,
            in_fours=in_fours,
            provider_name=provider_name,
            receipt_words=receipt_words,
            silence_words=silence_words,
            slot_words=slot_words,
        )

    def routes(self) -> list[Route | Mount]:
        """Return the page's routes."""
        return [
            Route("/", self._visited(self._board), methods=["GET"]),
            Route("/cards/{banner_id}", self._visited(self._card), methods=["GET"]),
            Route("/servers", self._visited(self._servers), methods=["GET"]),
            Route("/login/{secret}", self._door, methods=["GET"]),
            Route("/login/{secret}", self._enter, methods=["POST"]),
            Route("/logout", self._visited(self._leave), methods=["POST"]),
            Mount("/static", StaticFiles(directory=_STATIC)),
        ]

    def _visited(self, answer: Visit) -> Callable[[Request], Awaitable[Response]]:
        async def endpoint(request: Request) -> Response:
            visitor = await visitor_of(request, self._desk.neighbours)
            return await answer(request, visitor) if visitor else self._signed_out()

        return endpoint

    def _render(self, template: str, status: int = 200, **values: Any) -> HTMLResponse:  # noqa: ANN401 (what the template takes)
        return HTMLResponse(self._templates.get_template(template).render(**values), status)

    def _signed_out(self) -> Response:
        return self._render(
            "door.html",
            401,
            title="You are signed out",
            sentence="Ask your platform for a new sign-in link and open it in this browser.",
            opens=False,
        )

    async def _board(self, _: Request, visitor: Caller) -> Response:
        await self._desk.loaded()
        found = list_of(self._desk.feed.board, visitor.owner_id)
        servers = await self._desk.server_views(visitor.owner_id)
        return self._render(
            "board.html",
            owner=visitor.owner_id,
            csrf=csrf_token(visitor.session or ""),
            cursor=found.cursor,
            counts=counts_of(found.banners),
            open=in_list(found.banners, "open"),
            dismissed=in_list(found.banners, "dismissed"),
            cleared=in_list(found.banners, "cleared"),
            servers=servers.servers,
            now=at_utc(time.time()),
        )

    async def _card(self, request: Request, visitor: Caller) -> Response:
        board, banner_id = self._desk.feed.board, request.path_params["banner_id"]
        entry = board.get(visitor.owner_id, banner_id)
        if entry is None:
            raise no_banner(banner_id)
        banners = list_of(board, visitor.owner_id).banners
        return self._render("one_card.html", shown=Shown(view_of(entry)), counts=counts_of(banners))

    async def _servers(self, _: Request, visitor: Caller) -> Response:
        servers = await self._desk.server_views(visitor.owner_id)
        return self._render("servers.html", servers=servers.servers, now=at_utc(time.time()))

    async def _door(self, _: Request) -> Response:
        # The form posts to where it stands: the secret in the address is not said again.
        return self._render(
            "door.html",
            title="Sign in to byok",
            sentence="See which keys your servers use, and whether anything needs you.",
            opens=True,
        )

    async def _enter(self, request: Request) -> Response:
        check_same_origin(request)  # else a stranger could sign you in to an account of theirs
        session = await self._desk.neighbours.sessions.open_session(request.path_params["secret"])
        if session is None:
            return self._render(
                "door.html",
                403,
                title="This link no longer works",
                sentence="A link signs in once and not for long. Ask your platform for a new one. "
                "If you have not used this one, tell them: somebody else may have.",
                opens=False,
            )
        answer = RedirectResponse("/", 303)
        answer.set_cookie(
            COOKIE,
            session,
            max_age=_SESSION_SECONDS,
            path="/",
            secure=True,
            httponly=True,
            samesite="strict",
        )
        return answer

    async def _leave(self, request: Request, visitor: Caller) -> Response:
        check_csrf(request, visitor, (await read_form(request)).get("csrf", ""))
        await self._desk.neighbours.sessions.end_session(visitor.session or "")
        answer = RedirectResponse("/", 303)
        answer.delete_cookie(COOKIE, path="/", secure=True, httponly=True, samesite="strict")
        return answer
