"""What `byok-vps doctor` says of memory, swap and core files."""

import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from bus_schemas.finding import Grade
from vps_runtime.process_memory import HostMemory, ProcessMemory, memory_findings, read_host
from vps_runtime.state import StateFolder
from vps_runtime.vault.root_key import Protection

HIDDEN = Protection.HIDDEN
WELL = ProcessMemory(7, hidden=True, locked_kb=4, swapped_kb=0, may_dump=False, may_swap=False)


@pytest.mark.parametrize(
    ("host", "check", "grade", "words"),
    [
        (HostMemory(HIDDEN, has_swap=True, runtime=WELL), "memory", Grade.OK, "memfd_secret"),
        (HostMemory(HIDDEN, has_swap=False), "memory", Grade.OK, "no runtime is up; started, it"),
        (
            HostMemory(HIDDEN, has_swap=False, runtime=replace(WELL, hidden=False)),
            "memory",
            Grade.OK,
            "kept in locked memory",
        ),
        (
            HostMemory(HIDDEN, has_swap=False, runtime=replace(WELL, hidden=None)),
            "memory",
            Grade.OK,
            "never swapped; run this as root",
        ),
        (HostMemory(Protection.PLAIN, has_swap=False, runtime=WELL), "memory", Grade.OK, "secret"),
        (HostMemory(Protection.PLAIN, has_swap=False), "memory", Grade.WARN, "LimitMEMLOCK=1M"),
        (
            HostMemory(HIDDEN, has_swap=False, runtime=replace(WELL, hidden=False, locked_kb=0)),
            "memory",
            Grade.WARN,
            "pid 7",
        ),
        (HostMemory(HIDDEN, has_swap=False, runtime=WELL), "swap", Grade.OK, "has none"),
        (HostMemory(HIDDEN, has_swap=True, runtime=WELL), "swap", Grade.OK, "kept out of it"),
        (
            HostMemory(HIDDEN, has_swap=True, runtime=replace(WELL, may_swap=True)),
            "swap",
            Grade.WARN,
            "MemorySwapMax=0",
        ),
        (
            HostMemory(HIDDEN, has_swap=True, runtime=replace(WELL, swapped_kb=12)),
            "swap",
            Grade.WARN,
            "12 kB",
        ),
        (HostMemory(HIDDEN, has_swap=True, runtime=WELL), "dumps", Grade.OK, "no core file"),
        (
            HostMemory(HIDDEN, has_swap=True, runtime=replace(WELL, may_dump=True)),
            "dumps",
            Grade.BAD,
            "pid 7",
        ),
        (
            HostMemory(HIDDEN, has_swap=True, runtime=replace(WELL, may_dump=None)),
            "dumps",
            Grade.WARN,
            "runs as root",
        ),
    ],
)
def test_each_case_has_its_line(host: HostMemory, check: str, grade: Grade, words: str) -> None:
    """One line says how it is and, where it is not well, what to do."""
    [found] = [finding for finding in memory_findings(host) if finding.check == check]
    assert found.grade is grade
    assert words in found.detail


def test_a_locked_runtime_has_no_key_to_keep() -> None:
    """That is what it was locked for."""
    host = HostMemory(HIDDEN, has_swap=False, runtime=replace(WELL, hidden=False, locked_kb=0))
    [found] = [f for f in memory_findings(host, locked=True) if f.check == "memory"]
    assert (found.grade, "locked by a signed order" in found.detail) == (Grade.OK, True)


def test_without_a_runtime_nothing_is_said_of_it() -> None:
    """Swap and core files are the running runtime's affair."""
    findings = memory_findings(HostMemory(HIDDEN, has_swap=True))
    assert [finding.check for finding in findings] == ["memory"]


def test_the_runtime_is_who_holds_the_lock(tmp_path: Path) -> None:
    """The kernel tells which process it is, and the rest follows from that."""
    state = StateFolder(tmp_path)
    assert read_host(state.lock_file).runtime is None
    with state.lock():
        runtime = read_host(state.lock_file).runtime
    assert runtime
    assert runtime.pid == os.getpid()
    assert read_host(state.lock_file).runtime is None


def test_a_strange_proc_is_no_crash(tmp_path: Path) -> None:
    """A container may hide what is read; the doctor then says what it can."""
    lock = tmp_path / "lock"
    lock.write_text("7\n")
    line = "1: FLOCK  ADVISORY  WRITE 7 08:01:12 0 EOF"
    (tmp_path / "locks").write_text("1: -> FLOCK  ADVISORY  WRITE 7 08:01:12 0 EOF\n")
    assert read_host(lock, proc=tmp_path).runtime is None  # it waits for somebody else
    (tmp_path / "locks").write_text(f"{line}\n")
    runtime = read_host(lock, proc=tmp_path).runtime
    assert runtime == ProcessMemory(7, None, 0, 0, may_dump=True, may_swap=True)


LIKE_AN_AGENT = """
import ctypes, fcntl, os, resource, sys
from vps_runtime.vault.root_key import Protection, SecretKey
uid, best, dumpable = map(int, sys.argv[2:])
lock = os.open(sys.argv[1], os.O_RDWR | os.O_CREAT, 0o600)
fcntl.flock(lock, fcntl.LOCK_EX)
os.write(lock, f"{os.getpid()}\\n".encode())
resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
key = SecretKey(tuple(Protection)[best:])
os.setresuid(uid, uid, uid)
ctypes.CDLL(None).prctl(4, dumpable, 0, 0, 0)
print(key.protection, flush=True)
sys.stdin.read()
"""


@pytest.mark.parametrize("best", [0, 1])
@pytest.mark.parametrize("dumpable", [0, 1])
def test_what_a_runtime_really_has_is_told(tmp_path: Path, best: int, dumpable: int) -> None:
    """Not what this machine would give, and not what a limit says that piped cores ignore."""
    lock, uid = tmp_path / "lock", os.getuid() or 65534
    process = subprocess.Popen(
        [sys.executable, "-c", LIKE_AN_AGENT, str(lock), str(uid), str(best), str(dumpable)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])},
    )
    with process:
        assert process.stdout
        assert process.stdin
        got = process.stdout.readline().strip()
        runtime = read_host(lock).runtime
        process.stdin.close()
    assert runtime
    visible = os.getuid() == 0 or dumpable
    assert runtime.hidden is ((got == str(HIDDEN)) if visible else None)
    assert runtime.may_dump is bool(dumpable)


def test_of_a_runtime_of_root_nobody_can_tell(tmp_path: Path) -> None:
    """The files in its /proc belong to root in either case."""
    (tmp_path / "lock").write_text("7\n")
    (tmp_path / "locks").write_text("1: FLOCK  ADVISORY  WRITE 7 08:01:12 0 EOF\n")
    folder = tmp_path / "7"
    folder.mkdir()
    (folder / "limits").write_text("Max core file size  0  0  bytes\n")
    (folder / "status").write_text("Uid:\t0\t0\t0\t0\n")
    runtime = read_host(tmp_path / "lock", proc=tmp_path).runtime
    assert runtime
    assert runtime.may_dump is None
    (folder / "limits").write_text("Max core file size  unlimited  unlimited  bytes\n")
    runtime = read_host(tmp_path / "lock", proc=tmp_path).runtime
    assert runtime
    assert runtime.may_dump is True
