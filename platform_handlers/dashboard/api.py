"""The JSON API. Each answer is made from the caller's owner id, never from one in the request."""

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from functools import partial

from pydantic import BaseModel
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route
from starlette.types import ASGIApp

from bus_schemas.api import (
    Accepted,
    Dismissal,
    SealedSubmission,
    ServerList,
    ServerView,
    SlotView,
)
from bus_schemas.approval import Approval, ApprovalReply
from bus_schemas.errors import Refused
from bus_schemas.events import DismissalRequested, DismissalUndone
from bus_schemas.events.banner import BannerState
from bus_schemas.keys import server_fingerprint
from bus_schemas.sealed import SealedEnvelope
from platform_handlers.banner.board import Entry
from platform_handlers.banner.feed import Feed, TooManyListeners
from platform_handlers.banner.view import list_of
from platform_handlers.dashboard.bodies import read_json
from platform_handlers.dashboard.callers import Caller, caller_of
from platform_handlers.dashboard.orders import take_order
from platform_handlers.dashboard.ports import KnownServer, Neighbours
from platform_handlers.dashboard.problems import (
    ProblemError,
    no_banner,
    no_server,
    not_found,
    unavailable,
)
from platform_handlers.dashboard.stream import Audience, EventStream, cursor_of, frames

_CATCH_UP_SECONDS = 5.0
_OVERTAKEN = {"stale_base_revision", "revision_not_newer"}

Answer = Callable[["Desk", Request, Caller], Awaitable[Response | ASGIApp]]


@dataclass(frozen=True)
class Desk:
    """What every answer is made with."""

    neighbours: Neighbours
    feed: Feed
    heartbeat: float
    closing: asyncio.Event = field(default_factory=asyncio.Event)
    """Set when the process ends: open streams would hold it up."""

    async def loaded(self) -> None:
        """Wait until the board is whole. Raises ProblemError 503 when that takes too long."""
        try:
            async with asyncio.timeout(_CATCH_UP_SECONDS):
                await self.feed.caught_up()
        except TimeoutError:
            raise unavailable("The banners are still being read from the bus.") from None

    async def server_view(self, server: KnownServer) -> ServerView:
        """Return *server* with its keys and slots."""
        key, shelf = server.identity_key, self.neighbours.shelf
        standing = await shelf.standing(server.server_id)
        return ServerView(
            server_id=server.server_id,
            active=server.active,
            identity_key=key,
            fingerprint=server_fingerprint(server.server_id, key) if key else None,
            sealing_key=await shelf.sealing_key(server.server_id),
            slots=tuple(standing.slots),
            locked=standing.locked,
            reported_at=standing.reported_at,
            health=standing.health,
        )

    async def server_views(self, owner_id: str) -> ServerList:
        """Return all servers of *owner_id*."""
        found = await self.neighbours.fleet.servers_of(owner_id)
        views = [await self.server_view(server) for server in found]
        return ServerList(owner_id=owner_id, servers=tuple(views))


def routes(desk: Desk) -> list[Route]:
    """Return the API's routes."""
    server = "/api/servers/{server_id}"
    slot = server + "/slots/{slot_id}"
    dismissal = "/api/banners/{banner_id}/dismissal"
    table: list[tuple[str, str, Answer]] = [
        ("GET", "/api/servers", _servers),
        ("GET", server, _server),
        ("GET", slot, _slot),
        ("POST", slot, _take_sealed),
        ("GET", slot + "/history", _history),
        ("GET", server + "/orders", _orders),
        ("POST", server + "/orders", _take_order),
        ("POST", server + "/approval", _approve),
        ("GET", "/api/banners", _banners),
        ("GET", "/api/banners/stream", _banner_stream),
        ("POST", dismissal, _dismiss),
        ("DELETE", dismissal, _undo),
    ]
    return [Route(path, _known(desk, answer), methods=[verb]) for verb, path, answer in table]


def _known(desk: Desk, answer: Answer) -> Callable[[Request], Awaitable[Response | ASGIApp]]:
    """Let *answer* be called only with a caller we know."""

    async def endpoint(request: Request) -> Response | ASGIApp:
        return await answer(desk, request, await caller_of(request, desk.neighbours))

    return endpoint


async def _servers(desk: Desk, _: Request, caller: Caller) -> Response:
    return _json(await desk.server_views(caller.owner_id))


async def _server(desk: Desk, request: Request, caller: Caller) -> Response:
    return _json(await desk.server_view(await _own_server(desk, request, caller)))


async def _slot(desk: Desk, request: Request, caller: Caller) -> Response:
    server = await _own_server(desk, request, caller)
    return _json(await _slot_of(desk, server.server_id, request.path_params["slot_id"]))


async def _history(desk: Desk, request: Request, caller: Caller) -> Response:
    server = await _own_server(desk, request, caller)
    slot = await _slot_of(desk, server.server_id, request.path_params["slot_id"])
    return _json(await desk.neighbours.shelf.history(server.server_id, slot.slot_id))


async def _slot_of(desk: Desk, server_id: str, slot_id: str) -> SlotView:
    for slot in (await desk.neighbours.shelf.standing(server_id)).slots:
        if slot.slot_id == slot_id:
            return slot
    remedy = f"`byok key set {server_id} SLOT` makes one."
    raise not_found("slot", f"{slot_id} on {server_id}", remedy)


