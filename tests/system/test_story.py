"""The whole system, played once: what it says, what it must never say, and to whom."""

import contextlib
import json
import ssl
from pathlib import Path
from typing import Any

import httpx
import pytest

from bus_schemas.flows import Role
from bus_schemas.streams import BANNERS
from bus_schemas.transport.connection import Bus
from bus_schemas.transport.jetstream import store_raw
from bus_schemas.transport.target import BusUnavailable
from platform_handlers.authority.accounts import user_credentials
from platform_handlers.authority.role_bus import role_bus
from platform_handlers.demo import credentials
from platform_handlers.demo.stage import PLATFORM
from platform_handlers.owner.home import Home
from platform_handlers.replay.fold import messages
from tests.system.conftest import ACCOUNTS, Tapped
from tests.system.secrets_hunt import hits, hits_in_folder

pytestmark = pytest.mark.asyncio(loop_scope="module")

KEY_REUSE = ("API_KEY_REUSE", "low", "blue")
LOGIN_REUSE = ("OAUTH_REUSE", "high", "amber")


def told(rows: list[dict[str, object]]) -> set[tuple[object, ...]]:
    """Return the rows without their slots, in a form that compares."""
    return {
        (
            (row["code"], row["severity"], row["colour"]),
            row["server"],
            row["state"],
            tuple(row["own_servers"]),  # type: ignore[arg-type] # a list, by the JSON's contract
            row["other_owners"],
        )
        for row in rows
    }


async def test_the_banners_are_exactly_those_of_the_story(tapped: Tapped) -> None:
    """Sharing raises the right banner on the right servers, and a rotation clears only its own."""
    logins = {
        (LOGIN_REUSE, "acme-1", "raised", (), 1),
        (LOGIN_REUSE, "globex-1", "raised", (), 1),
    }
    assert told(tapped.before) == logins | {
        (KEY_REUSE, "acme-1", "raised", ("acme-2",), 0),
        (KEY_REUSE, "acme-2", "raised", ("acme-1",), 0),
    }
    after = {row[:3] for row in told(tapped.after)}
    assert after == {row[:3] for row in logins} | {
        (KEY_REUSE, "acme-1", "cleared"),
        (KEY_REUSE, "acme-2", "cleared"),
    }


async def test_a_replay_says_the_same_bytes(tapped: Tapped) -> None:
    """The ledger folded into an empty store gives what was published, byte for byte."""
    assert await tapped.story.verify_replay() == 6  # four raised, two cleared


async def test_nobody_on_any_wire_or_disk_can_read_a_credential(tapped: Tapped) -> None:
    """No credential is on the bus, in a stream, at the API, in a file, a log or an argument."""
    assert all(tapped.bus[account] for account in ("CORE", "FLEET", "SYS"))  # the taps work
    assert b"/slots/anthropic" in tapped.api
    assert b"byok.v1.fingerprint.acme-1" in tapped.bus["CORE"]
    found = [
        hit for a in ACCOUNTS for hit in hits(f"bus {a}", bytes(tapped.bus[a]), credentials.ALL)
    ]
    found += hits("streams", await tapped.streams(), credentials.ALL)
    found += hits("API", bytes(tapped.api), credentials.ALL)
    found += hits_in_folder(tapped.story.stage.folder, credentials.ALL)
    for name, process in tapped.story.stage.processes.items():
        found += hits(f"arguments of {name}", started_with(process.pid), credentials.ALL)
    assert found == []


def started_with(pid: int) -> bytes:
    """Return the arguments and the environment of a process."""
    process = Path("/proc") / str(pid)
    return (process / "cmdline").read_bytes() + (process / "environ").read_bytes()


async def test_two_owners_never_learn_of_each_other(tapped: Tapped) -> None:
    """Nothing an owner can read holds the other owner's name or server."""
    for owner_id, other in (("acme", b"globex"), ("globex", b"acme")):
        seen = await readable_by(tapped, owner_id)
        assert owner_id.encode() in seen
        assert other not in seen


