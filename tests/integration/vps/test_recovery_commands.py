"""`byok-vps recovery-code` and `recover`, and what a refused copy shows on its console."""

import asyncio
import json
import os
import subprocess
import sys
from pathlib import Path

from bus_schemas.exit_codes import ExitCode
from tests.integration.vps.conftest import Fleet
from tests.integration.vps.starts import copied, key, start
from vps_runtime.unlock.refusal import last_refusal
from vps_runtime.vault.recovery import code_typed

ROOT = Path(__file__).parents[3]


async def byok_vps(*arguments: str, stdin: str = "") -> subprocess.CompletedProcess[str]:
    """Run a command of the server's console as a process of its own."""
    return await asyncio.to_thread(
        subprocess.run,
        [sys.executable, "-m", "vps_runtime", *arguments],
        input=stdin,
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    )


async def test_a_code_is_shown_once_and_opens_again(fleet: Fleet) -> None:
    """Only on standard output; never on the disk; a wrong one is refused without a word of it."""
    state = await fleet.enrol("acme-1")
    root_key = key(await start(state))
    where = ("--state", str(state.root))
    agent = await fleet.start(state)
    await agent.ready()
    assert (await byok_vps("recovery-code", *where)).returncode == ExitCode.TRY_AGAIN
    await agent.stop()
    made = await byok_vps("recovery-code", *where)
    assert made.returncode == ExitCode.OK, made.stderr
    code = made.stdout.strip()
    assert code not in made.stderr
    assert code_typed(code) not in b"".join(written(state.root))
    assert code.replace(" ", "").encode() not in b"".join(written(state.root))
    wrong = "A" * 32
    refused = await byok_vps("recover", *where, stdin=wrong)
    assert refused.returncode == ExitCode.DENIED
    assert wrong not in refused.stdout + refused.stderr
    done = await byok_vps("recover", *where, stdin=f"{code.lower()}\n")
    assert done.returncode == ExitCode.OK, done.stderr
    assert key(await start(state)) == root_key
    assert "no code" not in (await byok_vps("recovery-code", "--forget", *where)).stdout
    assert (await byok_vps("recover", *where, stdin=code)).returncode == ExitCode.DENIED


def written(folder: Path) -> list[bytes]:
    """Return what all files below *folder* hold."""
    return [path.read_bytes() for path in folder.rglob("*") if path.is_file()]


async def test_a_refused_copy_says_what_lets_it_in(fleet: Fleet, tmp_path: Path) -> None:
    """`run` ends with the command its owner would type; `status` and `doctor` show it again."""
    state = await fleet.enrol("acme-1")
    await start(state)
    copy = copied(state, tmp_path / "copy")
    await start(state)
    where = ("--state", str(copy.root))
    ended = await byok_vps("run", *where)
    assert ended.returncode == ExitCode.DENIED
    refusal = last_refusal(copy)
    assert refusal is not None
    command = f"byok server approve acme-1 {refusal.code}"
    assert command in ended.stderr
    assert command in (await byok_vps("status", *where)).stdout
    shown = json.loads((await byok_vps("status", "--json", *where)).stdout)
    assert shown["approval_code"] == refusal.code
    assert command in (await byok_vps("doctor", *where)).stdout
