"""Two owners: neither may learn that the other exists, by any route."""

import contextlib
import json
from collections.abc import AsyncIterator
from typing import Any

import httpx
import pytest

from bus_schemas.events import BannerRaised
from bus_schemas.events.banner import BannerCode
from tests.integration.dashboard.conftest import Faces, csrf_of

_UNKNOWN = "acme-77"  # as long as globex-1 is not: ids are compared after replacing them


def routes(server: str, banner: str) -> list[tuple[str, str, Any]]:
    """Every route that takes an id, with a good body."""
    return [
        ("GET", f"/api/servers/{server}", None),
        ("GET", f"/api/servers/{server}/slots/anthropic", None),
        ("POST", f"/api/servers/{server}/slots/anthropic", {}),
        ("POST", f"/api/banners/{banner}/dismissal", {"revision": 1, "why": "x"}),
        ("DELETE", f"/api/banners/{banner}/dismissal", None),
        ("GET", f"/cards/{banner}", None),
    ]


async def test_another_owners_ids_are_answered_like_unknown_ones(faces: Faces) -> None:
    """Byte for byte: status, headers and body, but for the id that the caller sent."""
    foreign = await faces.say(BannerRaised, "globex", "globex-1/openai", BannerCode.OAUTH_REUSE)
    unknown = foreign.banner_id.replace("globex-1", _UNKNOWN)
    async with faces.signed_in("acme") as client:
        client.headers.update(await csrf_of(client))
        pairs = zip(routes("globex-1", foreign.banner_id), routes(_UNKNOWN, unknown), strict=True)
        for (verb, theirs, body), (_, nobodys, _) in pairs:
            answers = []
            for path in (theirs, nobodys):
                answer = await client.request(verb, path, json=body)
                text = answer.text.replace("globex-1", "ID").replace(_UNKNOWN, "ID")
                headers = {
                    k: v for k, v in answer.headers.items() if k not in {"date", "content-length"}
                }
                answers.append((answer.status_code, headers, text))
            assert answers[0] == answers[1], theirs
            assert answers[0][0] == 404, theirs
    assert await faces.answers() == []


async def test_no_answer_to_one_owner_holds_an_id_of_the_other(faces: Faces) -> None:
    """Lists, snapshots, live events, resumed streams, the page and its pieces."""
    await faces.both_reuse_banners()
    await faces.say(BannerRaised, "globex", "globex-1/openai", BannerCode.OAUTH_REUSE)
    async with faces.signed_in("acme") as client:
        for path in ("/", "/servers", "/api/servers", "/api/banners"):
            answer = await client.get(path)
            assert answer.status_code == 200
            assert "globex" not in answer.text, path
        for path in ("/api/banners/stream", "/api/banners/stream?cursor=0"):
            seen = await heard(faces, client, path)
            assert "acme-2_" in seen
            assert "globex" not in seen, path


async def heard(faces: Faces, client: httpx.AsyncClient, path: str) -> str:
    """Listen on *path* while both owners' banners change, until acme's own has arrived."""
    text = ""
    async with (
        client.stream("GET", path) as live,
        contextlib.nullcontext(live.aiter_text()) as chunks,
    ):
        await faces.say(BannerRaised, "globex", "globex-1", BannerCode.SERVER_SILENT)
        await faces.say(BannerRaised, "acme", "acme-2", BannerCode.SERVER_SILENT)
        async for chunk in chunks:
            text += chunk
            if "acme-2__server-silent" in text:
                return text
    raise AssertionError("the stream ended early")


async def test_a_cursor_from_another_owner_opens_nothing(faces: Faces) -> None:
    """Sequences are shared by all owners; what they lead to is not (scoped before it is read)."""
    foreign = await faces.say(BannerRaised, "globex", "globex-1/openai", BannerCode.OAUTH_REUSE)
    await faces.say(BannerRaised, "acme", "acme-1", BannerCode.SERVER_SILENT)
    async with faces.client("acme") as client:
        headers = {"Last-Event-ID": "0"}
        async with (
            client.stream("GET", "/api/banners/stream", headers=headers) as live,
            contextlib.nullcontext(live.aiter_lines()) as lines,
        ):
            data = [line async for line in until_comment(lines) if line.startswith("data: ")]
    assert [json.loads(line[6:])["server_id"] for line in data] == ["acme-1"]
    assert foreign.owner_id == "globex"


async def until_comment(lines: AsyncIterator[str]) -> AsyncIterator[str]:
    """Yield lines up to the first heartbeat."""
    async for line in lines:
        if line.startswith(":"):
            return
        yield line


@pytest.mark.parametrize("path", ["/", "/servers", "/cards/x"])
async def test_the_page_shows_nothing_without_a_session(faces: Faces, path: str) -> None:
    """Not even the names of owners."""
    async with faces.client() as client:
        answer = await client.get(path)
    assert answer.status_code == 401
    assert "acme" not in answer.text
