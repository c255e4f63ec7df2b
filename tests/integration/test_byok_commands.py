"""The commands of `byok` as processes: init, the bus, owners, servers, the evaluator."""

import asyncio
import contextlib
import io
import os
import signal
import sys
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from bus_schemas.errors import Refused
from bus_schemas.join_token import PREFIX, JoinToken
from bus_schemas.keys import server_fingerprint
from platform_handlers.cli import main
from platform_handlers.provisioning.enrolment import Enrolment, Enrolments
from platform_handlers.provisioning.records import joiner_name, secret_hash
from platform_handlers.provisioning.registry import FILE_NAME, Registry
from tests.enrolling import Machine


@pytest.fixture(autouse=True)
def _own_logging(monkeypatch: pytest.MonkeyPatch) -> None:
    """Leave the test process's logging alone: the tests after these speak through it too."""
    monkeypatch.setattr("bus_schemas.transport.logs.log_to_stderr", lambda: None)


@dataclass
class Ended:
    """What became of a command."""

    code: int
    out: str
    err: str


def arguments(*words: str) -> tuple[str, ...]:
    """Return the command line."""
    code = "from platform_handlers.cli import main; main()"
    return (sys.executable, "-c", code, *words)


async def start(*words: str) -> asyncio.subprocess.Process:
    """Start a command."""
    pipe = asyncio.subprocess.PIPE
    return await asyncio.create_subprocess_exec(
        *arguments(*words), stdout=pipe, stderr=pipe, env=os.environ
    )


async def byok(*words: str) -> Ended:
    """Run a short command to its end, in a thread: a new Python each time would cost a second."""
    out, err = io.StringIO(), io.StringIO()
    with (
        contextlib.redirect_stdout(out),
        contextlib.redirect_stderr(err),
        pytest.raises(SystemExit) as ended,
    ):
        await asyncio.to_thread(main, list(words))
    assert isinstance(ended.value.code, int)
    return Ended(ended.value.code, out.getvalue(), err.getvalue())


async def byok_process(*words: str) -> Ended:
    """Run a command as a process of its own."""
    process = await start(*words)
    async with asyncio.timeout(30):
        out, err = await process.communicate()
    assert process.returncode is not None
    return Ended(process.returncode, out.decode(), err.decode())


async def first_line(process: asyncio.subprocess.Process, mark: bytes) -> bytes:
    """Return the first line with *mark* in it."""
    assert process.stdout is not None
    async with asyncio.timeout(30):
        async for line in process.stdout:
            if mark in line:
                return line
    raise AssertionError(f"the command ended without {mark!r}")


async def stop(process: asyncio.subprocess.Process) -> int | None:
    """Ask it to end and return its exit code."""
    if process.returncode is None:
        process.send_signal(signal.SIGTERM)
    async with asyncio.timeout(30):
        await process.communicate()
    return process.returncode


@pytest.fixture
async def state(tmp_path: Path) -> str:
    """A fresh installation, made by the command."""
    folder = tmp_path / "state"
    assert (await byok("init", str(folder), "--listen", "127.0.0.1:-1")).code == 0
    return str(folder)


@pytest.fixture
async def bus(state: str) -> AsyncIterator[str]:
    """A running bus; gives the state folder."""
    process = await start("--state", state, "nats", "run")
    await first_line(process, b"listens on tls://")
    yield state
    assert await stop(process) == 0


async def test_a_folder_is_initialised_once(state: str) -> None:
    """Keys are never overwritten, and a stranger's folder is named as such."""
    again = await byok("init", state)
    assert (again.code, again.out) == (77, "")
    assert again.err.startswith("byok: already_initialised: ")
    assert again.err.count("\n") == 1
    missing = await byok("--state", f"{state}-other", "owner", "list")
    assert missing.code == 78
    assert "byok init" in missing.err


@pytest.mark.parametrize("listen", ["127.0.0.1", "127.0.0.1:x", ":1", "127.0.0.1:70000"])
async def test_a_bad_address_is_a_usage_error(tmp_path: Path, listen: str) -> None:
    """Nothing is made for an address nobody could listen on."""
    ended = await byok("init", str(tmp_path / "x"), "--listen", listen)
    assert ended.code == 2
    assert not (tmp_path / "x").exists()


async def test_owners_and_servers_come_and_go(bus: str) -> None:
    """From the first owner to a server that is gone for good."""
    added = await byok("--state", bus, "owner", "add", "acme")
    assert added.code == 0
    assert len(added.out.strip()) == 43
    assert (await byok("--state", bus, "owner", "list")).out == "acme\n"
    server = await byok("--state", bus, "server", "add", "acme", "acme-1")
    token = JoinToken.decode(server.out)
    assert (token.owner_id, token.server_id) == ("acme", "acme-1")
    shown = await byok("--state", bus, "server", "show", "acme-1")
    assert "pending" in shown.out
    assert "never" in shown.out
    gone = await byok("--state", bus, "server", "deprovision", "acme-1", "--reason", "moved")
    assert gone.code == 0, gone.err
    assert "confirmed its end: 1 of 1" in gone.out
    assert "0 found, 0 kicked, 0 still open" in gone.out
    listed = await byok("--state", bus, "server", "list", "--owner", "acme")
    assert listed.out.split() == ["acme-1", "acme", "deprovisioned"]
    twice = await byok("--state", bus, "server", "add", "acme", "acme-1")
    assert twice.code == 77
    assert "never issued twice" in twice.err
    wrong = await byok("--state", bus, "server", "revoke", "acme-1", "--reason", "No Code")
    assert wrong.code == 2


