"""`byok-vps openclaw-config` and `byok-vps resolve`, as people and OpenClaw run them."""

import json
import os
import socket
import sys
import threading
from pathlib import Path

import pytest

from bus_schemas.exit_codes import ExitCode
from bus_schemas.fields import CredentialKind
from vps_runtime.commands import run_command
from vps_runtime.facts.store import Facts
from vps_runtime.facts.told import StoredNote
from vps_runtime.state import Settings, StateFolder

NOTE = "018f0000-0000-7000-8000-000000000001"


@pytest.fixture
async def folder(tmp_path: Path) -> Path:
    """The state of a server that holds a key of a provider OpenClaw knows, and one it does not."""
    state = StateFolder(tmp_path / "server")
    state.root.mkdir(mode=0o700)
    settings = Settings(server_id="acme-1", owner_id="acme", url="tls://127.0.0.1:4222")
    state.settings.write_text(settings.model_dump_json())
    facts = await Facts.open(state.outbox, "acme-1", 1)
    for slot in ("anthropic", "groq"):
        note = StoredNote(
            slot_id=slot,
            revision=1,
            provider=slot,
            kind=CredentialKind.API_KEY,
            rotation_id=NOTE,
            stored_at=1,
        )
        await facts.tell(remember={f"held/{slot}/1": note.model_dump_json()})
    await facts.close()
    return state.root


def run(folder: Path, *options: str) -> int:
    """Run `byok-vps openclaw-config`; in a thread, since it has a loop of its own."""
    codes: list[int] = []
    words = ["openclaw-config", "--state", str(folder), *options]
    worker = threading.Thread(target=lambda: codes.append(run_command(words)))
    worker.start()
    worker.join()
    return codes[0]


async def test_the_gateway_is_printed_with_a_token_and_words_apart(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """What is on the output is JSON and nothing else, so it can be merged by a program."""
    assert run(folder) == ExitCode.OK
    out, err = capsys.readouterr()
    providers = json.loads(out)["models"]["providers"]
    token = (folder / "agent.token").read_text().strip()
    assert providers["anthropic"] == {
        "baseUrl": "http://127.0.0.1:8319/anthropic",
        "apiKey": token,
    }
    assert providers["groq"]["models"] == []
    assert "--model groq=MODEL" in err
    assert token not in err


async def test_it_says_where_the_gateway_really_listens(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Another port than the usual one stands in the state folder while it runs."""
    StateFolder(folder).gateway_url.write_text("http://127.0.0.1:9000\n")
    assert run(folder, "--slot", "groq", "--model", "groq=llama") == ExitCode.OK
    out, err = capsys.readouterr()
    assert json.loads(out)["models"]["providers"]["groq"]["baseUrl"] == "http://127.0.0.1:9000/groq"
    assert "--model" not in err


async def test_by_exec_the_resolver_is_put_where_it_was_said(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The configuration names that very file and the runtime's socket."""
    path = tmp_path / "bin" / "byok-resolver"
    assert run(folder, "--exec", "--slot", "anthropic", "--write-resolver", str(path)) == 0
    out, err = capsys.readouterr()
    command = json.loads(out)["secrets"]["providers"]["byok"]
    assert command["command"] == str(path)
    assert command["env"]["BYOK_SOCKET"] == str(folder / "resolver.sock")
    assert os.access(path, os.X_OK)
    assert "use the gateway" in err
    plan = path.with_name("byok-resolver.plan.json")
    assert json.loads(plan.read_text())["targets"][0]["path"] == "profiles.anthropic:byok.key"
    assert f"BYOK_SETUP=1 openclaw secrets apply --from {plan} --allow-exec" in err


@pytest.mark.parametrize(
    ("options", "says"),
    [
        (("--slot", "xai"), "xai is not held here; there is anthropic, groq"),
        (("--model", "groq"), "write it as SLOT=MODEL"),
        (("--exec",), "--exec needs --write-resolver"),
        (("--write-resolver", "/nowhere/x"), "go with --exec"),
        (
            ("--exec", "--write-resolver", "/nowhere/x", "--agent-user", "nobody-of-that-name"),
            "no user nobody-of-that-name",
        ),
    ],
)
async def test_a_wrong_wish_is_told_in_one_sentence(
    folder: Path, capsys: pytest.CaptureFixture[str], options: tuple[str, ...], says: str
) -> None:
    """And nothing is printed that could be pasted."""
    assert run(folder, *options) == ExitCode.USAGE
    out, err = capsys.readouterr()
    assert says in " ".join(err.split())
    assert out == ""


async def test_only_root_gives_a_file_to_another_user(
    folder: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """OpenClaw would not run it otherwise; better said at once."""
    monkeypatch.setattr(os, "geteuid", lambda: 12345)
    path = tmp_path / "byok-resolver"
    options = ("--exec", "--write-resolver", str(path), "--agent-user", "0")
    assert run(folder, *options) == ExitCode.DENIED
    assert "as root or as that user" in capsys.readouterr().err
    assert not path.exists()


def test_resolve_hands_on_what_the_runtime_answers(
    tmp_path: Path, capfdbinary: pytest.CaptureFixture[bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The same exchange as the script's, as a command."""
    answer = b'{"protocolVersion": 1, "values": {"a": "made-up"}, "errors": {}}'
    path = tmp_path / "resolver.sock"
    heard: list[bytes] = []
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(path))
        listener.listen()

        def serve() -> None:
            line, _ = listener.accept()
            with line:
                while chunk := line.recv(1024):
                    heard.append(chunk)
                line.sendall(answer)

        serving = threading.Thread(target=serve)
        serving.start()
        request = tmp_path / "request"
        request.write_bytes(b'{"protocolVersion": 1, "ids": ["a"]}')
        with request.open() as asked:
            monkeypatch.setattr(sys, "stdin", asked)
            assert run_command(["resolve", "--socket", str(path)]) == ExitCode.OK
        serving.join()
    assert b"".join(heard) == request.read_bytes()
    sys.stdout.flush()
    assert capfdbinary.readouterr().out == answer
