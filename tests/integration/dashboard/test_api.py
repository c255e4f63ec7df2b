"""The HTTPS API over real TLS, in front of a real bus, registry and config handler."""

import asyncio
import json
import ssl
import time
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import aclosing
from typing import Any

import httpx
import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from bus_schemas.api import BannerList, ServerList, SlotStep, SlotView
from bus_schemas.events import (
    BannerCleared,
    BannerDismissed,
    BannerRaised,
    BannerUpdated,
    CredentialInUse,
    CredentialRejected,
    CredentialStored,
    DismissalRequested,
    DismissalUndone,
)
from bus_schemas.events.banner import BannerCode
from bus_schemas.fields import at_utc
from bus_schemas.keys import verify_sealing_key
from bus_schemas.sealed import open_sealed
from tests.integration.dashboard.conftest import Faces, as_json

Frame = tuple[str, str | None, Any]


async def frames(response: httpx.Response) -> AsyncGenerator[Frame, None]:
    """Yield (event, id, data) of a stream; a heartbeat comes as `comment`."""
    fields: dict[str, str] = {}
    async for line in response.aiter_lines():
        if line.startswith(":"):
            yield "comment", None, line
        elif line:
            name, _, value = line.partition(": ")
            fields[name] = value
        elif "data" in fields:
            yield fields["event"], fields.get("id"), json.loads(fields["data"])
            fields = {}
        else:
            fields = {}


async def next_frame(source: AsyncIterator[Frame], *wanted: str) -> Frame:
    """Return the next frame of one of the *wanted* kinds."""
    async with asyncio.timeout(10):
        async for frame in source:
            if frame[0] in wanted:
                return frame
    raise AssertionError(f"the stream ended before {wanted}")


# --- servers and slots ---


async def test_an_owner_sees_their_servers_with_keys_that_check_out(faces: Faces) -> None:
    """The sealing key is signed by the identity key whose fingerprint the console shows."""
    async with faces.client("acme") as client:
        answer = ServerList.model_validate_json((await client.get("/api/servers")).content)
    assert answer.owner_id == "acme"
    assert [server.server_id for server in answer.servers] == ["acme-1", "acme-2"]
    first = answer.servers[0]
    assert first.identity_key is not None
    assert first.sealing_key is not None
    assert first.fingerprint == faces.servers["acme-1"].fingerprint
    verify_sealing_key(
        first.sealing_key,
        server_id="acme-1",
        identity_public_key=first.identity_key,
        at=at_utc(time.time()),
    )


async def test_a_sealed_credential_goes_from_sent_to_stored_to_in_use(faces: Faces) -> None:
    """Every step but `sent` is the server's own word, with its time."""
    server = faces.servers["acme-1"]
    sealed = server.sealed(faces.owner_key)
    path = "/api/servers/acme-1/slots/anthropic"
    async with faces.client("acme") as client:
        taken = await client.post(path, **as_json(sealed))
        assert (taken.status_code, taken.json()) == (202, {"generation": 1})
        slot = SlotView.model_validate_json((await client.get(path)).content)
        assert [step.step for step in slot.steps] == [SlotStep.SENT]
        await server.step(CredentialStored, slot, provider="anthropic")
        await server.step(CredentialInUse, slot, provider_status=200)
        await faces.reach("acme-1", "anthropic", SlotStep.IN_USE)
        slot = SlotView.model_validate_json((await client.get(path)).content)
    assert [step.step for step in slot.steps] == [SlotStep.SENT, SlotStep.STORED, SlotStep.IN_USE]
    opened = open_sealed(sealed.envelope, sealing_private_key=server.sealing_key)
    assert opened.secret is not None


async def test_a_rejection_keeps_its_reason(faces: Faces) -> None:
    """The owner reads the server's own reason code."""
    server = faces.servers["acme-1"]
    async with faces.client("acme") as client:
        path = "/api/servers/acme-1/slots/anthropic"
        await client.post(path, **as_json(server.sealed(faces.owner_key)))
        slot = await faces.slot("acme-1", "anthropic")
        await server.step(CredentialRejected, slot, reason="owner_key_not_pinned")
        await faces.reach("acme-1", "anthropic", SlotStep.REJECTED)
        slot = SlotView.model_validate_json((await client.get(path)).content)
    assert slot.latest.reason == "owner_key_not_pinned"


