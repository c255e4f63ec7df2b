"""The link to OpenClaw, against a made-up one that speaks its protocol and runs the real resolver.

What the real one does is in tests/openclaw; here it misbehaves on purpose.
"""

import asyncio
import contextlib
import json
import os
import subprocess
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from aiohttp import web

from bus_schemas.errors import Refused
from bus_schemas.events.health import Presence
from bus_schemas.fields import CredentialKind
from vps_runtime.facts.store import Facts
from vps_runtime.keys.calls import Answer, Calls
from vps_runtime.keys.keyring import KeyInUse
from vps_runtime.openclaw.keeper import OpenClaw, Parts
from vps_runtime.openclaw.link import OpenClawRefused, Target, connected
from vps_runtime.openclaw.service import KeysByExec, OpenClawOptions, Use
from vps_runtime.resolver.delivery import Delivery
from vps_runtime.resolver.install import install
from vps_runtime.resolver.rules import REVOKED, STAND_IN, secret_id
from vps_runtime.resolver.server import Door, Resolver
from vps_runtime.state import StateFolder

TOKEN = "made-up"
GRACE = 60.0


def key(revision: int, secret: str = "") -> KeyInUse:
    """Return a made-up key in use."""
    kind = CredentialKind.API_KEY
    named = secret or f"gsk_{revision}"
    return KeyInUse("groq", revision, "groq", kind, "https://a.example", "bearer", named)


@dataclass
class MadeUp:
    """An OpenClaw as far as we use it: it really runs the resolver when it is told to reload."""

    folder: Path
    port: int = 0
    holds: str | None = None
    """The key it has, or the placeholder."""
    asked: list[str] = field(default_factory=list)
    """The methods it was asked for."""
    warnings: list[int] = field(default_factory=list)
    """Of the next reloads, before they are as they should be."""
    shell_is_faster: bool = False
    """The agent's shell asks before the next reload does."""
    stolen: str | None = None
    """What it got."""
    seen: str | None = None
    """What its last probe was answered."""
    by_exec: bool = True
    """Whether its configuration names the resolver."""
    changed: asyncio.Event = field(default_factory=asyncio.Event)

    @property
    def target(self) -> Target:
        """Where it is."""
        return Target(f"ws://127.0.0.1:{self.port}", self.folder / "openclaw.token")

    @contextlib.asynccontextmanager
    async def serving(self) -> AsyncIterator["MadeUp"]:
        """Listen on loopback."""
        app = web.Application()
        app.router.add_get("/", self._met)
        runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.1)
        await runner.setup()
        try:
            await web.TCPSite(runner, "127.0.0.1", self.port).start()
            self.port = runner.addresses[0][1]
            yield self
        finally:
            await runner.cleanup()

    async def until(self, fact: Callable[[], bool]) -> None:
        """Return once *fact* holds; it is looked at after everything it does."""
        async with asyncio.timeout(10):
            while not fact():
                self.changed.clear()
                await self.changed.wait()

    async def _met(self, request: web.Request) -> web.WebSocketResponse:
        socket = web.WebSocketResponse()
        await socket.prepare(request)
        await socket.send_json({"type": "event", "event": "connect.challenge", "payload": {}})
        async for message in socket:
            frame = json.loads(message.data)
            payload = await self._do(frame["method"], frame["params"])
            answer: dict[str, Any] = {"type": "res", "id": frame["id"], "ok": payload is not None}
            answer |= {"payload": payload} if payload is not None else {"error": {"code": "NO"}}
            await socket.send_json(answer)
            self.asked.append(frame["method"])
            self.changed.set()
        return socket

    async def _do(self, method: str, params: dict[str, Any]) -> dict[str, Any] | None:
        if method == "connect":
            good = params["auth"]["token"] == TOKEN
            return {"server": {"version": "2026.9.6"}} if good else None
        if method == "secrets.reload":
            return {"ok": True, "warningCount": await self._reload()}
        if method == "status":
            owner = {"ownerKind": "account", "ownerId": '["store","groq:byok"]'}
            lost = owner | {"degradationState": "stale"}
            return {"degradedSecretOwners": [lost]}
        if method == "config.get":
            profiles = {"groq:byok": {"provider": "groq"}} if self.by_exec else {}
            return {"parsed": {"auth": {"profiles": profiles}}}
        # models.probe: the resolver has to answer, what it says is thrown away
        self.seen = (await self.resolve())["values"].get(secret_id("groq"))
        return {"status": "ok" if self.seen else "unknown"}

    async def _reload(self) -> int:
        if self.shell_is_faster:
            self.shell_is_faster = False
            self.stolen = (await self.resolve())["values"][secret_id("groq")]
        answer = await self.resolve()
        value = answer["values"].get(secret_id("groq"))
        if self.warnings:
            return self.warnings.pop(0)
        if value is None:
            return 1
        self.holds = value
        return int(value == REVOKED)

    async def resolve(self) -> dict[str, Any]:
        """Run the resolver, as the agent's shell can, too."""
        process = await asyncio.create_subprocess_exec(
            self.folder / "byok-resolver",
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env={"BYOK_SOCKET": str(self.folder / "resolver.sock")},
        )
        request = {"protocolVersion": 1, "provider": "byok", "ids": [secret_id("groq")]}
        out, _ = await process.communicate(json.dumps(request).encode())
        answer: dict[str, Any] = json.loads(out)
        return answer


