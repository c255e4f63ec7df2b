"""An authorization server as strict as the standards allow, and an API that takes its tokens.

Test support: it ships in no package. Refresh tokens are single-use; one that is shown again ends
its whole family, the access tokens too (RFC 9700 section 4.14.2). Errors are those of RFC 6749
section 5.2.
"""

import asyncio
import secrets
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

from aiohttp import web
from pydantic import SecretStr

from bus_schemas.credential import CredentialPayload, OAuthSet
from bus_schemas.fields import at_utc

CLIENT = "byok-test-client"
_CLOSING_SECONDS = 0.1


@dataclass
class Family:
    """All tokens that come from one sign-in."""

    account: str
    current: str
    """The one refresh token that is good."""
    used: list[str] = field(default_factory=list)
    """Those that were, oldest first."""
    access: dict[str, float] = field(default_factory=dict)
    """Access tokens and when they end, Unix seconds."""
    revoked: bool = False


class OAuthServer:
    """Token endpoint and API on loopback. What it does and saw are attributes."""

    def __init__(self, clock: Callable[[], float] = time.time) -> None:
        self.clock = clock
        self.lifetime: int | None = 3600
        """Of access tokens, in seconds; None: answers do not say, and they live for an hour."""
        self.rotates = True
        self.grace = 0
        """How many more times the refresh token before the current one is taken."""
        self.answers_with: list[web.Response] = []
        """Given in place of an answer, one each, before anything is done."""
        self.loses = 0
        """So many answers are lost: the request is obeyed, then the connection breaks."""
        self.holds: asyncio.Event | None = None
        """Answers wait for it, after the request was obeyed."""
        self.on_asked: Callable[[], None] = lambda: None
        """Called before a refresh is looked at."""
        self.on_obeyed: Callable[[], None] = lambda: None
        """Called after a refresh has changed the tokens, before the answer."""
        self.shown: list[str] = []
        """Every refresh token that was shown, in order."""
        self.families: list[Family] = []
        self.port = 0
        self._changed = asyncio.Event()

    @property
    def origin(self) -> str:
        """Where it is: `http://127.0.0.1:port`."""
        return f"http://127.0.0.1:{self.port}"

    def sign_in(self, account: str = "user-0123456789abcdef") -> CredentialPayload:
        """Return what somebody gets who signs in now."""
        family = Family(account, _token("refresh"))
        self.families.append(family)
        access = self._new_access(family)
        ends = None if self.lifetime is None else at_utc(family.access[access])
        oauth = OAuthSet(
            access_token=SecretStr(access),
            refresh_token=SecretStr(family.current),
            expires_at=ends,
            token_endpoint=f"{self.origin}/token",
            client_id=CLIENT,
            issuer=self.origin,
            account=account,
        )
        return CredentialPayload(oauth=oauth, base_url=self.origin, header_style="x-api-key")

    def end_access(self) -> None:
        """Take every access token away; the sign-ins stay."""
        for family in self.families:
            family.access.clear()

    async def until(self, fact: Callable[[], bool], *, within: float = 10) -> None:
        """Return once *fact* holds; it is looked at after everything that happens here."""
        async with asyncio.timeout(within):
            while not fact():
                self._changed.clear()
                await self._changed.wait()

    @asynccontextmanager
    async def serving(self) -> AsyncIterator["OAuthServer"]:
        """Listen on a free port of loopback as long as the context lasts."""
        app = web.Application()
        app.router.add_post("/token", self._token_endpoint)
        app.router.add_route("*", "/v1/{path:.*}", self._api)
        runner = web.AppRunner(app, access_log=None, shutdown_timeout=_CLOSING_SECONDS)
        await runner.setup()
        try:
            await web.TCPSite(runner, "127.0.0.1", 0).start()
            self.port = runner.addresses[0][1]
            yield self
        finally:
            await runner.cleanup()

    async def _token_endpoint(self, request: web.Request) -> web.StreamResponse:
        self.on_asked()
        try:
            if self.answers_with:
                self.shown.append(str((await request.post()).get("refresh_token")))
                return self.answers_with.pop(0)
            response = await self._obey(request)
            self.on_obeyed()
            if self.holds is not None:
                await self.holds.wait()
            if self.loses > 0:
                self.loses -= 1
                assert request.transport is not None
                request.transport.abort()
            return response
        finally:
            self._changed.set()

    async def _obey(self, request: web.Request) -> web.Response:
        form = {name: str(value) for name, value in (await request.post()).items()}
        shown = form.get("refresh_token")
        if shown is None or request.content_type != "application/x-www-form-urlencoded":
            return _error("invalid_request")
        if form.get("client_id") != CLIENT or "client_secret" in form:
            return _error("invalid_client", status=401)
        if form.get("grant_type") != "refresh_token":
            return _error("unsupported_grant_type")
        return self._refresh(shown)

    def _refresh(self, shown: str) -> web.Response:
        self.shown.append(shown)
        family = next((f for f in self.families if shown in (f.current, *f.used)), None)
        if family is None or family.revoked:
            return _error("invalid_grant")
        if shown != family.current:
            if shown != family.used[-1] or self.grace < 1:
                family.revoked = True  # RFC 9700 4.14.2: two hold it, one of them is a thief
                family.access.clear()
                return _error("invalid_grant")
            self.grace -= 1
        return self._answer(family)

    def _answer(self, family: Family) -> web.Response:
        answer: dict[str, object] = {
            "access_token": self._new_access(family),
            "token_type": "Bearer",
        }
        if self.lifetime is not None:
            answer["expires_in"] = self.lifetime
        if self.rotates:
            family.used.append(family.current)
            family.current = _token("refresh")
            answer["refresh_token"] = family.current
        return web.json_response(answer, headers={"Cache-Control": "no-store"})

    def _new_access(self, family: Family) -> str:
        token = _token("access")
        family.access[token] = self.clock() + (self.lifetime or 3600)
        return token

    async def _api(self, request: web.Request) -> web.Response:
        _, _, token = request.headers.get("Authorization", "").partition("Bearer ")
        now = self.clock()
        good = any(family.access.get(token, 0) > now for family in self.families)
        self._changed.set()
        if not good:
            return web.json_response({"error": {"type": "authentication_error"}}, status=401)
        return web.json_response({"data": [], "has_more": False})


def refresh_token(payload: CredentialPayload) -> str:
    """Return the refresh token in *payload*."""
    assert payload.oauth is not None
    return payload.oauth.refresh_token.get_secret_value()


def access_token(payload: CredentialPayload) -> str:
    """Return the access token in *payload*."""
    assert payload.oauth is not None
    return payload.oauth.access_token.get_secret_value()


def _token(kind: str) -> str:
    return f"{kind}-canary-{secrets.token_urlsafe(24)}"


def _error(code: str, *, status: int = 400) -> web.Response:
    body = {"error": code, "error_description": "the made-up server says no"}
    return web.json_response(body, status=status, headers={"Cache-Control": "no-store"})