async def test_a_stale_base_is_a_conflict_that_says_what_to_do(faces: Faces) -> None:
    """Two people who seal at once: the second must look again."""
    server, path = faces.servers["acme-1"], "/api/servers/acme-1/slots/anthropic"
    async with faces.client("acme") as client:
        await client.post(path, **as_json(server.sealed(faces.owner_key)))
        answer = await client.post(path, **as_json(server.sealed(faces.owner_key)))
    assert answer.status_code == 409
    assert answer.headers["content-type"] == "application/problem+json"
    assert answer.json()["type"] == "urn:byok:problem:stale-base-revision"
    assert "anthropic" in answer.json()["detail"]
    assert "seal anew" in answer.json()["detail"]


async def test_the_same_envelope_twice_is_taken_once(faces: Faces) -> None:
    """A client whose answer got lost may repeat itself."""
    path = "/api/servers/acme-1/slots/a"
    sealed = faces.servers["acme-1"].sealed(faces.owner_key, slot_id="a")
    async with faces.client("acme") as client:
        answers = [await client.post(path, **as_json(sealed)) for _ in range(2)]
    assert [answer.json() for answer in answers] == [{"generation": 1}] * 2


@pytest.mark.parametrize(
    ("name", "value"),
    [("owner_id", "globex"), ("server_id", "acme-2"), ("slot_id", "other")],
)
async def test_an_envelope_for_elsewhere_is_refused_at_the_door(
    faces: Faces, name: str, value: str
) -> None:
    """What is sealed for one place cannot be posted to another."""
    sealed = faces.servers["acme-1"].sealed(faces.owner_key, 0, **{name: value})
    async with faces.client("acme") as client:
        answer = await client.post("/api/servers/acme-1/slots/anthropic", **as_json(sealed))
    assert (answer.status_code, answer.json()["type"]) == (422, "urn:byok:problem:wrong-address")
    assert name in answer.json()["detail"]


async def test_an_envelope_that_was_changed_is_refused(faces: Faces) -> None:
    """The signature is checked before anything is written."""
    sealed = faces.servers["acme-1"].sealed(faces.owner_key)
    stranger = Ed25519PrivateKey.generate().public_key().public_bytes_raw()
    forged = sealed.model_copy(
        update={"envelope": sealed.envelope.model_copy(update={"sender_public_key": stranger})}
    )
    async with faces.client("acme") as client:
        answer = await client.post("/api/servers/acme-1/slots/anthropic", **as_json(forged))
        missing = await client.get("/api/servers/acme-1/slots/anthropic")
    assert (answer.status_code, missing.status_code) == (422, 404)
    assert answer.json()["type"] == "urn:byok:problem:bad-signature"


@pytest.mark.parametrize(
    ("body", "headers", "status"),
    [
        (b"{", {"Content-Type": "application/json"}, 422),
        (b'{"sk-ant-api03-CANARY": 1}', {"Content-Type": "application/json"}, 422),
        (b"{}", {"Content-Type": "text/plain"}, 415),
        (b" " * 70_000, {"Content-Type": "application/json"}, 413),
    ],
)
async def test_a_bad_body_is_a_problem_that_repeats_nothing(
    faces: Faces, body: bytes, headers: dict[str, str], status: int
) -> None:
    """Bounded, typed, and what was sent never comes back."""
    async with faces.client("acme") as client:
        answer = await client.post(
            "/api/servers/acme-1/slots/anthropic", content=body, headers=headers
        )
    assert answer.status_code == status
    assert answer.json()["status"] == status
    assert "CANARY" not in answer.text