@dataclass
class Linked:
    """The runtime's side, at work."""

    facts: Facts
    delivery: Delivery
    openclaw: OpenClaw
    keys: dict[str, KeyInUse]
    answers: list[Answer]


@pytest.fixture
async def made_up(tmp_path: Path) -> MadeUp:
    """A made-up OpenClaw that does not serve yet, with its token and resolver in place."""
    made_up = MadeUp(tmp_path)
    made_up.target.token_file.write_text(f"{TOKEN}\n")
    made_up.target.token_file.chmod(0o600)
    install(tmp_path / "byok-resolver", os.geteuid())
    return made_up


@contextlib.asynccontextmanager
async def linked(made_up: MadeUp) -> AsyncIterator[Linked]:
    """Keep *made_up* on the key of the slot `groq`."""
    facts = await Facts.open(made_up.folder / "outbox.db", "acme-1", 1)
    keys, answers, calls = {"groq": key(1)}, list[Answer](), Calls()
    calls.on_answer(answers.append)
    calls.on_answer(lambda _answer: made_up.changed.set())
    delivery = Delivery(facts, GRACE)
    door = Door(made_up.folder / "resolver.sock", os.geteuid())
    resolver = Resolver(door, delivery, keys.get, lambda: {"groq"})
    async with aiohttp.ClientSession() as client:
        parts = Parts(resolver, delivery, keys.get, calls)
        openclaw = OpenClaw(made_up.target, client, parts)
        openclaw.on_presence(lambda _up: made_up.changed.set())
        tasks = [asyncio.create_task(resolver.run())]
        await resolver.listening.wait()
        tasks.append(asyncio.create_task(openclaw.run()))
        try:
            yield Linked(facts, delivery, openclaw, keys, answers)
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
            await facts.close()


async def test_it_has_the_key_after_the_connect_and_each_change(made_up: MadeUp) -> None:
    """And the call it then makes is the receipt, with the revision that it really holds."""
    async with made_up.serving(), linked(made_up) as link:
        await made_up.until(lambda: made_up.holds == "gsk_1" and len(link.answers) == 1)
        link.keys["groq"] = key(2)
        link.openclaw.wake()
        await made_up.until(lambda: made_up.holds == "gsk_2" and len(link.answers) == 2)
        assert [(one.revision, one.status) for one in link.answers] == [(1, 200), (2, 200)]
        assert link.delivery.uses_older("groq", 2)  # the grace of a turn that began before
        assert made_up.seen == STAND_IN  # no key leaves for a probe
        assert link.openclaw.presence is Presence.UP


async def test_an_openclaw_behind_the_gateway_reloads_nothing(made_up: MadeUp) -> None:
    """A reload costs turns; there it would be for nothing, until it asks for a key after all."""
    made_up.by_exec = False
    async with made_up.serving(), linked(made_up) as link:
        await made_up.until(lambda: link.openclaw.presence is Presence.UP)
        link.keys["groq"] = key(2)
        link.openclaw.wake()
        await made_up.until(lambda: "config.get" in made_up.asked)
        assert "secrets.reload" not in made_up.asked
        made_up.by_exec = True
        assert (await made_up.resolve())["values"] == {}
        await made_up.until(lambda: made_up.holds == "gsk_2")


async def test_a_refreshed_token_of_the_same_revision_is_taken_as_well(made_up: MadeUp) -> None:
    """An access token changes every hour, its sign-in does not."""
    async with made_up.serving(), linked(made_up) as link:
        await made_up.until(lambda: made_up.holds == "gsk_1")
        link.keys["groq"] = key(1, "refreshed")
        link.openclaw.wake()
        await made_up.until(lambda: made_up.holds == "refreshed")


