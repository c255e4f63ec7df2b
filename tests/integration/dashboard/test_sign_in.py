"""Signing in by a one-time link, staying in, and getting out."""

import io
import logging

import pytest
import structlog

from bus_schemas.events import BannerRaised
from bus_schemas.events.banner import BannerCode
from tests.integration.dashboard.conftest import Faces, csrf_of

COOKIE = "__Host-byok-session"


async def test_looking_at_a_link_uses_nothing_up(faces: Faces) -> None:
    """Scanners and previews fetch links; only the button signs in."""
    link = await faces.link("acme")
    async with faces.client() as client:
        for _ in range(3):
            answer = await client.get(link)
            assert answer.status_code == 200
            assert not answer.cookies
        assert (await client.post(link)).status_code == 303


async def test_a_link_signs_in_once(faces: Faces) -> None:
    """Whoever comes second is told, so that a stolen link is noticed."""
    link = await faces.link("acme")
    async with faces.client() as client:
        assert (await client.post(link)).status_code == 303
        again = await client.post(link)
    assert again.status_code == 403
    assert "somebody else may have" in again.text
    assert COOKIE not in again.headers.get("set-cookie", "")


async def test_the_cookie_is_out_of_reach(faces: Faces) -> None:
    """No script reads it, no other site sends it, no plain connection carries it."""
    async with faces.client() as client:
        answer = await client.post(await faces.link("acme"))
    cookie = answer.headers["set-cookie"]
    assert cookie.startswith(f"{COOKIE}=")
    for part in ("HttpOnly", "Secure", "SameSite=strict", "Path=/"):
        assert part in cookie
    assert "Domain" not in cookie
    assert answer.headers["location"] == "/"


async def test_another_site_can_neither_sign_in_nor_dismiss(faces: Faces) -> None:
    """Fetch Metadata stops the first, the CSRF token the second."""
    banner = await faces.say(BannerRaised, "acme", "acme-1", BannerCode.SERVER_SILENT)
    foreign = {"Sec-Fetch-Site": "cross-site"}
    async with faces.signed_in("acme") as client:
        assert (await client.post(await faces.link("acme"), headers=foreign)).status_code == 403
        path = f"/api/banners/{banner.banner_id}/dismissal"
        wish = {"revision": banner.revision, "why": "x"}
        assert (await client.post(path, json=wish)).status_code == 403
        bad = {"X-CSRF-Token": "A" * 43}
        assert (await client.post(path, json=wish, headers=bad)).status_code == 403
        good = await csrf_of(client)
        assert (await client.post(path, json=wish, headers=good | foreign)).status_code == 403
        assert (await client.post(path, json=wish, headers=good)).status_code == 202
    assert len(await faces.answers()) == 1


async def test_signing_out_ends_the_session_everywhere(faces: Faces) -> None:
    """A copy of the cookie is worth nothing afterwards."""
    async with faces.signed_in("acme") as client:
        copy = client.cookies[COOKIE]
        token = (await csrf_of(client))["X-CSRF-Token"]
        assert (await client.post("/logout", data={"csrf": "wrong"})).status_code == 403
        assert (await client.post("/logout", data={"csrf": token})).status_code == 303
        stolen = await client.get("/", headers={"Cookie": f"{COOKIE}={copy}"})
    assert stolen.status_code == 401


async def test_every_answer_carries_the_security_headers(faces: Faces) -> None:
    """Pages, problems, streams and static files alike."""
    async with faces.signed_in("acme") as client:
        for path in ("/", "/login/x", "/api/servers", "/api/nothing", "/static/page.js"):
            headers = (await client.get(path)).headers
            assert headers["content-security-policy"].startswith("default-src 'none'"), path
            assert headers["referrer-policy"] == "no-referrer", path
            assert headers["x-content-type-options"] == "nosniff", path
            assert headers["cache-control"] == "no-store", path
            assert "server" not in headers, path


async def test_no_secret_reaches_a_log(
    faces: Faces, caplog: pytest.LogCaptureFixture, capfd: pytest.CaptureFixture[str]
) -> None:
    """Links, tokens and cookies are in no log line, not even those of refused requests."""
    log = io.StringIO()
    structlog.configure(logger_factory=structlog.PrintLoggerFactory(log))
    try:
        with caplog.at_level(logging.DEBUG):
            link = await faces.link("acme")
            async with faces.signed_in("acme") as client:
                await client.get(link)
                await client.post(link)
                await client.get("/api/servers", headers={"Authorization": "Bearer CANARY"})
                session = client.cookies[COOKIE]
    finally:
        structlog.reset_defaults()
    ours = [r.getMessage() for r in caplog.records if not r.name.startswith(("httpx", "httpcore"))]
    said = "\n".join((*ours, *capfd.readouterr(), log.getvalue()))
    for secret in (link.rpartition("/")[2], session, faces.tokens["acme"], "CANARY"):
        assert secret not in said
