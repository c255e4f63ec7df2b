"""The resolver on a real socket, through the very script that OpenClaw runs."""

import asyncio
import json
import os
import subprocess
from collections.abc import AsyncIterator, Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from bus_schemas.fields import CredentialKind
from vps_runtime.facts.store import Facts, Telling
from vps_runtime.keys.keyring import KeyInUse
from vps_runtime.resolver.delivery import Delivery
from vps_runtime.resolver.install import install
from vps_runtime.resolver.rules import REVOKED, secret_id
from vps_runtime.resolver.server import Door, Resolver

GRACE = 60.0
GROQ, XAI = secret_id("groq"), secret_id("xai")


def key(slot: str, revision: int) -> KeyInUse:
    """Return a made-up key in use."""
    kind = CredentialKind.API_KEY
    secret = f"made-up-{slot}-{revision}"
    return KeyInUse(slot, revision, slot, kind, "https://a.example", "bearer", secret)


@dataclass
class Desk:
    """A resolver that serves, its memory, and the script that asks it."""

    folder: Path
    facts: Facts
    now: float = 1000.0
    keys: dict[str, KeyInUse] = field(default_factory=dict)
    user: int = field(default_factory=os.geteuid)

    def __post_init__(self) -> None:
        self.delivery = Delivery(self.facts, GRACE, lambda: self.now)
        door = Door(self.folder / "resolver.sock", self.user)
        self.resolver = Resolver(door, self.delivery, self.keys.get, lambda: {"groq", "xai"})

    async def ask(self, *ids: str) -> dict[str, dict[str, object]]:
        """Run the script as OpenClaw does: no environment but the socket, no shell."""
        script = self.folder / "bin" / "byok-resolver"
        if not script.exists():
            install(script, os.geteuid())
        process = await asyncio.create_subprocess_exec(
            script,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env={"BYOK_SOCKET": str(self.folder / "resolver.sock")},
            cwd=script.parent,
        )
        request = {"protocolVersion": 1, "provider": "byok", "ids": ids}
        out, _ = await process.communicate(json.dumps(request).encode())
        assert process.returncode == 0
        answer: dict[str, dict[str, object]] = json.loads(out)
        assert json.loads(out)["protocolVersion"] == 1
        return answer


@pytest.fixture
async def desk(tmp_path: Path) -> AsyncIterator[Desk]:
    """A resolver with two keys."""
    facts = await Facts.open(tmp_path / "outbox.db", "acme-1", 1)
    desk = Desk(tmp_path, facts)
    desk.keys |= {"groq": key("groq", 1), "xai": key("xai", 7)}
    serving = asyncio.create_task(desk.resolver.run())
    await desk.resolver.listening.wait()
    yield desk
    serving.cancel()
    await asyncio.gather(serving, return_exceptions=True)
    await facts.close()


async def test_a_key_comes_inside_a_window_once_and_at_no_other_time(desk: Desk) -> None:
    """The agent's own shell can run the very same command."""
    assert (await desk.ask(GROQ))["values"] == {}
    with desk.resolver.open_window() as window:
        assert (await desk.ask(GROQ, XAI))["values"] == {
            GROQ: "made-up-groq-1",
            XAI: "made-up-xai-7",
        }
        again = await desk.ask(GROQ)
        assert again["values"] == {}
        assert again["errors"] == {GROQ: {"code": "NOT_FOUND"}}
        assert window.twice == {"groq"}
    assert (await desk.ask(GROQ))["values"] == {}


async def test_what_was_given_out_is_remembered_before_it_leaves(desk: Desk) -> None:
    """After a kill the next start knows what is in OpenClaw's hands."""
    with desk.resolver.open_window():
        await desk.ask(GROQ)
    later = await Facts.open(desk.folder / "outbox.db", "acme-1", 2)
    try:
        assert Delivery(later, GRACE, lambda: desk.now).uses_older("groq", 2)
        assert not Delivery(later, GRACE, lambda: desk.now).uses_older("xai", 8)
    finally:
        await later.close()


async def test_an_old_key_is_out_of_use_after_the_reload_and_its_grace(desk: Desk) -> None:
    """A turn keeps the key it began with, so the reload alone says nothing."""
    with desk.resolver.open_window() as window:
        await desk.ask(GROQ)
    await desk.delivery.taken({slot: one.revision for slot, one in window.given.items() if one})
    desk.keys["groq"] = key("groq", 2)
    with desk.resolver.open_window():
        await desk.ask(GROQ)
    assert desk.delivery.uses_older("groq", 2)
    await desk.delivery.taken({"groq": 2})
    desk.now += GRACE - 1
    assert desk.delivery.uses_older("groq", 2)
    desk.now += 1
    assert not desk.delivery.uses_older("groq", 2)


