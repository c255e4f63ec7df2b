"""A sign-in is kept alive against a strict authorization server, whatever happens in between."""

import asyncio
import os
import signal
import sys
from collections.abc import AsyncIterator, Callable
from functools import partial
from pathlib import Path

import pytest
from aiohttp import web
from pydantic import SecretStr
from structlog.testing import capture_logs

from bus_schemas.credential import CredentialPayload
from bus_schemas.errors import Refused
from bus_schemas.events.health import Validity
from bus_schemas.fields import at_utc
from tests.oauth_server import OAuthServer, access_token, refresh_token
from tests.refreshing import SLOT, Clock, Running, opened
from vps_runtime.keys import keyring as keyring_module
from vps_runtime.oauth import endpoint as endpoint_module
from vps_runtime.oauth import refresher as refresher_module
from vps_runtime.oauth.answers import (
    ANSWER_LOST,
    INVALID_GRANT,
    SPENT,
    UNDOCUMENTED,
    UNREACHABLE,
)
from vps_runtime.oauth.rules import STOPPED
from vps_runtime.rotation.rules import SlotRotation, Verdict, rotation_key
from vps_runtime.vault.credentials import CredentialStore, Held
from vps_runtime.vault.store import DiskFull

HOUR = 3600
REPOSITORY = Path(__file__).parents[2]


@pytest.fixture
async def issuer() -> AsyncIterator[OAuthServer]:
    """The authorization server, with a real clock."""
    async with OAuthServer().serving() as serving:
        yield serving


@pytest.fixture
async def running(tmp_path: Path) -> AsyncIterator[Running]:
    """A server without credentials."""
    async with opened(tmp_path / SLOT) as server:
        yield server


def ending(payload: CredentialPayload, seconds: float, clock: Clock) -> CredentialPayload:
    """Return *payload* with an access token that ends in so many seconds."""
    assert payload.oauth is not None
    oauth = payload.oauth.model_copy(update={"expires_at": at_utc(clock() + seconds)})
    return payload.model_copy(update={"oauth": oauth})


def secret_of(running: Running) -> str:
    """Return the access token in use."""
    key = running.keyring.current(SLOT)
    assert key is not None
    return key.secret


async def once(fact: Callable[[], bool]) -> None:
    """Return once *fact* holds."""
    async with asyncio.timeout(10):
        while not fact():  # noqa: ASYNC110 (a vault rings no bell)
            await asyncio.sleep(0.002)


def has_grants(running: Running, number: int) -> bool:
    """Whether so many refresh tokens are remembered."""
    return len(running.held.grants) == number


async def test_a_sign_in_is_refreshed_before_it_ends(issuer: OAuthServer, running: Running) -> None:
    """Stored first, then used, and its tag is to be told; until then nobody is asked."""
    told: list[tuple[int, ...]] = []
    running.refresher.on_refreshed(lambda: told.append(running.held.grants))
    payload = issuer.sign_in()
    await running.take_in(payload)
    async with running.working():
        assert issuer.shown == []
        running.clock.now += HOUR - 120
        running.keyring.changed()
        await issuer.until(lambda: bool(issuer.shown))
        await once(lambda: secret_of(running) != access_token(payload))
    assert issuer.shown == [refresh_token(payload)]
    stored = await running.payload()
    assert refresh_token(stored) == issuer.families[0].current
    assert access_token(stored) == secret_of(running)
    assert told == [(0, 1)]
    assert not [key for key in running.server.facts.told if key.startswith("oauth/")]