async def test_a_reload_with_a_warning_is_no_success_and_is_repeated(made_up: MadeUp) -> None:
    """OpenClaw says `ok` and goes on with the old key."""
    made_up.warnings = [1]
    async with made_up.serving(), linked(made_up) as link:
        await made_up.until(lambda: len(link.answers) == 1)
        assert made_up.asked.count("secrets.reload") == 2
        assert made_up.holds == "gsk_1"


async def test_a_key_that_is_taken_away_is_forgotten_there(made_up: MadeUp) -> None:
    """By the placeholder, whose warning is the success."""
    async with made_up.serving(), linked(made_up) as link:
        await made_up.until(lambda: made_up.holds == "gsk_1" and len(link.answers) == 1)
        del link.keys["groq"]
        link.openclaw.wake()
        await made_up.until(lambda: made_up.holds == REVOKED)
        reloads = made_up.asked.count("secrets.reload")
        link.keys["groq"] = key(2)
        link.openclaw.wake()
        await made_up.until(lambda: made_up.holds == "gsk_2")
        assert made_up.asked.count("secrets.reload") == reloads + 1


async def test_a_key_that_somebody_else_took_first_is_noticed(made_up: MadeUp) -> None:
    """The agent's shell won the race; the reload that it spoiled is repeated."""
    made_up.shell_is_faster = True
    async with made_up.serving(), linked(made_up):
        await made_up.until(lambda: made_up.holds == "gsk_1")
        assert made_up.stolen == "gsk_1"
        await made_up.until(lambda: made_up.asked.count("secrets.reload") == 2)


async def test_a_slot_that_does_not_go_by_exec_is_never_given_out(made_up: MadeUp) -> None:
    """Else the agent's shell, which can ask for any, would get what the gateway keeps from it."""
    made_up.by_exec = False
    state = StateFolder(made_up.folder)
    facts = await Facts.open(state.outbox, "acme-1", 1)
    keys = {"groq": key(1), "xai": key(1)}
    async with made_up.serving(), aiohttp.ClientSession() as client:
        options = OpenClawOptions(made_up.target, slots=frozenset({"xai"}))
        use = Use(Delivery(facts), keys.get, lambda: keys)
        by_exec = KeysByExec(options, options.door(state, os.geteuid()), use, client)
        tasks = [asyncio.create_task(work) for _, work, _ in by_exec.works()]
        await made_up.until(
            lambda: "config.get" in made_up.asked and state.resolver_socket.exists()
        )
        assert (await made_up.resolve())["values"] == {secret_id("groq"): REVOKED}
        assert made_up.holds is None
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
    assert "secrets.reload" not in made_up.asked
    await facts.close()


async def test_what_it_asks_for_by_itself_comes_with_a_reload_of_ours(made_up: MadeUp) -> None:
    """As after a change of its configuration, which it reads on its own."""
    async with made_up.serving(), linked(made_up) as link:
        await made_up.until(lambda: len(link.answers) == 1)
        before = made_up.asked.count("secrets.reload")
        assert (await made_up.resolve())["values"] == {}
        await made_up.until(lambda: made_up.asked.count("secrets.reload") > before)


async def test_it_is_found_again_after_it_was_away(made_up: MadeUp) -> None:
    """And given what has changed meanwhile."""
    async with made_up.serving():
        pass  # it has a port now
    async with linked(made_up) as link:
        async with made_up.serving():
            await made_up.until(lambda: made_up.holds == "gsk_1")
        await made_up.until(lambda: link.openclaw.presence is Presence.DOWN)
        link.keys["groq"] = key(2)
        async with made_up.serving():
            await made_up.until(lambda: made_up.holds == "gsk_2")


async def test_a_wrong_token_is_refused_and_no_key_leaves(made_up: MadeUp) -> None:
    """Then it is not the OpenClaw that we mean, or not for us."""
    made_up.target.token_file.write_text("another")
    async with made_up.serving(), aiohttp.ClientSession() as client:
        with pytest.raises(OpenClawRefused, match="refused connect"):
            async with connected(client, made_up.target):
                pass


async def test_a_token_that_anybody_may_read_is_not_used(made_up: MadeUp) -> None:
    """It is as good as the keys."""
    made_up.target.token_file.chmod(0o644)
    async with aiohttp.ClientSession() as client:
        with pytest.raises(Refused, match="chmod"):
            async with connected(client, made_up.target):
                pass


@pytest.mark.parametrize("url", ["ws://192.0.2.1:18789", "http://127.0.0.1:18789", "ws://"])
def test_the_token_goes_nowhere_in_the_clear(url: str, tmp_path: Path) -> None:
    """Loopback or TLS."""
    with pytest.raises(Refused, match="on this machine"):
        Target(url, tmp_path).checked_url()