async def _take_sealed(desk: Desk, request: Request, caller: Caller) -> Response:
    server = await _own_server(desk, request, caller)
    submission = await read_json(request, SealedSubmission)
    envelope = submission.envelope
    _check_addressed(envelope, caller, request)
    try:
        wanted = await desk.neighbours.inbox.accept(envelope, submission.base_revision)
    except Refused as error:
        raise _envelope_refused(error, server.server_id) from None
    return _json(Accepted(generation=wanted.generation), 202)


async def _orders(desk: Desk, request: Request, caller: Caller) -> Response:
    server = await _own_server(desk, request, caller)
    return _json(await desk.neighbours.orders.list_of(server.server_id))


async def _take_order(desk: Desk, request: Request, caller: Caller) -> Response:
    server = await _own_server(desk, request, caller)
    orders = desk.neighbours.orders
    return _json(await take_order(orders, caller.owner_id, server, request), 202)


async def _approve(desk: Desk, request: Request, caller: Caller) -> Response:
    server = await _own_server(desk, request, caller)
    approval = await read_json(request, Approval)
    if approval.server_id != server.server_id:
        detail = f"The approval is not for {server.server_id}. Sign it for {server.server_id}."
        raise ProblemError(422, "wrong-address", "Signed for another server", detail)
    try:
        await desk.neighbours.approvals.approve(approval)
    except Refused as error:
        code, detail = error.reason.replace("_", "-"), error.detail or error.reason
        raise ProblemError(422, code, "The approval was refused", f"{detail}.") from None
    return _json(ApprovalReply())


async def _banners(desk: Desk, _: Request, caller: Caller) -> Response:
    await desk.loaded()
    return _json(list_of(desk.feed.board, caller.owner_id))


async def _banner_stream(desk: Desk, request: Request, caller: Caller) -> ASGIApp:
    await desk.loaded()
    audience = Audience(
        caller.owner_id, cursor_of(request), partial(_still_welcome, desk, request, caller)
    )
    source = frames(desk.feed, audience, heartbeat=desk.heartbeat)
    try:
        return EventStream(source, await anext(source), desk.closing)
    except TooManyListeners:
        raise ProblemError(
            429,
            "too-many-streams",
            "Too many open streams",
            "Close some of your open streams, then try again.",
            {"Retry-After": "30"},
        ) from None


async def _still_welcome(desk: Desk, request: Request, caller: Caller) -> bool:
    try:
        return (await caller_of(request, desk.neighbours)).owner_id == caller.owner_id
    except ProblemError:
        return False


async def _dismiss(desk: Desk, request: Request, caller: Caller) -> Response:
    entry = await _own_banner(desk, request, caller)
    wish = await read_json(request, Dismissal)
    banner = entry.banner
    if not entry.is_open or wish.revision > banner.revision:
        raise _overtaken(entry)
    await desk.neighbours.facts.tell(
        DismissalRequested(
            owner_id=caller.owner_id,
            banner_id=banner.banner_id,
            banner_revision=wish.revision,
            who=caller.who,
            why=wish.why,
        )
    )
    return Response(status_code=202)


async def _undo(desk: Desk, request: Request, caller: Caller) -> Response:
    entry = await _own_banner(desk, request, caller)
    if entry.banner.state is not BannerState.DISMISSED:
        raise _overtaken(entry)
    await desk.neighbours.facts.tell(
        DismissalUndone(owner_id=caller.owner_id, banner_id=entry.banner.banner_id, who=caller.who)
    )
    return Response(status_code=202)


def _envelope_refused(error: Refused, server_id: str) -> ProblemError:
    code, stale = error.reason.replace("_", "-"), error.reason in _OVERTAKEN
    title = "Somebody was faster" if stale else "The envelope was refused"
    remedy = "Read the slot again and seal anew." if stale else ""
    detail = f"{error.detail or f'The envelope for {server_id} was refused'}. {remedy}".rstrip()
    return ProblemError(409 if stale else 422, code, title, detail)


def _overtaken(entry: Entry) -> ProblemError:
    banner = entry.banner
    return ProblemError(
        409,
        "banner-changed",
        "The banner has changed",
        f"{banner.banner_id} is {banner.state} at revision {banner.revision}. Look at it again.",
    )


async def _own_server(desk: Desk, request: Request, caller: Caller) -> KnownServer:
    server_id = request.path_params["server_id"]
    server = await desk.neighbours.fleet.server_of(caller.owner_id, server_id)
    if server is None:
        raise no_server(server_id)
    return server


async def _own_banner(desk: Desk, request: Request, caller: Caller) -> Entry:
    await desk.loaded()
    banner_id = request.path_params["banner_id"]
    entry = desk.feed.board.get(caller.owner_id, banner_id)
    if entry is None:
        raise no_banner(banner_id)
    return entry


def _check_addressed(envelope: SealedEnvelope, caller: Caller, request: Request) -> None:
    expected = {
        "owner_id": caller.owner_id,
        "server_id": request.path_params["server_id"],
        "slot_id": request.path_params["slot_id"],
    }
    for name, value in expected.items():
        if getattr(envelope, name) != value:
            raise ProblemError(
                422,
                "wrong-address",
                "Sealed for somebody else",
                f"The envelope's {name} is not {value}, where it was posted. Seal it for {value}.",
            )


def _json(model: BaseModel, status: int = 200) -> Response:
    return Response(model.model_dump_json(), status, media_type="application/json")