async def readable_by(tapped: Tapped, owner_id: str) -> bytes:
    """Return all that *owner_id* gets from the API, the page, SSE, and as a subscriber."""
    home = Home(tapped.story.owner_folder(owner_id))
    address = home.address()
    foreign = "globex-1" if owner_id == "acme" else "acme-1"
    seen = bytearray()
    token = {"Authorization": f"Bearer {address.token()}"}
    async with httpx.AsyncClient(
        base_url=address.url,
        verify=ssl.create_default_context(cafile=str(address.ca_file)),
        headers=token,
    ) as api:
        for path in ("/api/servers", "/api/banners", f"/api/servers/{owner_id}-1"):
            seen += (await api.get(path)).content
        refused = await api.get(f"/api/servers/{foreign}")
        unknown = await api.get("/api/servers/nobody-1")
        assert (refused.status_code, unknown.status_code) == (404, 404)
        seen += refused.content.replace(foreign.encode(), b"")  # it repeats what was asked
        async with api.stream("GET", "/api/banners/stream") as events:
            async for chunk in events.aiter_bytes():
                seen += chunk
                if b"OAUTH_REUSE" in seen:
                    break
    seen += await subscribed_by(tapped, owner_id)
    return bytes(seen)


async def subscribed_by(tapped: Tapped, owner_id: str) -> bytes:
    """Return what a subscriber with *owner_id*'s tag can get from the banner stream directly."""
    story = tapped.story
    tags = (f"owner:{owner_id}",)
    own = user_credentials(
        story.installation, Role.SUBSCRIBER, f"of-{owner_id}", now=1_700_000_000, tags=tags
    )
    bus = await Bus(tapped.target, f"of-{owner_id}", lambda: own, api=Role.SUBSCRIBER.api).open()
    ops = await role_bus(story.installation, tapped.target, Role.OPS).open()
    seen = bytearray()
    try:
        subjects = {m.subject async for m in messages(ops, BANNERS.name, 1, 10_000)}
        for subject in sorted(subjects):
            with contextlib.suppress(BusUnavailable):  # how a refusal shows: no answer comes
                get = f"{Role.SUBSCRIBER.api}.DIRECT.GET.{BANNERS.name}.{subject}"
                seen += (await bus.request(get, b"", wait=0.5)).data
    finally:
        await bus.close()
        await ops.close()
    return bytes(seen)


async def test_the_hunt_finds_a_planted_leak(tapped: Tapped) -> None:
    """The same hunt must fail where a credential really is on the bus: it is no empty ritual."""
    story = tapped.story
    own = user_credentials(story.installation, Role.SERVER, "mallory-1", now=1_700_000_000)
    bus = await Bus(tapped.target, "mallory-1", lambda: own).open()
    try:
        raw = json.dumps({"oops": credentials.API_KEY}).encode()
        await store_raw(bus, "byok.v1.fingerprint.mallory-1", "planted-1", raw)
    finally:
        await bus.close()
    assert hits("bus", bytes(tapped.bus["CORE"]), credentials.ALL)
    assert hits("streams", await tapped.streams(), credentials.ALL)


async def owner(tapped: Tapped, *words: str) -> str:
    """Run a command of acme's on acme's own machine; return what it printed."""
    story = tapped.story
    home = ("--home", str(story.owner_folder("acme")))
    return await story.stage.command(PLATFORM, *words, *home)


async def test_the_owner_sees_what_is_in_use_and_which_key_may_be_revoked(tapped: Tapped) -> None:
    """After the rotation: the new key in use, with a receipt and its tag; the old one let go."""

    async def reported() -> dict[str, Any] | None:
        found = json.loads(await owner(tapped, "key", "status", "acme-2", "anthropic", "--json"))
        [slot] = found["servers"][0]["slots"]
        there: dict[str, Any] | None = slot if slot["receipt"] else None
        return there

    slot = await tapped.story.stage.until("the report with the receipt", reported, every=0.5)
    assert (slot["revision_in_use"], slot["state"], slot["validity"]) == (2, "current", "valid")
    assert slot["previous_key"] == "may-be-revoked"
    assert (slot["receipt"]["revision"], slot["receipt"]["provider_status"]) == (2, 200)
    assert len(slot["receipt"]["short_tag"]) == 8
    said = await owner(tapped, "key", "verify", "acme-2", "anthropic")
    assert "revision 2: the provider accepts it" in said


async def test_a_compromised_key_is_out_of_use_when_the_command_says_so(tapped: Tapped) -> None:
    """The agent's next call is refused on the spot; a new key brings it back."""
    story = tapped.story
    assert await story.ask("acme-2", "anthropic") == 200
    said = await owner(tapped, "key", "compromised", "acme-2", "anthropic", "--yes")
    assert "acme-2 uses it no more" in said
    assert await story.ask("acme-2", "anthropic") == 401
    await story.set_key("acme", "acme-2", "anthropic", credentials.NEXT_API_KEY)
    assert await story.ask("acme-2", "anthropic") == 200
    rows = (await owner(tapped, "key", "history", "acme-2", "anthropic")).splitlines()
    assert [row.split()[0] for row in rows if row[:1].isdigit()] == ["1", "2", "3"]
