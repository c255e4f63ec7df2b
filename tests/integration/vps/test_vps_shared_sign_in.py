"""Two servers share one sign-in, against a strict authorization server, on a real bus."""

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from functools import partial
from pathlib import Path

import aiohttp

from bus_schemas.credential import CredentialPayload
from bus_schemas.event import Event
from bus_schemas.events import BannerEvent, FingerprintObserved
from bus_schemas.events.banner import BannerCode, BannerState, Severity
from bus_schemas.events.reported import CredentialVerified
from bus_schemas.fields import Basis
from bus_schemas.flows import Role
from platform_handlers.health.handler import HealthHandler
from tests.conftest import Platform
from tests.integration.vps.conftest import Fleet, of
from tests.oauth_server import OAuthServer, access_token
from tests.telling import banners_until, handling
from vps_runtime.state import StateFolder

ONE, TWO = "acme-1", "acme-2"
SLOT = "anthropic"
_REUSE, _REJECTED = BannerCode.OAUTH_REUSE, BannerCode.KEY_REJECTED
_BOUND_SECONDS = 20.0


@asynccontextmanager
async def watching(platform: Platform, folder: Path) -> AsyncIterator[None]:
    """Run what makes banners: the handlers of health and of fingerprints."""
    async with handling(platform, folder / "fingerprint"):
        health = await HealthHandler.open(
            await asyncio.to_thread(_made, folder / "health"), await platform.bus(Role.HEALTH)
        )
        task = asyncio.create_task(health.run())
        try:
            yield
        finally:
            task.cancel()
            with suppress(asyncio.CancelledError):
                await task


def _made(folder: Path) -> Path:
    folder.mkdir()
    return folder


async def call(state: StateFolder) -> int:
    """Make a call as the server's agent does; return the status it gets."""
    async with asyncio.timeout(_BOUND_SECONDS):
        while not state.gateway_url.exists():  # noqa: ASYNC110 (a file rings no bell)
            await asyncio.sleep(0.02)
    url = state.gateway_url.read_text().strip()
    headers = {"Authorization": f"Bearer {state.agent_token.read_text().strip()}"}
    async with (
        aiohttp.ClientSession(headers=headers) as session,
        session.get(f"{url}/{SLOT}/v1/models") as response,
    ):
        return response.status


Standing = dict[tuple[str, BannerCode], BannerEvent]


def standing(told: Sequence[BannerEvent]) -> Standing:
    """Return the banners that stand, by server and code."""
    newest = {(event.server_id, event.code): event for event in told}
    gone = BannerState.CLEARED
    return {key: event for key, event in newest.items() if event.state is not gone}


async def until(platform: Platform, fact: Callable[[Standing], object]) -> Standing:
    """Return the banners that stand once *fact* holds of them."""
    return standing(await banners_until(platform, lambda told: bool(fact(standing(told)))))


def promoted(told: Sequence[Event], revision: int) -> bool:
    """Whether *revision* is in use."""
    return any(e.promoted and e.revision == revision for e in of(told, CredentialVerified))


def bases(now: Standing, server_id: str) -> set[Basis]:
    """Return by what *server_id*'s sign-in matches another."""
    banner = now.get((server_id, _REUSE))
    return set(banner.sharing.bases) if banner else set()


def copied(issuer: OAuthServer, login: CredentialPayload) -> CredentialPayload:
    """Return *login* as somebody copied it long ago, with an access token that still works."""
    assert login.oauth is not None
    issuer.families[0].access[access_token(login)] = time.time() + 3600
    return login


def has_grants(number: int, told: Sequence[Event]) -> bool:
    """Whether so many refresh tokens are told."""
    seen = of(told, FingerprintObserved)
    return sum(one.basis is Basis.OAUTH_GRANT for one in seen) == number


async def test_two_servers_with_one_sign_in_are_told_what_happened(
    fleet: Fleet, platform: Platform, tmp_path: Path
) -> None:
    """The copy matches though it is two refreshes old; its use signs both out, and both say so.

    Signing in anew on one ends what that ends: its refused key and, on both, the shared grant.
    """
    async with AsyncExitStack() as stack:
        issuer = await stack.enter_async_context(OAuthServer().serving())
        await stack.enter_async_context(watching(platform, tmp_path))
        one, two = [await fleet.enrol(name) for name in (ONE, TWO)]
        for state in (one, two):
            await fleet.start(state)
        login = issuer.sign_in()

        await fleet.send(await fleet.seal(ONE, payload=login))
        await fleet.until(ONE, lambda told: promoted(told, 1))
        for refreshes in (1, 2):
            issuer.end_access()
            assert await call(one) == 200  # refused, refreshed and repeated: nobody notices
            await fleet.until(ONE, partial(has_grants, refreshes + 1))
        assert len(issuer.shown) == 2

        await fleet.send(await fleet.seal(TWO, payload=copied(issuer, login)))
        shared = await until(platform, lambda now: {(ONE, _REUSE), (TWO, _REUSE)} <= now.keys())
        for name, other in ((ONE, TWO), (TWO, ONE)):
            banner = shared[name, _REUSE]
            assert banner.severity is Severity.HIGH
            assert Basis.OAUTH_GRANT in banner.sharing.bases
            assert banner.sharing.own_servers == (other,)

        await fleet.until(TWO, lambda told: promoted(told, 1))
        issuer.end_access()
        assert await call(two) == 401  # it shows the copy, and the family dies of it
        assert issuer.families[0].revoked
        assert await call(one) == 401
        rejected = await until(
            platform, lambda now: {(ONE, _REJECTED), (TWO, _REJECTED)} <= now.keys()
        )
        for name in (ONE, TWO):
            assert rejected[name, _REJECTED].reason == "invalid_grant"
            assert Basis.OAUTH_GRANT in bases(rejected, name)

        anew = issuer.sign_in()
        await fleet.send(await fleet.seal(ONE, revision=2, payload=anew))
        left = await until(
            platform,
            lambda now: (
                (ONE, _REJECTED) not in now
                and all(bases(now, name) == {Basis.OAUTH_ACCOUNT} for name in (ONE, TWO))
            ),
        )
        assert left[TWO, _REJECTED].reason == "invalid_grant"
        assert await call(one) == 200
        for path in (file for state in (one, two) for file in state.root.rglob("*")):
            assert not path.is_file() or b"canary" not in path.read_bytes(), path
