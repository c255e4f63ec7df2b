"""Taking an owner's signed order in over the API."""

from typing import Final

from starlette.requests import Request

from bus_schemas.api import Accepted
from bus_schemas.errors import Refused
from bus_schemas.events.config import Order
from bus_schemas.orders import Addressee
from platform_handlers.dashboard.bodies import read_json
from platform_handlers.dashboard.ports import KnownServer, Orders
from platform_handlers.dashboard.problems import ProblemError

_STATUS: Final = {"stale_n": 409, "owner_key_not_pinned": 403, "not_for_the_platform": 403}


async def take_order(
    orders: Orders, owner_id: str, server: KnownServer, request: Request
) -> Accepted:
    """Put the order in *request* into the document of *server*. Raises ProblemError."""
    order = await read_json(request, Order)
    if server.identity_key is None or not server.active:
        detail = f"{server.server_id} has not joined yet, or was revoked: it obeys no order."
        raise ProblemError(422, "server-not-active", "Nobody to order", detail)
    try:
        wanted = await orders.give(
            Addressee(owner_id, server.server_id, server.identity_key), order
        )
    except Refused as error:
        raise _refused(error, server.server_id) from None
    return Accepted(generation=wanted.generation)


def _refused(error: Refused, server_id: str) -> ProblemError:
    status = _STATUS.get(error.reason, 422)
    title, remedy = "The order was refused", ""
    if error.reason == "stale_n":
        title, remedy = "Somebody was faster", " Read the orders again and sign anew."
    detail = f"{error.detail or f'The order to {server_id} was refused'}.{remedy}"
    return ProblemError(status, error.reason.replace("_", "-"), title, detail)