async def test_the_new_set_is_in_the_vault_before_it_is_used(
    issuer: OAuthServer, running: Running, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A disk that takes nothing keeps it waiting, unused; nothing is lost and nobody asks twice."""
    payload = issuer.sign_in()
    held = await running.take_in(payload)
    real, seen = CredentialStore.renew, []

    async def reluctant(self: CredentialStore, *args: object, **words: object) -> Held:
        seen.append(secret_of(running))
        if len(seen) < 3:
            raise DiskFull("anthropic.1.vault")
        return await real(self, *args, **words)  # type: ignore[arg-type]

    monkeypatch.setattr(CredentialStore, "renew", reluctant)
    monkeypatch.setattr(refresher_module, "_FIRST_PAUSE_SECONDS", 0.01)
    assert (await running.refresher.refreshed(held)).validity is Validity.VALID
    assert seen == [access_token(payload)] * 3
    assert secret_of(running) == access_token(await running.payload())
    assert len(issuer.shown) == 1


async def test_many_who_need_it_share_one_refresh(issuer: OAuthServer, running: Running) -> None:
    """A single-use token shown twice would end the sign-in."""
    await running.take_in(ending(issuer.sign_in(), -1, running.clock))
    keys = await asyncio.gather(*(running.keyring.fresh(SLOT) for _ in range(8)))
    assert len(issuer.shown) == 1
    assert {key.secret for key in keys if key} == {secret_of(running)}
    assert None not in keys


async def test_who_gives_up_waiting_breaks_nothing_off(
    issuer: OAuthServer, running: Running, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A caller gets no token in time and goes; the answer that comes later is kept."""
    monkeypatch.setattr(keyring_module, "FRESH_SECONDS", 0.05)
    held = await running.take_in(ending(issuer.sign_in(), -1, running.clock))
    issuer.holds = asyncio.Event()
    assert await running.keyring.fresh(SLOT) is None
    assert len(issuer.shown) == 1
    issuer.holds.set()
    assert (await running.refresher.refreshed(held)).validity is Validity.VALID
    assert len(issuer.shown) == 1
    assert await running.keyring.fresh(SLOT) is not None


async def test_a_refused_token_is_replaced(issuer: OAuthServer, running: Running) -> None:
    """It did not say when it ends; a provider that refuses all costs few tokens, not one a call."""
    issuer.lifetime = None
    payload = issuer.sign_in()
    await running.take_in(payload)
    first = await running.keyring.fresh(SLOT)
    assert first is not None
    assert (first.secret, issuer.shown) == (access_token(payload), [])
    second = await running.keyring.fresh(SLOT, refused=first)
    assert second is not None
    assert second.secret != first.secret
    assert await running.keyring.fresh(SLOT, refused=first) == second
    assert len(issuer.shown) == 1
    refused = [second]
    while (key := await running.keyring.fresh(SLOT, refused=refused[-1])) is not None:
        refused.append(key)
    assert len(issuer.shown) == 3


async def test_short_lived_tokens_are_refreshed_as_often_as_they_need(
    issuer: OAuthServer, running: Running
) -> None:
    """What is due is no sign of trouble: a refused token still gets its replacement at once."""
    issuer.lifetime = 120
    await running.take_in(issuer.sign_in())
    async with running.working():
        for times in range(1, 7):
            running.clock.now += 100
            running.keyring.changed()
            await once(partial(has_grants, running, times + 1))
    before = await running.keyring.fresh(SLOT)
    assert await running.keyring.fresh(SLOT, refused=before) not in {None, before}


async def test_every_character_of_a_token_arrives(issuer: OAuthServer, running: Running) -> None:
    """A form has its own ways with some of them (RFC 6749 appendix B)."""
    odd = "".join(map(chr, range(0x21, 0x7F)))
    payload = issuer.sign_in()
    assert payload.oauth is not None
    issuer.families[0].current = odd
    oauth = payload.oauth.model_copy(update={"refresh_token": SecretStr(odd)})
    held = await running.take_in(payload.model_copy(update={"oauth": oauth}))
    assert (await running.refresher.refreshed(held)).validity is Validity.VALID
    assert issuer.shown == [odd]


@pytest.mark.parametrize("nowhere", ["http://127.0.0.1:1/token", "https://127.0.0.1:1/token"])
async def test_an_endpoint_that_is_not_there_has_seen_nothing(
    nowhere: str, issuer: OAuthServer, running: Running
) -> None:
    """So it is no lost answer, and nobody is blamed for it later."""
    payload = issuer.sign_in()
    assert payload.oauth is not None
    oauth = payload.oauth.model_copy(update={"token_endpoint": nowhere})
    held = await running.take_in(payload.model_copy(update={"oauth": oauth}))
    assert await running.refresher.refreshed(held) == Verdict(Validity.UNKNOWN, None, UNREACHABLE)
    assert not [key for key in running.server.facts.told if key.startswith("oauth/")]


async def test_nor_has_one_whose_name_is_looked_up_for_ever(
    issuer: OAuthServer, running: Running, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An outage of the name service is no lost answer either."""
    monkeypatch.setattr(endpoint_module, "_CONNECT_SECONDS", 0.1)

    async def for_ever(*_args: object, **_words: object) -> None:
        await asyncio.Event().wait()

    monkeypatch.setattr(asyncio.get_running_loop(), "getaddrinfo", for_ever)
    payload = issuer.sign_in()
    assert payload.oauth is not None
    there = payload.oauth.token_endpoint.replace("127.0.0.1", "localhost")
    oauth = payload.oauth.model_copy(update={"token_endpoint": there})
    held = await running.take_in(payload.model_copy(update={"oauth": oauth}))
    assert await running.refresher.refreshed(held) == Verdict(Validity.UNKNOWN, None, UNREACHABLE)
    assert not [key for key in running.server.facts.told if key.startswith("oauth/")]


async def test_a_used_up_grant_is_final(issuer: OAuthServer, tmp_path: Path) -> None:
    """Somebody else refreshed: told once, remembered over a restart, and never asked again."""
    payload = issuer.sign_in()
    copy = issuer.sign_in()  # another sign-in of the same account is none of this
    async with opened(tmp_path / "a") as theirs, opened(tmp_path / "b") as ours:
        for server in (theirs, ours):
            await server.take_in(payload)
        assert (await theirs.refresher.refreshed(theirs.held)).validity is Validity.VALID
        ended: list[Held] = []
        ours.refresher.on_ended(ended.append)
        assert ours.refresher.ended(ours.held) is None
        verdict = await ours.refresher.refreshed(ours.held)
        assert verdict == Verdict(Validity.INVALID, 400, INVALID_GRANT)
        assert ended == [ours.held]
        assert issuer.families[0].revoked
    async with opened(tmp_path / "b") as ours:
        shown = len(issuer.shown)
        assert ours.refresher.ended(ours.held) == verdict
        assert await ours.refresher.refreshed(ours.held) == verdict
        ours.clock.now += 2 * HOUR
        async with ours.working():
            assert await ours.keyring.fresh(SLOT) is None
        assert len(issuer.shown) == shown
        new = await ours.take_in(copy, revision=2)
        assert (await ours.refresher.refreshed(new)).validity is Validity.VALID


@pytest.mark.parametrize("code", ["invalid_client", "unauthorized_client", "invalid_request"])
async def test_other_documented_errors_are_final_by_their_name(
    code: str, issuer: OAuthServer, running: Running
) -> None:
    """RFC 6749 section 5.2."""
    held = await running.take_in(issuer.sign_in())
    issuer.answers_with = [web.json_response({"error": code}, status=401)]
    assert await running.refresher.refreshed(held) == Verdict(Validity.INVALID, 401, code)
    assert running.refresher.ended(held) == Verdict(Validity.INVALID, 401, code)


async def test_an_outage_ends_nothing(issuer: OAuthServer, running: Running) -> None:
    """Asked once more, then left alone for a while; the token in hand stays in use."""
    held = await running.take_in(issuer.sign_in())
    before = secret_of(running)
    issuer.answers_with = [web.Response(status=503), web.Response(status=502)]
    verdict = await running.refresher.refreshed(held)
    assert verdict == Verdict(Validity.UNKNOWN, 502, UNDOCUMENTED)
    assert await running.refresher.refreshed(held) == verdict
    assert len(issuer.shown) == 2
    assert secret_of(running) == before
    assert not issuer.families[0].revoked


async def test_a_redirect_is_not_followed(issuer: OAuthServer, running: Running) -> None:
    """The refresh token goes to the sealed endpoint and nowhere else."""
    held = await running.take_in(issuer.sign_in())
    elsewhere: list[str] = []
    issuer.on_asked = lambda: elsewhere.append("asked")
    issuer.answers_with = [web.Response(status=307, headers={"Location": "/token"})]
    verdict = await running.refresher.refreshed(held)
    assert verdict == Verdict(Validity.UNKNOWN, 307, UNDOCUMENTED)
    assert elsewhere == ["asked"]


async def test_a_lost_answer_is_asked_for_once_more(issuer: OAuthServer, running: Running) -> None:
    """A provider with a grace for that gives new tokens, and nothing is lost."""
    issuer.loses, issuer.grace = 1, 1
    payload = issuer.sign_in()
    held = await running.take_in(payload)
    assert (await running.refresher.refreshed(held)).validity is Validity.VALID
    assert issuer.shown == [refresh_token(payload)] * 2
    assert refresh_token(await running.payload()) == issuer.families[0].current


async def test_a_lost_answer_without_grace_blames_nobody_else(
    issuer: OAuthServer, running: Running
) -> None:
    """The strict server takes the second try for a theft; the reason says it may have been us."""
    issuer.loses = 1
    held = await running.take_in(issuer.sign_in())
    assert await running.refresher.refreshed(held) == Verdict(Validity.INVALID, 400, ANSWER_LOST)


async def test_a_provider_may_keep_its_refresh_token(issuer: OAuthServer, running: Running) -> None:
    """Then there is one grant and one tag, however often it is refreshed."""
    issuer.rotates = False
    payload = issuer.sign_in()
    await running.take_in(payload)
    for _ in range(2):
        assert (await running.refresher.refreshed(running.held)).validity is Validity.VALID
    assert running.held.grants == (0,)
    assert refresh_token(await running.payload()) == refresh_token(payload)
    assert len(set(issuer.shown)) == 1


async def test_what_is_retired_during_a_refresh_does_not_come_back(
    issuer: OAuthServer, running: Running
) -> None:
    """Its owner took it out of use while the answer was on its way."""
    held = await running.take_in(issuer.sign_in())
    issuer.holds = asyncio.Event()
    flight = asyncio.create_task(running.refresher.refreshed(held))
    await once(lambda: bool(issuer.families[0].used))
    await running.server.credentials.remove(held)
    issuer.holds.set()
    assert (await flight).reason == "not_held"
    assert running.server.credentials.held == {}
    with pytest.raises(Refused):
        await running.server.credentials.payload(held)
    assert (await running.refresher.refreshed(held)).reason == "not_held"


async def test_a_used_up_token_is_not_shown_again(issuer: OAuthServer, running: Running) -> None:
    """Its owner pasted an old copy: the family of the sign-in in use must not die of it."""
    pasted = issuer.sign_in()
    await running.take_in(pasted)
    assert (await running.refresher.refreshed(running.held)).validity is Validity.VALID
    again = await running.store(pasted, revision=2)
    shown = len(issuer.shown)
    assert await running.refresher.refreshed(again) == Verdict(Validity.INVALID, None, SPENT)
    assert len(issuer.shown) == shown
    assert not issuer.families[0].revoked


async def test_one_sign_in_in_two_places_does_not_end_itself(
    issuer: OAuthServer, running: Running
) -> None:
    """Both are due in the same moment: one renews the token, the other learns that it is spent."""
    pasted = ending(issuer.sign_in(), 1, running.clock)
    both = [await running.take_in(pasted), await running.store(pasted, revision=2)]
    verdicts = await asyncio.gather(*map(running.refresher.refreshed, both))
    assert {verdict.validity for verdict in verdicts} == {Validity.VALID, Validity.INVALID}
    assert {verdict.reason for verdict in verdicts} == {None, SPENT}
    assert len(issuer.shown) == 1
    assert not issuer.families[0].revoked


async def test_nor_if_it_is_written_in_two_ways(issuer: OAuthServer, running: Running) -> None:
    """The endpoint has two names; the client to which the token is bound has one."""
    pasted = ending(issuer.sign_in(), 1, running.clock)
    assert pasted.oauth is not None
    there = pasted.oauth.token_endpoint.replace("127.0.0.1", "localhost")
    oauth = pasted.oauth.model_copy(update={"token_endpoint": there})
    again = pasted.model_copy(update={"oauth": oauth})
    both = [await running.take_in(pasted), await running.store(again, revision=2)]
    verdicts = await asyncio.gather(*map(running.refresher.refreshed, both))
    assert {verdict.reason for verdict in verdicts} == {None, SPENT}
    assert not issuer.families[0].revoked


STOP = {f"stopped/{SLOT}": "order-1"}
RETIRE = {rotation_key(SLOT): SlotRotation(newest=2, floor=2).model_dump_json()}


@pytest.mark.parametrize("order", [STOP, RETIRE])
async def test_an_order_overtakes_a_refresh_that_waits_for_its_turn(
    issuer: OAuthServer, running: Running, order: dict[str, str]
) -> None:
    """Another slot's answer takes its time; what is retired meanwhile is not shown after that."""
    slow = await running.take_in(issuer.sign_in())
    waiting = await running.take_in(issuer.sign_in(), revision=2)
    rotation = SlotRotation(current=1, pending=2, newest=2)  # both may be asked about
    await running.server.facts.tell(remember={rotation_key(SLOT): rotation.model_dump_json()})
    issuer.holds = asyncio.Event()
    first = asyncio.create_task(running.refresher.refreshed(slow))
    await once(lambda: bool(issuer.families[0].used))
    second = asyncio.create_task(running.refresher.refreshed(waiting))
    await once(lambda: len(running.refresher._flights) == 2)  # noqa: SLF001
    await running.server.facts.tell(remember=order)
    issuer.holds.set()
    assert (await first).validity is Validity.VALID
    assert (await second).reason == STOPPED
    assert len(issuer.shown) == 1
    assert (await running.refresher.refreshed(waiting)).reason == STOPPED
    assert not [key for key in running.server.facts.told if key.startswith("oauth/")]


async def test_a_stopped_slot_is_not_refreshed(issuer: OAuthServer, running: Running) -> None:
    """A refresh is a use."""
    held = await running.take_in(ending(issuer.sign_in(), -1, running.clock))
    await running.server.facts.tell(remember={f"stopped/{SLOT}": "order-1"})
    async with running.working():
        assert await running.keyring.fresh(SLOT) is None
    assert (await running.refresher.refreshed(held)).reason == STOPPED
    assert issuer.shown == []


async def test_an_answer_on_its_way_at_the_end_is_kept(
    issuer: OAuthServer, running: Running
) -> None:
    """A clean stop waits for it; else the next start would have a used-up token alone."""
    payload = ending(issuer.sign_in(), -1, running.clock)
    await running.take_in(payload)
    issuer.holds = asyncio.Event()
    issuer.on_obeyed = lambda: asyncio.get_running_loop().call_soon(stop)  # type: ignore[assignment]
    task = asyncio.create_task(running.refresher.run())

    def stop() -> None:
        task.cancel()
        assert issuer.holds is not None
        issuer.holds.set()

    running.clock.now += 60  # a set that has just come is given a moment
    running.keyring.changed()
    await asyncio.gather(task, return_exceptions=True)
    assert refresh_token(await running.payload()) == issuer.families[0].current


async def test_nothing_secret_is_logged(issuer: OAuthServer, running: Running) -> None:
    """Neither tokens nor what the endpoint says about them."""
    held = await running.take_in(issuer.sign_in())
    with capture_logs() as logs:
        await running.refresher.refreshed(held)
        running.clock.now += 60
        error = {"error": "invalid_grant", "error_description": refresh_token(issuer.sign_in())}
        issuer.answers_with = [web.json_response(error, status=400)]
        await running.refresher.refreshed(running.held)
    assert {line["event"] for line in logs} == {"sign_in_refreshed", "sign_in_ended"}
    assert "canary" not in repr(logs)


async def _dies(folder: Path, point: str, issuer: OAuthServer) -> None:
    """Refresh in a process that is killed at *point*."""
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        *("-m", "tests.refreshing", str(folder), point),
        env={**os.environ, "PYTHONPATH": str(REPOSITORY)},
    )
    if point == "asked":  # it dies, and the server has not obeyed
        issuer.on_asked, issuer.answers_with = process.kill, [web.Response(status=503)]
    if point == "obeyed":
        issuer.on_obeyed = process.kill
    assert await asyncio.wait_for(process.wait(), 20) == -signal.SIGKILL
    issuer.on_asked = issuer.on_obeyed = lambda: None


@pytest.mark.parametrize(
    ("point", "refreshed"),
    [
        ("asked", False),
        ("obeyed", True),
        ("answered", True),
        ("half-written", True),
        ("stored", True),
        ("opened", True),
    ],
)
async def test_killed_anywhere_nothing_is_lost_that_could_be_kept(
    point: str, refreshed: bool, issuer: OAuthServer, tmp_path: Path
) -> None:
    """What was stored is used; what was not is asked for again, while the old token still works."""
    issuer.grace = 1
    payload = issuer.sign_in()
    async with opened(tmp_path / SLOT) as running:
        await running.take_in(payload)
    await _dies(tmp_path / SLOT, point, issuer)
    family = issuer.families[0]
    assert bool(family.used) is refreshed
    clock = Clock()
    clock.now += 60
    async with opened(tmp_path / SLOT, clock) as running:
        kept = await running.payload()
        assert secret_of(running) == access_token(kept)
        assert access_token(kept) in family.access
        is_new = point in {"stored", "opened"}
        assert (refresh_token(kept) == family.current) is (is_new or not refreshed)
        assert (await running.refresher.refreshed(running.held)).validity is Validity.VALID
        assert refresh_token(await running.payload()) == family.current
    assert not family.revoked


async def test_killed_before_it_was_stored_a_strict_provider_ends_it(
    issuer: OAuthServer, tmp_path: Path
) -> None:
    """There is no grace: a new sign-in is needed, and the reason says that it was our doing."""
    async with opened(tmp_path / SLOT) as running:
        await running.take_in(issuer.sign_in())
    await _dies(tmp_path / SLOT, "answered", issuer)
    async with opened(tmp_path / SLOT) as running:
        verdict = await running.refresher.refreshed(running.held)
        assert verdict == Verdict(Validity.INVALID, 400, ANSWER_LOST)


async def test_who_has_no_sign_in_does_not_pay_for_it() -> None:
    """The library is loaded for the first refresh, not at the start (a megabyte of memory)."""
    code = "import sys, vps_runtime.in_use; sys.exit('authlib' in sys.modules)"
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-c", code, env={**os.environ, "PYTHONPATH": str(REPOSITORY)}
    )
    assert await asyncio.wait_for(process.wait(), 20) == 0
