"""The real OpenClaw at work while its keys are rotated, and once they are taken away."""

import asyncio
import json
import re
import time
from pathlib import Path

import aiohttp
import pytest

from bus_schemas.api import SlotStep
from bus_schemas.orders import Instruction, OrderKind
from tests.openclaw.conftest import Cast
from tests.openclaw.turns import Workers, turn
from tests.system.secrets_hunt import hits, hits_in_folder
from vps_runtime.local_access import agent_token
from vps_runtime.resolver.install import plan_beside
from vps_runtime.state import StateFolder

pytestmark = pytest.mark.asyncio(loop_scope="module")

SLOT, MODEL = "groq", "groq/fake-1"
KNOWN, KNOWN_MODEL = "anthropic", "anthropic/claude-opus-5"
TURNS, WORKERS, ROTATIONS = 200, 3, 20


async def rotated_under_load(cast: Cast) -> Workers:
    """Rotate while the workers take their turns; each old key dies when `drained` says so."""
    async with cast.talking() as connection:
        workers = Workers(connection, MODEL)
        async with asyncio.TaskGroup() as tasks:
            for number in range(WORKERS):
                tasks.create_task(workers.work(f"worker-{number}", TURNS))
            for number in range(ROTATIONS):
                await workers.until(number * TURNS // ROTATIONS)
                revision = await cast.rotate(SLOT)
                await cast.owned.step(SLOT, revision, SlotStep.DRAINED)
                cast.provider.kill(cast.keys[-2])
            workers.stop()
    return workers


async def retire(cast: Cast) -> None:
    """Take the key in use and all before it out of use, as `byok key compromised` does."""
    with cast.owned.api() as platform:
        revision = platform.slot("acme-1", SLOT).revision
    await cast.owned.order(Instruction(OrderKind.RETIRE, SLOT, str(revision)))


async def test_no_turn_fails_while_keys_rotate_behind_the_gateway(cast: Cast) -> None:
    """200 turns of three workers during 20 rotations, each old key dead at `drained`: all good."""
    await cast.rotate(KNOWN, cast.provider.origin)
    await cast.rotate(SLOT)
    config = await cast.owned.openclaw_config("--model", f"{SLOT}=fake-1")
    cast.openclaw.configure(config, MODEL)
    await cast.openclaw.start()
    before = cast.openclaw.pid
    workers = await rotated_under_load(cast)
    assert workers.failed == []
    assert len(workers.turns) >= TURNS
    assert refused_calls(cast) == []
    assert cast.openclaw.pid == before
    assert cast.openclaw.process is not None
    assert cast.openclaw.process.poll() is None
    used = {call.key for call in cast.provider.calls if "chat" in call.path and call.status == 200}
    assert len(used & set(cast.keys)) > ROTATIONS / 2  # the new keys were really in use meanwhile


async def test_a_provider_that_openclaw_knows_needs_an_address_and_a_token(cast: Cast) -> None:
    """Its models, its dialect and its header come from OpenClaw, the key from the gateway."""
    assert set(cast.openclaw.configured()[KNOWN]) == {"baseUrl", "apiKey"}
    since = len(cast.provider.calls)
    async with cast.talking() as connection:
        assert (await turn(connection, KNOWN_MODEL, "known")).ok
    assert cast.provider.calls[since].path == "/v1/messages"
    assert cast.provider.calls[since].key == cast.keys[0]


async def test_the_doctor_finds_it_well(cast: Cast) -> None:
    """Reached, let in, of the known version, and calling the gateway for every slot."""
    at = ("--openclaw-url", cast.openclaw.url)
    token = ("--openclaw-token-file", str(cast.openclaw.token_file))
    found = json.loads(await cast.owned.doctor("--json", *at, *token))["findings"]
    about = {row["detail"]: row["grade"] for row in found if row["check"] == "openclaw"}
    assert set(about.values()) == {"ok"}
    assert f"{SLOT} calls the gateway for {SLOT}" in about
    assert f"{KNOWN} calls the gateway for {KNOWN}" in about


async def test_the_key_is_nowhere_in_an_openclaw_behind_the_gateway(cast: Cast) -> None:
    """Neither its files nor its logs, environment or memory ever held any of the keys."""
    parts = {key[:-30] for key in cast.keys}  # what all keys of a slot begin with: looked for once
    assert hits_in_folder(cast.openclaw.folder, parts) == []
    for pid in [cast.openclaw.pid, *children(cast.openclaw.pid)]:
        proc = Path("/proc") / str(pid)
        assert hits("environment", (proc / "environ").read_bytes(), parts) == []
        assert hits("arguments", (proc / "cmdline").read_bytes(), parts) == []
        assert remembered(proc, [part.encode() for part in parts]) == []


async def test_a_retired_key_is_refused_within_a_second_and_reaches_nobody(cast: Cast) -> None:
    """After the order of its owner no call goes out any more, also none of a turn."""
    token = agent_token(StateFolder(cast.owned.server))
    url = f"http://127.0.0.1:{cast.gateway_port}/{SLOT}/chat/completions"
    await retire(cast)
    ordered = time.monotonic()
    async with cast.talking() as connection:
        async with asyncio.timeout(10):
            while await called(cast.client, url, token) != 401:
                pass
        assert time.monotonic() - ordered < 1
        since = len(cast.provider.calls)
        assert not (await turn(connection, MODEL, "after")).ok
        assert cast.served(since) == []
    cast.openclaw.stop()


async def test_no_turn_fails_while_keys_rotate_by_exec(cast: Cast) -> None:
    """The same where OpenClaw holds the key itself: `drained` then waits for the grace."""
    await cast.rotate(SLOT)
    resolver = cast.owned.folder / "bin" / "byok-resolver"
    exec_way = ("--exec", "--write-resolver", str(resolver), "--slot", SLOT)
    config = await cast.owned.openclaw_config(*exec_way, "--model", f"{SLOT}=fake-1")
    config["models"]["providers"][SLOT]["baseUrl"] = cast.provider.base_url  # not the real one
    cast.openclaw.configure(config, MODEL)
    await cast.openclaw.apply(plan_beside(resolver))
    await cast.openclaw.start()
    before = cast.openclaw.pid
    async with cast.talking() as connection:
        while not (await turn(connection, MODEL, "first")).ok:  # until the runtime has found it
            pass
    workers = await rotated_under_load(cast)
    assert workers.failed == []
    assert len(workers.turns) >= TURNS
    assert refused_calls(cast) == []
    assert cast.openclaw.pid == before


async def test_a_key_retired_by_exec_is_forgotten_with_the_next_reload(cast: Cast) -> None:
    """The order has OpenClaw reload at once; a turn after it finds no key and asks nobody."""
    async with cast.talking() as connection:
        await retire(cast)
        async with asyncio.timeout(10):
            while not (lost := (await connection.ask("status"))["degradedSecretOwners"]):
                pass
        assert lost[0]["degradationState"] == "cold"
        since = len(cast.provider.calls)
        refused = await turn(connection, MODEL, "after")
        assert not refused.ok
        assert "configured but unavailable" in refused.said
        assert cast.served(since) == []


async def test_a_lock_takes_the_key_back_as_well(cast: Cast) -> None:
    """A locked server has no key and no use for one; OpenClaw is told to forget the one it has."""
    await cast.rotate(SLOT)
    async with cast.talking() as connection:
        async with asyncio.timeout(30):
            while not (await turn(connection, MODEL, "again")).ok:  # no cool-down: nothing was sent
                pass
        await cast.owned.order(Instruction(OrderKind.LOCK))
        async with asyncio.timeout(30):
            while not (await connection.ask("status"))["degradedSecretOwners"]:
                pass
        since = len(cast.provider.calls)
        assert not (await turn(connection, MODEL, "locked")).ok
        assert cast.served(since) == []


def refused_calls(cast: Cast) -> list[str | None]:
    """Return the keys of calls that were made with a dead one."""
    return [call.key for call in cast.provider.calls if call.status == 401]


async def called(client: aiohttp.ClientSession, url: str, token: str) -> int:
    """Return how the gateway answers a call."""
    body = {"model": "fake-1", "messages": []}
    headers = {"Authorization": f"Bearer {token}"}
    async with client.post(url, json=body, headers=headers) as answer:
        await answer.read()
        return answer.status


def children(pid: int) -> list[int]:
    """Return the processes that *pid* started, and theirs."""
    found: list[int] = []
    for task in (Path("/proc") / str(pid) / "task").glob("*/children"):
        for child in task.read_text().split():
            found += [int(child), *children(int(child))]
    return found


def remembered(proc: Path, needles: list[bytes]) -> list[str]:
    """Return which of *needles* are in the writable memory of the process at *proc*."""
    found = set()
    areas = re.findall(r"^(\w+)-(\w+) rw", (proc / "maps").read_text(), re.MULTILINE)
    with (proc / "mem").open("rb", buffering=0) as memory:
        for start, end in ((int(a, 16), int(b, 16)) for a, b in areas):
            try:
                memory.seek(start)
                content = memory.read(end - start)
            except OSError:  # not there, as the kernel's own pages
                continue
            found |= {needle[:12].decode() for needle in needles if needle in content}
    return sorted(found)
