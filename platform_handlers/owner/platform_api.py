"""The platform as the owner's machine sees it: an HTTPS API behind one pinned CA."""

import contextlib
import ssl
import time
from collections.abc import Callable
from dataclasses import dataclass
from types import TracebackType
from typing import Final, Self, TypeVar

import httpx
from pydantic import BaseModel, ValidationError

from bus_schemas.api import (
    Accepted,
    BannerList,
    OrderList,
    Problem,
    SealedSubmission,
    ServerList,
    ServerView,
    SlotHistory,
    SlotView,
)
from bus_schemas.approval import Approval, ApprovalReply
from bus_schemas.authorities import API_HEADER, API_PATH, SignedAuthorities
from bus_schemas.errors import ByokError, Refused
from bus_schemas.events.config import Order
from platform_handlers.owner import authorities
from platform_handlers.owner.home import Address

LOOK_EVERY_SECONDS: Final = 0.25
"""How often a command that waits for a server's word looks for it."""

_SECONDS = 20.0
_ATTEMPTS = 3

M = TypeVar("M", bound=BaseModel)


@dataclass
class PlatformUnreachable(ByokError):
    """The platform cannot be reached now; trying again may help."""

    detail: str

    def __str__(self) -> str:
        return self.detail


@dataclass
class PlatformRefused(ByokError):
    """The platform turned the request down and said why."""

    problem: Problem

    def __str__(self) -> str:
        return self.problem.detail


def passing(error: ByokError) -> bool:
    """Whether only our view is gone for a moment; what we look for goes on meanwhile."""
    busy = {429, 503}
    return not isinstance(error, PlatformRefused) or error.problem.status in busy


def insist(hand_in: Callable[[], object]) -> None:
    """Hand in; if the answer gets lost hand the very same in again, which is harmless.

    Raises PlatformRefused, and PlatformUnreachable when all attempts failed.
    """
    for attempt in range(1, _ATTEMPTS + 1):
        try:
            hand_in()
        except PlatformUnreachable:
            if attempt == _ATTEMPTS:
                raise
            time.sleep(attempt)
        else:
            return


class PlatformApi:
    """A client with the owner's token. Every method raises PlatformUnreachable, PlatformRefused."""

    def __init__(self, address: Address) -> None:
        """Raise Refused: `plain_address`, `bad_ca`, `no_token`."""
        if not address.url.startswith("https://"):
            raise Refused("plain_address", f"{address.url}: the token travels over https:// only")
        self._client = httpx.Client(
            base_url=address.url,
            verify=_trusting(address),
            headers={"Authorization": f"Bearer {address.token()}"},
            timeout=_SECONDS,
            follow_redirects=False,
            trust_env=False,  # no proxy and no netrc: the token goes to the platform alone
        )
        self._ca_file = address.ca_file if address.keeps_ca else None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        tb: TracebackType | None,
    ) -> None:
        self._client.close()

    def servers(self) -> ServerList:
        """Return the owner's servers, and who the owner is."""
        return self._ask("GET", "/api/servers", ServerList)

    def server(self, server_id: str) -> ServerView:
        """Return one server. Raises Refused(`wrong_server`) when the answer is about another."""
        view = self._ask("GET", f"/api/servers/{server_id}", ServerView)
        if view.server_id != server_id:
            detail = f"asked for {server_id}, the platform answered with {view.server_id}"
            raise Refused("wrong_server", detail)
        return view

    def slot(self, server_id: str, slot_id: str) -> SlotView:
        """Return how far a slot has come."""
        return self._ask("GET", f"/api/servers/{server_id}/slots/{slot_id}", SlotView)

    def history(self, server_id: str, slot_id: str) -> SlotHistory:
        """Return the newest rotations of a slot."""
        path = f"/api/servers/{server_id}/slots/{slot_id}/history"
        return self._ask("GET", path, SlotHistory)

    def banners(self) -> BannerList:
        """Return the owner's banners."""
        return self._ask("GET", "/api/banners", BannerList)

    def orders(self, server_id: str) -> OrderList:
        """Return the orders that wait for a server, and those it has answered."""
        return self._ask("GET", f"/api/servers/{server_id}/orders", OrderList)

    def order(self, server_id: str, order: Order) -> Accepted:
        """Hand in a signed order. Handing in the same one again is harmless."""
        return self._ask("POST", f"/api/servers/{server_id}/orders", Accepted, order)

    def approve(self, approval: Approval) -> ApprovalReply:
        """Hand in the approval of a restored machine. Sending the same one again is harmless."""
        path = f"/api/servers/{approval.server_id}/approval"
        return self._ask("POST", path, ApprovalReply, approval)

    def send(self, submission: SealedSubmission) -> Accepted:
        """Hand in a sealed credential. Sending the same one again is harmless."""
        envelope = submission.envelope
        path = f"/api/servers/{envelope.server_id}/slots/{envelope.slot_id}"
        return self._ask("POST", path, Accepted, submission)

    def _ask(self, verb: str, path: str, model: type[M], body: BaseModel | None = None) -> M:
        content = None if body is None else body.model_dump_json()
        headers = {} if body is None else {"Content-Type": "application/json"}
        try:
            answer = self._client.request(verb, path, content=content, headers=headers)
        except httpx.TransportError as error:
            raise self._explained(error) from None  # the chain would hold the request's headers
        self._follow_authorities(answer.headers.get(API_HEADER, ""))
        if not answer.is_success:
            raise self._refused(answer)
        try:
            return model.model_validate_json(answer.content)
        except ValidationError:
            detail = f"{self._client.base_url} did not answer like a byok platform"
        raise PlatformUnreachable(detail)

    def _follow_authorities(self, named: str) -> None:
        """Learn of a CA that the platform has added or retired; the next command trusts it."""
        if not (self._ca_file and named and authorities.differ(self._ca_file, named)):
            return
        with contextlib.suppress(httpx.TransportError, ValidationError):
            answer = self._client.get(API_PATH)
            offered = SignedAuthorities.model_validate_json(answer.content)
            authorities.follow(self._ca_file, offered)

    def _refused(self, answer: httpx.Response) -> ByokError:
        try:
            return PlatformRefused(Problem.model_validate_json(answer.content))
        except ValidationError:
            detail = f"{self._client.base_url} answered {answer.status_code} without a reason"
        return PlatformUnreachable(detail)

    def _explained(self, error: httpx.TransportError) -> ByokError:
        where, cause = self._client.base_url, error.__cause__
        while cause is not None and not isinstance(cause, ssl.SSLError):
            cause = cause.__cause__ or cause.__context__
        if isinstance(cause, ssl.SSLCertVerificationError):
            why = cause.verify_message or "verification failed"
            remedy = "if its CA was changed, run `byok owner connect` with its new ca.pem"
            detail = f"{where} is not who it should be: {why}; {remedy}"
            return Refused("wrong_certificate", detail)
        if isinstance(cause, ssl.SSLError):
            return Refused("no_tls", f"{where} does not speak TLS as it should")
        return PlatformUnreachable(f"{where} cannot be reached ({type(error).__name__})")


def _trusting(address: Address) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    try:
        context.load_verify_locations(cafile=address.ca_file)
    except (OSError, ssl.SSLError):
        detail = f"{address.ca_file} is not a readable CA certificate; the platform publishes it"
        raise Refused("bad_ca", detail) from None
    return context