async def test_a_slot_without_a_key_says_that_it_is_revoked(desk: Desk) -> None:
    """NOT_FOUND would leave OpenClaw with the old one."""
    del desk.keys["groq"]
    assert (await desk.ask(GROQ))["values"] == {GROQ: REVOKED}


async def test_an_order_that_comes_while_a_key_is_noted_wins(
    desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What was usable when it was asked for may not be when it leaves."""
    tell = desk.facts.decide

    async def ordered_meanwhile(decision: Callable[[Mapping[str, str]], Telling]) -> None:
        del desk.keys["groq"]
        await tell(decision)

    monkeypatch.setattr(desk.facts, "decide", ordered_meanwhile)
    with desk.resolver.open_window():
        assert (await desk.ask(GROQ))["values"] == {}


async def test_another_user_is_answered_nothing(tmp_path: Path) -> None:
    """Whoever reaches the socket is known by the kernel's word, not by their own."""
    facts = await Facts.open(tmp_path / "outbox.db", "acme-1", 1)
    desk = Desk(tmp_path, facts, user=os.geteuid() + 1)
    desk.keys["groq"] = key("groq", 1)
    serving = asyncio.create_task(desk.resolver.run())
    await desk.resolver.listening.wait()
    with desk.resolver.open_window() as window:
        assert (await desk.ask(GROQ))["errors"] == {GROQ: {"code": "NOT_FOUND"}}
    assert window.given == {}
    serving.cancel()
    await asyncio.gather(serving, return_exceptions=True)
    await facts.close()


async def test_without_a_runtime_nothing_is_found_and_nothing_fails(tmp_path: Path) -> None:
    """A failing command would cost OpenClaw all its other keys as well."""
    facts = await Facts.open(tmp_path / "outbox.db", "acme-1", 1)
    desk = Desk(tmp_path, facts)
    assert (await desk.ask(GROQ))["errors"] == {GROQ: {"code": "NOT_FOUND"}}
    await facts.close()


async def test_too_long_a_request_is_answered_nothing(desk: Desk) -> None:
    """Nobody fills the runtime's memory."""
    answer = await desk.ask(*(f"{GROQ}{number}" for number in range(10_000)))
    assert answer["values"] == {}


async def test_who_says_nothing_uses_up_no_more_than_a_few_connections(desk: Desk) -> None:
    """The agent's shell could else open so many that the runtime can open no file any more."""
    path = desk.folder / "resolver.sock"
    lines = [await asyncio.open_unix_connection(path) for _ in range(40)]
    ended = [asyncio.create_task(reader.read()) for reader, _ in lines]
    done, waiting = await asyncio.wait(ended, timeout=1.0)
    assert len(waiting) <= 8
    assert {task.result() for task in done} == {b""}
    for task in waiting:
        task.cancel()
    for _, writer in lines:
        writer.close()


async def test_once_nobody_takes_keys_the_last_ones_end_with_their_grace(desk: Desk) -> None:
    """Else a rotation would wait for ever for an OpenClaw that is gone."""
    with desk.resolver.open_window():
        await desk.ask(GROQ)
    await desk.delivery.nobody_takes()
    assert desk.delivery.uses_older("groq", 2)
    desk.now += GRACE
    assert not desk.delivery.uses_older("groq", 2)


def test_the_resolver_that_is_installed_is_as_openclaw_wants_it(tmp_path: Path) -> None:
    """A regular file of its own user that nobody else can write, and that needs no PATH."""
    path = tmp_path / "bin" / "byok-resolver"
    path.parent.mkdir()
    path.symlink_to(tmp_path / "elsewhere")
    install(path, os.geteuid())
    found = path.lstat()
    assert path.is_file()
    assert not path.is_symlink()
    assert not (tmp_path / "elsewhere").exists()
    assert found.st_uid == os.geteuid()
    assert found.st_mode & 0o777 == 0o500
    assert path.read_text().startswith("#!/")


def test_while_openclaw_is_set_up_a_word_stands_for_each_key(tmp_path: Path) -> None:
    """`openclaw secrets apply` refuses a reference without a value; no key is needed for that."""
    path = tmp_path / "byok-resolver"
    install(path, os.geteuid())
    request = {"protocolVersion": 1, "provider": "byok", "ids": [secret_id("groq")]}
    nowhere = {"BYOK_SETUP": "1", "BYOK_SOCKET": str(tmp_path / "resolver.sock")}
    asked = json.dumps(request).encode()
    out = subprocess.run([path], input=asked, env=nowhere, capture_output=True, check=True).stdout
    assert json.loads(out)["values"] == {secret_id("groq"): "not-a-key"}
