"""`byok demo` as the person at the keyboard meets it: how it ends, and what it leaves behind."""

import asyncio
import os
import signal
import sys
from pathlib import Path

import pytest

from platform_handlers.exit_codes import exit_code

LOOK = b"Ctrl-C ends the demo"


async def demo(temporary: Path, *words: str) -> asyncio.subprocess.Process:
    """Start `byok demo *words*`, which makes its folder in *temporary*."""
    return await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "platform_handlers", "demo", *words),
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
        env=os.environ | {"TMPDIR": str(temporary)},
    )


async def heard(process: asyncio.subprocess.Process, words: bytes) -> bytes:
    """Return what it said up to the line with *words*."""
    assert process.stderr
    said = b""
    async with asyncio.timeout(90):
        while words not in said:
            line = await process.stderr.readline()
            assert line, said.decode()
            said += line
    return said


def started_in(folder: Path) -> list[str]:
    """Return the command lines of processes that name *folder*."""
    lines = []
    for process in Path("/proc").glob("[0-9]*"):
        try:
            line = (process / "cmdline").read_bytes().replace(b"\0", b" ").decode()
        except (FileNotFoundError, ProcessLookupError):
            continue
        if str(folder) in line:
            lines.append(line)
    return lines


@pytest.mark.parametrize(
    ("number", "moment", "code"),
    [
        (signal.SIGINT, LOOK, 0),
        (signal.SIGTERM, b"started nats-server", 130),
    ],
)
async def test_a_signal_ends_the_demo_and_all_it_started(
    tmp_path: Path, number: signal.Signals, moment: bytes, code: int
) -> None:
    """Told to stop, in the middle or at the end: no process, no folder and no traceback stay."""
    process = await demo(tmp_path)
    await heard(process, moment)
    assert started_in(tmp_path)
    process.send_signal(number)
    async with asyncio.timeout(30):
        _, said = await process.communicate()
    assert process.returncode == code
    assert b"Traceback" not in said
    assert started_in(tmp_path) == []
    assert os.listdir(tmp_path) == []  # noqa: PTH208 (one look, after everything ended)


async def test_a_folder_that_is_there_is_not_used(tmp_path: Path) -> None:
    """What is in it belongs to somebody; that is a usage error and no bug."""
    process = await demo(tmp_path, "--folder", str(tmp_path))
    _, said = await process.communicate()
    assert process.returncode == 2
    assert b"is there already" in said


async def test_a_bad_key_is_told_before_anything_starts(tmp_path: Path) -> None:
    """As in `byok key set`: what is wrong is said at once, and never what was pasted."""
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "platform_handlers", "demo", "--key", "openai"),
        stdin=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
        env=os.environ | {"TMPDIR": str(tmp_path)},
    )
    _, said = await process.communicate(b" sk-canary\n")
    assert process.returncode == 65
    assert b"begins or ends with a space" in said
    assert b"canary" not in said


def test_a_full_disk_says_try_again() -> None:
    """`byok init` and its like write files of their own; no space is no bug."""
    assert exit_code(OSError(28, "No space left on device")) == 75