@pytest.mark.parametrize(
    "authorization", [None, "Bearer", "Bearer wrong", "Basic YWNtZTp4", "Bearer " + "x" * 600]
)
async def test_without_a_valid_token_nothing_is_answered(
    faces: Faces, authorization: str | None
) -> None:
    """Every route of the API asks who is calling."""
    headers = {} if authorization is None else {"Authorization": authorization}
    async with faces.client() as client:
        for verb, path in (
            ("GET", "/api/servers"),
            ("GET", "/api/servers/acme-1"),
            ("GET", "/api/servers/acme-1/slots/anthropic"),
            ("POST", "/api/servers/acme-1/slots/anthropic"),
            ("GET", "/api/banners"),
            ("GET", "/api/banners/stream"),
            ("POST", "/api/banners/x/dismissal"),
            ("DELETE", "/api/banners/x/dismissal"),
        ):
            answer = await client.request(verb, path, headers=headers)
            assert answer.status_code == 401, path
            assert answer.headers["www-authenticate"].startswith("Bearer")


async def test_unknown_paths_and_methods_are_problems_too(faces: Faces) -> None:
    """Whatever is answered to a machine, it is RFC 9457."""
    async with faces.client("acme") as client:
        missing = await client.get("/api/nothing")
        wrong = await client.put("/api/servers")
    assert (missing.status_code, wrong.status_code) == (404, 405)
    for answer in (missing, wrong):
        assert answer.headers["content-type"] == "application/problem+json"


async def test_a_client_that_does_not_know_the_ca_does_not_connect(faces: Faces) -> None:
    """The API is TLS with the installation's own certificate, and nothing else."""
    async with httpx.AsyncClient(verify=ssl.create_default_context()) as client:
        with pytest.raises(httpx.ConnectError):
            await client.get(f"{faces.url}/api/servers")
        with pytest.raises(httpx.TransportError):
            await client.get(f"{faces.url}/api/servers".replace("https", "http"))


# --- banners ---


async def test_banners_come_with_words_the_most_urgent_first(faces: Faces) -> None:
    """Amber before blue, although blue came first."""
    await faces.both_reuse_banners()
    async with faces.client("acme") as client:
        found = BannerList.model_validate_json((await client.get("/api/banners")).content)
    assert [banner.code for banner in found.banners] == ["OAUTH_REUSE", "API_KEY_REUSE"]
    assert all(b.title and b.explanation and b.what_to_do for b in found.banners)
    assert found.cursor == 2


async def test_a_dismissal_names_who_why_and_what_was_seen(faces: Faces) -> None:
    """It becomes one fact in the ledger, for the fingerprint handler to judge."""
    blue, _ = await faces.both_reuse_banners()
    path = f"/api/banners/{blue.banner_id}/dismissal"
    async with faces.client("acme") as client:
        answer = await client.post(path, json={"revision": blue.revision, "why": "on purpose"})
        assert answer.status_code == 202
        await faces.say(
            BannerDismissed,
            "acme",
            "acme-1/anthropic",
            BannerCode.API_KEY_REUSE,
            dismissed_by="acme",
            why="on purpose",
        )
        assert (await client.post(path, json={"revision": 1, "why": "x"})).status_code == 409
        assert (await client.delete(path)).status_code == 202
    requested, undone = await faces.answers()
    assert isinstance(requested, DismissalRequested)
    assert (requested.owner_id, requested.banner_revision) == ("acme", blue.revision)
    assert (requested.why, requested.who) == ("on purpose", "acme (API token)")
    assert isinstance(undone, DismissalUndone)


@pytest.mark.parametrize("wish", [{"revision": 1, "why": ""}, {"revision": 0, "why": "x"}, {}])
async def test_a_dismissal_without_a_reason_is_refused(faces: Faces, wish: dict[str, Any]) -> None:
    """Nobody can later ask why, otherwise."""
    blue, _ = await faces.both_reuse_banners()
    async with faces.client("acme") as client:
        answer = await client.post(f"/api/banners/{blue.banner_id}/dismissal", json=wish)
    assert answer.status_code == 422
    assert await faces.answers() == []


