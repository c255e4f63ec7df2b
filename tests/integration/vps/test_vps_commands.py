"""The commands of `byok-vps`, as an operator runs them."""

import asyncio
import io
import json
import sys
import time
from pathlib import Path

import pytest

from bus_schemas.errors import Refused
from bus_schemas.fields import at_utc
from platform_handlers.authority.tls import make_ca
from tests.integration.vps.conftest import Fleet
from vps_runtime.commands import run_command
from vps_runtime.enrolment.join import join
from vps_runtime.state import StateFolder

ONE, TWO = "A" * 20, "B" * 20


@pytest.fixture(autouse=True)
def _own_logging(monkeypatch: pytest.MonkeyPatch) -> None:
    """Leave the test process's logging alone: the platform's handlers speak through it too."""
    monkeypatch.setattr("vps_runtime.commands.log_to_stderr", lambda: None)


async def command(*arguments: str) -> int:
    """Run one command in a thread: it has an event loop of its own."""
    return await asyncio.to_thread(run_command, arguments)


async def test_join_reads_the_token_from_a_pipe(
    fleet: Fleet, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    """Never from an argument; it says who the server is now and what comes next."""
    token = (await fleet.join_token("acme-1")).encode()
    monkeypatch.setattr(sys, "stdin", io.StringIO(token + "\n"))
    folder = str(tmp_path / "s")
    assert await command("join", "--state", folder, "--owner", fleet.fingerprint.lower()) == 0
    shown = capfd.readouterr().out
    identity = StateFolder(Path(folder)).read_identity()
    assert "acme-1 belongs to acme" in shown
    assert identity.fingerprint in shown
    assert token not in shown
    assert await command("fingerprint", "--state", folder) == 0
    assert capfd.readouterr().out == f"acme-1 {identity.fingerprint}\n"


async def test_a_token_on_the_command_line_is_refused_and_not_repeated(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    """Other users see arguments, and a log keeps what is printed."""
    typed = ("byok-join-1.canary", "--state", str(tmp_path / "s"), "--owner", ONE)
    assert await command("join", *typed) == 2
    said = capfd.readouterr().err
    assert "the join token is no argument" in said
    assert "canary" not in said


async def test_a_join_token_works_once(fleet: Fleet, tmp_path: Path) -> None:
    """A second machine with the same token is turned away; so is a second join here."""
    token = await fleet.join_token("acme-1")
    await join(StateFolder(tmp_path / "a"), token, fleet.fingerprint)
    with pytest.raises(Refused):
        await join(StateFolder(tmp_path / "b"), token, fleet.fingerprint)
    with pytest.raises(Refused, match="already_enrolled"):
        await join(StateFolder(tmp_path / "a"), token, fleet.fingerprint)


async def test_a_join_that_broke_off_is_tried_again_with_the_same_keys(
    fleet: Fleet, tmp_path: Path
) -> None:
    """The answer was lost: the keys are still there and the same token may be used again."""
    token = await fleet.join_token("acme-1")
    state = StateFolder(tmp_path / "a")
    await join(state, token, fleet.fingerprint)
    seed = state.nkey_seed.read_bytes()
    state.settings.unlink()
    await join(state, token, fleet.fingerprint)
    assert state.nkey_seed.read_bytes() == seed


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        (["run"], 78, "run `byok-vps join` first"),
        (["status"], 78, "run `byok-vps join` first"),
        (["doctor"], 78, "run `byok-vps join` first"),
        (["fingerprint"], 78, "run `byok-vps join` first"),
        (["trust", ONE], 78, "run `byok-vps join` first"),
        (["join", "--owner", "short"], 65, "bad_fingerprint"),
        (["join", "--owner", ONE, "--token-file", "-"], 77, "bad_join_token"),
        (["join"], 2, "--owner"),
        (["nonsense"], 2, "No such command"),
    ],
)
def test_what_goes_wrong_is_one_sentence_and_a_code(
    tmp_path: Path,
    capfd: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    arguments: list[str],
    code: int,
    words: str,
) -> None:
    """No trace, and the sentence says what to do."""
    monkeypatch.setenv("BYOK_VPS_STATE", str(tmp_path / "none"))
    monkeypatch.setattr(sys, "stdin", io.StringIO("secret-canary\n"))
    monkeypatch.setattr("vps_runtime.commands.forbid_dumps", lambda: None)
    assert run_command(arguments) == code
    error = capfd.readouterr().err
    assert words in error
    assert "Traceback" not in error
    assert "canary" not in error


async def test_pins_are_kept_from_the_console(
    fleet: Fleet, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """`trust FP` adds, `list` shows groups, `rm` takes away."""
    state = await fleet.enrol("acme-1")
    monkeypatch.setenv("BYOK_VPS_STATE", str(state.root))
    assert await command("trust", TWO) == 0
    assert await command("trust", "rm", fleet.fingerprint) == 0
    capfd.readouterr()
    assert await command("trust", "list") == 0
    assert capfd.readouterr().out == "BBBB BBBB BBBB BBBB BBBB\n"
    assert await command("trust", "rm", ONE) == 77
    assert await command("trust") == 2
    assert "rm" in capfd.readouterr().err


async def test_status_and_doctor_of_a_server_that_never_ran(
    fleet: Fleet, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nothing is held yet; that is worth a warning, not an error."""
    state = await fleet.enrol("acme-1")
    monkeypatch.setenv("BYOK_VPS_STATE", str(state.root))
    assert await command("status") == 0
    assert "no credential is held" in capfd.readouterr().out
    assert await command("status", "--json") == 0
    assert json.loads(capfd.readouterr().out)["slots"] == []
    assert await command("doctor") == 0
    shown = capfd.readouterr().out
    assert "never unlocked" in shown
    assert await command("doctor", "--json") == 0
    report = json.loads(capfd.readouterr().out)
    assert report["well"] is True
    assert {"grade": "ok", "check": "server", "detail": "acme-1 of acme"} in report["findings"]
    state.ca.write_bytes(b"x")
    assert await command("doctor") == 1
    assert "put the platform's public/ca.pem there" in capfd.readouterr().out
    state.tokens.write_bytes(b"x")
    assert await command("doctor") == 1
    assert "are missing or damaged; enrol anew" in capfd.readouterr().out


async def test_another_ca_is_refused_with_a_sentence(
    fleet: Fleet, tmp_path: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A bus whose certificate our CA did not sign gets nothing: exit code 77."""
    token = await fleet.join_token("acme-1")
    other = token.model_copy(
        update={"ca_pem": make_ca("other", now=at_utc(time.time())).certificate.decode()}
    )
    monkeypatch.setattr(sys, "stdin", io.StringIO(other.encode()))
    folder = str(tmp_path / "s")
    assert await command("join", "--state", folder, "--owner", fleet.fingerprint) == 77
    assert "certificate" in capfd.readouterr().err
