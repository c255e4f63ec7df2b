"""What the agent's process is like from outside: undumpable, small, quiet."""

import subprocess
import sys
from pathlib import Path

from tests.integration.vps.conftest import Agent, Fleet

_HEAVY = ("rich", "starlette", "httpx", "jinja2", "uvicorn")
_MEBIBYTE = 1024 * 1024


def proc(agent: Agent, name: str) -> str:
    """Return what the kernel says of the agent's process."""
    return Path(f"/proc/{agent.process.pid}/{name}").read_text()


async def test_the_running_agent_cannot_be_dumped(fleet: Fleet) -> None:
    """A crash leaves no core file with keys in it."""
    agent = await fleet.start(await fleet.enrol("acme-1"))
    await agent.ready()
    limits = proc(agent, "limits")
    [core] = [line for line in limits.splitlines() if line.startswith("Max core file size")]
    assert core.split()[4:6] == ["0", "0"]


def test_the_agent_loads_nothing_it_does_not_need() -> None:
    """It idles on every server for months; web frameworks and pretty printers stay out."""
    code = (
        "import sys; sys.argv = ['byok-vps', 'nonsense'];"
        "from vps_runtime.cli import main\n"
        "try: main()\n"
        "except SystemExit: pass\n"
        f"print([m for m in {_HEAVY!r} if sys.modules.get(m)])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


async def test_an_idle_agent_is_small(fleet: Fleet) -> None:
    """Resident memory stays under 80 MiB; about 60 when this was written."""
    agent = await fleet.start(await fleet.enrol("acme-1"))
    await agent.ready()
    status = proc(agent, "statm")
    assert int(status.split()[1]) * 4096 < 80 * _MEBIBYTE, status