async def test_what_nobody_has_seen_cannot_be_dismissed(faces: Faces) -> None:
    """A revision above the newest would cover holders who have not joined yet."""
    blue, _ = await faces.both_reuse_banners()
    async with faces.client("acme") as client:
        answer = await client.post(
            f"/api/banners/{blue.banner_id}/dismissal",
            json={"revision": blue.revision + 1, "why": "in advance"},
        )
        undo = await client.delete(f"/api/banners/{blue.banner_id}/dismissal")
    assert (answer.status_code, undo.status_code) == (409, 409)


# --- the stream ---


async def test_the_stream_begins_with_a_snapshot_and_goes_on_live(faces: Faces) -> None:
    """`id` is the sequence in the banner stream; between events the line is kept alive."""
    await faces.both_reuse_banners()
    async with faces.client("acme") as client, client.stream("GET", "/api/banners/stream") as live:
        assert live.headers["content-type"].startswith("text/event-stream")
        async with aclosing(frames(live)) as source:
            _, id_, snapshot = await next_frame(source, "snapshot")
            assert (id_, len(snapshot["banners"])) == ("2", 2)
            await next_frame(source, "comment")
            await faces.say(BannerRaised, "acme", "acme-2", BannerCode.SERVER_SILENT)
            _, id_, banner = await next_frame(source, "banner")
            assert (id_, banner["code"], banner["state"]) == ("3", "SERVER_SILENT", "raised")


async def test_a_client_that_comes_back_hears_what_it_missed(faces: Faces) -> None:
    """By Last-Event-ID, as browsers do, or by ?cursor=; the newest state, in stream order."""
    await faces.both_reuse_banners()
    place, code = "acme-1/anthropic", BannerCode.API_KEY_REUSE
    await faces.say(BannerUpdated, "acme", place, code)
    await faces.say(BannerRaised, "acme", "acme-2", BannerCode.SERVER_SILENT)
    await faces.say(BannerCleared, "acme", place, code)
    async with faces.client("acme") as client:
        for path, headers in (
            ("/api/banners/stream?cursor=2", {}),
            ("/api/banners/stream?cursor=0", {"Last-Event-ID": "2"}),
        ):
            async with (
                client.stream("GET", path, headers=headers) as live,
                aclosing(frames(live)) as source,
            ):
                first = await next_frame(source, "banner", "snapshot", "resync")
                second = await next_frame(source, "banner")
            assert (first[1], first[2]["code"]) == ("4", "SERVER_SILENT")
            assert (second[1], second[2]["state"]) == ("5", "cleared")


async def test_a_cursor_of_another_stream_begins_anew(faces: Faces) -> None:
    """A gap that cannot be bridged is said, never passed over."""
    await faces.both_reuse_banners()
    async with faces.client("acme") as client:
        path = "/api/banners/stream?cursor=99"
        async with client.stream("GET", path) as live, aclosing(frames(live)) as source:
            assert (await next_frame(source, "resync", "banner"))[2]["reason"]
            assert len((await next_frame(source, "snapshot"))[2]["banners"]) == 2
        assert (await client.get("/api/banners/stream?cursor=-1")).status_code == 400


async def test_a_revoked_session_stops_listening(faces: Faces) -> None:
    """Signing out ends open streams as well, at the next heartbeat."""
    async with (
        faces.signed_in("acme") as client,
        client.stream("GET", "/api/banners/stream") as live,
    ):
        session = client.cookies["__Host-byok-session"]
        await faces.sign_ins.end_session(session)
        async with asyncio.timeout(10):
            assert b"snapshot" in await live.aread()


async def test_nobody_holds_streams_without_end(faces: Faces) -> None:
    """One owner's open streams are bounded; closing one makes room again."""
    async with faces.client("acme") as client:
        with faces.feed.listen("acme"):
            many = [faces.feed.listen("acme") for _ in range(31)]
            for listener in many:
                listener.__enter__()
            assert (await client.get("/api/banners/stream")).status_code == 429
            for listener in many:
                listener.__exit__(None, None, None)
        async with client.stream("GET", "/api/banners/stream") as live:
            assert live.status_code == 200