async def test_without_a_bus_a_revocation_says_what_is_open(state: str) -> None:
    """It is recorded, and the exit code says that it could not be verified."""
    bus = ("--state", state, "--bus", "tls://127.0.0.1:1")
    await byok("--state", state, "owner", "add", "acme")
    await byok(*bus, "server", "add", "acme", "acme-1")
    ended = await byok(*bus, "server", "revoke", "acme-1")
    assert ended.code == 1
    assert "acme-1 is revoked" in ended.out
    assert "cannot be reached" in ended.err
    unknown = await byok("--state", state, "server", "list")
    assert "revoked" in unknown.out


async def test_a_server_is_replaced_only_when_its_id_is_typed(bus: str) -> None:
    """A slip turns nobody's machine away; the token comes out alone, the rest is for the eyes."""
    state = ("--state", bus)
    await byok(*state, "owner", "add", "acme")
    first = JoinToken.decode((await byok(*state, "server", "add", "acme", "acme-1")).out)
    never = await byok(*state, "server", "reenrol", "acme-1", "--confirm", "acme-1")
    assert (never.code, never.out) == (77, "")
    assert "byok server add acme acme-1" in never.err
    enrolled = await enrol(Path(bus), first)
    slip = await byok(*state, "server", "reenrol", "acme-1", "--confirm", "acme-11")
    assert (slip.code, slip.out) == (2, "")
    assert "nothing has changed" in slip.err
    shown = (await byok(*state, "server", "show", "acme-1")).out
    assert enrolled in shown
    assert "join token     used\n" in shown
    done = await byok(*state, "server", "reenrol", "acme-1", "--confirm", "acme-1")
    assert done.code == 0, done.err
    assert printed(done).server_id == "acme-1"
    assert "confirmed its end: 1 of 1" in done.err
    assert "claims_pushed" not in done.out + done.err  # that line is the platform's log's
    shown = (await byok(*state, "server", "show", "acme-1")).out
    assert "pending" in shown
    assert "not enrolled" in shown
    assert "join token     good until " in shown
    assert "from 192.0.2.7: enrolled" in shown
    assert "from 192.0.2.8: join_token_used" in shown
    nowhere = (*state, "--bus", "tls://127.0.0.1:1")
    away = await byok(*nowhere, "server", "reenrol", "acme-1", "--confirm", "acme-1")
    assert away.code == 1
    assert printed(away).server_id == "acme-1"


def printed(ended: Ended) -> JoinToken:
    """Return the join token in the output; in here the log goes to standard output, too."""
    [token] = [line for line in ended.out.splitlines() if line.startswith(PREFIX)]
    return JoinToken.decode(token)


async def enrol(state: Path, token: JoinToken) -> str:
    """Let a machine enrol and another one try; return the first one's fingerprint."""
    async with await Registry.open(state / "platform" / FILE_NAME) as registry:
        for source in ("192.0.2.7", "192.0.2.8"):
            machine = Machine.new()
            key = machine.identity.public_key().public_bytes_raw()
            secret = token.secret.get_secret_value()
            joiner = joiner_name(secret_hash(secret))
            wish = Enrolment("acme-1", secret, machine.public_nkey, key, source, joiner)
            with contextlib.suppress(Refused):
                record = await Enrolments(registry).enrol(wish)
    assert record.identity_key is not None
    return server_fingerprint("acme-1", record.identity_key)


async def test_the_evaluator_runs_until_it_is_asked_to_end(bus: str) -> None:
    """It says when it answers, leaves no core file, and ends with 0."""
    process = await start("--state", bus, "evaluator", "run")
    await first_line(process, b"the evaluator answers")
    limits = (Path("/proc") / str(process.pid) / "limits").read_text().splitlines()
    [core] = [line for line in limits if line.startswith("Max core file size")]
    assert core.split()[4:6] == ["0", "0"]
    assert await stop(process) == 0


async def test_an_evaluator_without_its_keys_says_so(bus: str) -> None:
    """One sentence, exit code 77, no traceback."""
    (Path(bus) / "evaluator" / "signing.key").unlink()
    ended = await byok_process("--state", bus, "evaluator", "run")
    assert ended.code == 77
    assert ended.err.splitlines()[-1].startswith("byok: evaluator_keys_damaged: ")
    assert "Traceback" not in ended.err


async def test_an_unreachable_bus_is_one_sentence_and_no_output(bus: str) -> None:
    """Standard output holds what was asked for and nothing else; one line says what is wrong."""
    away = ("--bus", "tls://127.0.0.1:1")
    ended = await byok_process("--state", bus, *away, "events", "tail", "--json", "--no-follow")
    assert (ended.code, ended.out) == (69, "")
    [line] = ended.err.splitlines()
    assert line.startswith("byok: tls://127.0.0.1:1 cannot be reached")
