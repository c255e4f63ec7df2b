"""What people paste instead of a key, into the real `byok key set` against the real API."""

import asyncio
import os
import pty
import sys
from pathlib import Path

import pytest
from click.testing import CliRunner

from platform_handlers.owner.home import Home
from platform_handlers.owner.keys.commands import key
from tests.integration.dashboard.conftest import Faces
from tests.integration.dashboard.test_owner_commands import PROVIDER, Desk

CANARY = "CANARY" * 15
KEY = f"sk-ant-api03-{CANARY}"
OPENAI_KEY = f"sk-proj-{CANARY}"

SLIPS: list[tuple[str | bytes, str]] = [
    ("", "Nothing was entered"),
    ("\n", "Nothing was entered"),
    (f" {KEY}\n", "begins or ends with a space"),
    (f"{KEY} \r\n", "begins or ends with a space"),
    (f"{KEY}\n\n", "begins or ends with a space"),
    (f"{KEY[:20]} {KEY[20:]}\n", "a space in it"),
    (f"{KEY}\n{KEY}\n", "several lines"),
    (f"'{KEY}'\n", "quotation mark"),
    (f"\u201c{KEY}\u201d\n", "quotation mark"),
    (f"Bearer {KEY}\n", "header"),
    (f"export ANTHROPIC_API_KEY={KEY}\n", "settings file"),
    (f"ANTHROPIC_API_KEY={KEY}\n", "settings file"),
    (f"\ufeff{KEY}\n", "invisible"),
    (f"{KEY[:20]}\u200b{KEY[20:]}\n", "invisible"),
    (f"{KEY}\u00e9\n", "no key has"),
    (f"https://example.org/keys?key={KEY}\n", "address"),
    (f'{{"apiKey": "{KEY}"}}\n', "JSON"),
    (f"{KEY[:20]}\u2026\n", "shortened"),
    (KEY * 300, "far longer than any key"),
    (KEY * 10_000, "far too much"),
    (KEY.encode() + b"\xff\xfe\n", "text"),
]


@pytest.fixture
async def desk(faces: Faces, tmp_path: Path) -> Desk:
    """Acme's machine, with an owner key; acme-1 is compared with its console."""
    desk = Desk(faces, Home(tmp_path / "home"))
    await desk.begin()
    desk.home.pin("acme-1", faces.servers["acme-1"].fingerprint)
    return desk


def files(folder: Path) -> dict[str, bytes]:
    """Return all that an owner's machine keeps."""
    return {path.name: path.read_bytes() for path in folder.rglob("*") if path.is_file()}


async def test_each_slip_is_one_sentence_and_changes_nothing(desk: Desk) -> None:
    """Exit code 65, one line without the key; nothing is sent, nothing on the machine is other."""
    before = files(desk.home.folder)
    command = ["set", "acme-1", "anthropic", *PROVIDER, "--home", str(desk.home.folder)]
    for pasted, words in SLIPS:
        ended = await asyncio.to_thread(CliRunner().invoke, key, command, input=pasted)
        assert ended.exit_code == 65, ended.output
        assert words in ended.output
        assert len(ended.output.splitlines()) == 1
        assert "CANARY" not in ended.output
        assert "CANARY" not in repr(ended.exception)
    assert await desk.faces.config.view.slots_of("acme-1") == []
    assert files(desk.home.folder) == before


async def test_a_key_of_another_provider_is_not_sent_on_the_platforms_word(desk: Desk) -> None:
    """The slot is anthropic's, says the platform; whoever means it says so in the command."""
    sent = await desk.set_key(*PROVIDER, "--wait", "0")
    assert sent.exit_code == 75
    [slot] = await desk.faces.config.view.slots_of("acme-1")
    ended = await desk.set_key("--wait", "0", stdin=OPENAI_KEY + "\n")
    assert ended.exit_code == 77
    assert "looks like a key of OpenAI, not of Anthropic" in ended.output
    assert "--provider anthropic" in ended.output
    assert "CANARY" not in ended.output
    assert await desk.faces.config.view.slots_of("acme-1") == [slot]


async def test_a_key_that_nobody_can_test_is_said_to_be_so_before_it_is_sent(desk: Desk) -> None:
    """Cohere's test is at another host than its models: at an own address there is none."""
    own = ("--base-url", "http://127.0.0.1:9/v1", "--wait", "0")
    for provider, said in (("cohere", True), ("mistral", False)):
        arguments = ("key", "set", "acme-1", provider, "--provider", provider, *own)
        sent = await desk.byok(*arguments, stdin=f"{CANARY}\n")
        assert (sent.exit_code, "CANARY" in sent.output) == (75, False)
        assert ("verify --force" in sent.output.partition("sent ")[0]) is said


@pytest.mark.parametrize(
    ("pasted", "words"),
    [
        (KEY, "leave `--kind oauth` out"),
        (f'{{"access_token": "{CANARY}"', "broken"),
        (f'{{"access_token": "{CANARY} {CANARY}"}}', "look at"),
        ("", "Nothing was entered"),
    ],
)
async def test_what_is_no_sign_in_is_one_sentence_too(desk: Desk, pasted: str, words: str) -> None:
    """An API key in its place, half a document, a token that no header can carry."""
    ended = await desk.set_key(*PROVIDER, "--kind", "oauth", stdin=pasted)
    assert (ended.exit_code, "CANARY" in ended.output) == (65, False)
    assert words in ended.output
    assert await desk.faces.config.view.slots_of("acme-1") == []


async def test_a_terminal_shows_neither_the_key_nor_a_part_of_it(desk: Desk) -> None:
    """The prompt is hidden; what is wrong with the paste is said without it."""
    ours, theirs = pty.openpty()
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "-m",
        "platform_handlers",
        *("key", "set", "acme-1", "anthropic", *PROVIDER, "--home", str(desk.home.folder)),
        stdin=theirs,
        stdout=theirs,
        stderr=theirs,
        start_new_session=True,
    )
    os.close(theirs)
    try:
        said = await asyncio.to_thread(_type, ours, b"(hidden): ", f'"{KEY}"\n'.encode())
        async with asyncio.timeout(30):
            assert await process.wait() == 65, said
    finally:
        os.close(ours)
    assert "quotation mark" in said
    assert "CANARY" not in said


def _type(terminal: int, prompt: bytes, answer: bytes) -> str:
    """Answer *prompt* and return all that the terminal showed, to its end."""
    shown = b""
    while piece := _piece(terminal):
        shown += piece
        if prompt in shown and answer:
            os.write(terminal, answer)
            answer = b""
    return shown.decode()


def _piece(terminal: int) -> bytes:
    try:
        return os.read(terminal, 4096)
    except OSError:  # Linux's way to say that nobody has the other end open
        return b""
