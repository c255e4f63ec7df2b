"""What systemd hears, on a real socket and from real processes."""

import subprocess
import sys
from pathlib import Path

import pytest

from bus_schemas.transport.service_manager import ServiceManager
from tests.listening import listening

ROOT = Path(__file__).parents[2]

WORKER = """
import asyncio, sys, time
from bus_schemas.transport.pulse import Pulse, tell_ready, watched
from bus_schemas.transport.service_manager import from_environment

async def beat():
    while True:
        await asyncio.sleep(0.02)

async def work():
    loop = asyncio.get_running_loop()
    asked = asyncio.Event()
    loop.add_reader(sys.stdin, asked.set)
    while not asked.is_set():
        await asyncio.sleep(0.02)
    loop.remove_reader(sys.stdin)
    if sys.argv[1] == "blocks the loop":
        time.sleep(60)
    await asyncio.Event().wait()

async def main():
    with Pulse(from_environment()).watching():
        tell_ready("two\\nlines")
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(watched("beat", beat(), within=0.3))
            tasks.create_task(watched("work", work(), within=0.3))

asyncio.run(main())
"""


@pytest.mark.parametrize("how", ["waits for ever", "blocks the loop"])
def test_the_ping_stops_when_the_work_stops(how: str, tmp_path: Path) -> None:
    """A process that is alive, but whose work stands still, is silent: systemd restarts it."""
    with (
        listening(str(tmp_path / "notify")) as systemd,
        subprocess.Popen(
            [sys.executable, "-c", WORKER, how],
            stdin=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            env={**systemd.environment(0.4), "PYTHONPATH": str(ROOT)},
        ) as process,
    ):
        assert systemd.until("READY=1") == "READY=1\nSTATUS=two lines"
        for _ in range(3):
            assert systemd.next() == "WATCHDOG=1"
        assert process.stdin
        process.stdin.write(b"\n")
        process.stdin.flush()
        while not systemd.silent_for(0.8):  # two periods
            assert len(systemd.heard) < 100
        assert process.poll() is None
        process.kill()


@pytest.mark.parametrize("address", ["path", "@byok-test-notify"])
def test_each_word_is_one_datagram(address: str, tmp_path: Path) -> None:
    """sd_notify(3): lines of NAME=value, to a path or to an abstract name."""
    address = address if address.startswith("@") else str(tmp_path / address)
    with listening(address) as systemd:
        manager = ServiceManager(address, 60)
        manager.status("waiting")
        manager.ping()
        manager.ready("serving")
        manager.ping()
        manager.stopping()
        assert [systemd.next() for _ in range(5)] == [
            "STATUS=waiting",
            "WATCHDOG=1\nEXTEND_TIMEOUT_USEC=60000000",  # still starting
            "READY=1\nSTATUS=serving",
            "WATCHDOG=1",
            "STOPPING=1",
        ]


def test_nobody_listening_hurts_nobody(tmp_path: Path) -> None:
    """A socket that is gone or full must not stop a key from being served."""
    ServiceManager(str(tmp_path / "gone"), 60).ping()
    ServiceManager().ready("serving")
    with listening(str(tmp_path / "notify")):
        for _ in range(5000):  # far more than its queue takes
            ServiceManager(str(tmp_path / "notify")).ping()


@pytest.mark.parametrize(
    ("environment", "address", "seconds"),
    [
        ({}, "", None),
        ({"NOTIFY_SOCKET": "/run/notify"}, "/run/notify", None),
        ({"NOTIFY_SOCKET": "@n", "WATCHDOG_USEC": "30000000"}, "@n", 30.0),
        ({"NOTIFY_SOCKET": "@n", "WATCHDOG_USEC": "30000000", "WATCHDOG_PID": "7"}, "@n", 30.0),
        ({"NOTIFY_SOCKET": "@n", "WATCHDOG_USEC": "30000000", "WATCHDOG_PID": "8"}, "@n", None),
        ({"NOTIFY_SOCKET": "@n", "WATCHDOG_USEC": "0"}, "@n", None),
        ({"NOTIFY_SOCKET": "vsock:2:1", "WATCHDOG_USEC": "30000000"}, "", None),
    ],
)
def test_the_environment_says_who_listens(
    environment: dict[str, str], address: str, seconds: float | None
) -> None:
    """Only what systemd said to this very process counts."""
    manager = ServiceManager.of(environment, 7)
    assert (manager.address, manager.watchdog_seconds) == (address, seconds)
