"""What `byok-vps doctor` says of memory, swap and core files."""

import os
from dataclasses import replace
from pathlib import Path

import pytest

from bus_schemas.finding import Grade
from vps_runtime.memory import AgentMemory, HostMemory, memory_findings, read_host
from vps_runtime.state import StateFolder
from vps_runtime.vault.root_key import Protection

HIDDEN = Protection.HIDDEN
WELL = AgentMemory(7, locked_kb=4, swapped_kb=0, may_dump=False, may_swap=False)


@pytest.mark.parametrize(
    ("host", "check", "grade", "words"),
    [
        (HostMemory(HIDDEN, has_swap=True, agent=WELL), "memory", Grade.OK, "memfd_secret"),
        (HostMemory(HIDDEN, has_swap=False), "memory", Grade.OK, "no agent runs; started, it"),
        (HostMemory(Protection.LOCKED, has_swap=False, agent=WELL), "memory", Grade.OK, "locked"),
        (HostMemory(Protection.PLAIN, has_swap=False), "memory", Grade.WARN, "LimitMEMLOCK=1M"),
        (
            HostMemory(HIDDEN, has_swap=False, agent=replace(WELL, locked_kb=0)),
            "memory",
            Grade.WARN,
            "pid 7",
        ),
        (HostMemory(HIDDEN, has_swap=False, agent=WELL), "swap", Grade.OK, "has none"),
        (HostMemory(HIDDEN, has_swap=True, agent=WELL), "swap", Grade.OK, "kept out of it"),
        (
            HostMemory(HIDDEN, has_swap=True, agent=replace(WELL, may_swap=True)),
            "swap",
            Grade.WARN,
            "MemorySwapMax=0",
        ),
        (
            HostMemory(HIDDEN, has_swap=True, agent=replace(WELL, swapped_kb=12)),
            "swap",
            Grade.WARN,
            "12 kB",
        ),
        (HostMemory(HIDDEN, has_swap=True, agent=WELL), "dumps", Grade.OK, "no core file"),
        (
            HostMemory(HIDDEN, has_swap=True, agent=replace(WELL, may_dump=True)),
            "dumps",
            Grade.BAD,
            "pid 7",
        ),
    ],
)
def test_each_case_has_its_line(host: HostMemory, check: str, grade: Grade, words: str) -> None:
    """One line says how it is and, where it is not well, what to do."""
    [found] = [finding for finding in memory_findings(host) if finding.check == check]
    assert found.grade is grade
    assert words in found.detail


def test_without_an_agent_nothing_is_said_of_it() -> None:
    """Swap and core files are the running agent's affair."""
    findings = memory_findings(HostMemory(HIDDEN, has_swap=True))
    assert [finding.check for finding in findings] == ["memory"]


def test_the_agent_is_who_holds_the_lock(tmp_path: Path) -> None:
    """The kernel tells which process it is, and the rest follows from that."""
    state = StateFolder(tmp_path)
    assert read_host(state.lock_file).agent is None
    with state.lock():
        agent = read_host(state.lock_file).agent
    assert agent
    assert agent.pid == os.getpid()
    assert read_host(state.lock_file).agent is None


def test_a_strange_proc_is_no_crash(tmp_path: Path) -> None:
    """A container may hide what is read; the doctor then says what it can."""
    lock = tmp_path / "lock"
    lock.write_text("7\n")
    line = "1: FLOCK  ADVISORY  WRITE 7 08:01:12 0 EOF"
    (tmp_path / "locks").write_text("1: -> FLOCK  ADVISORY  WRITE 7 08:01:12 0 EOF\n")
    assert read_host(lock, proc=tmp_path).agent is None  # it waits for somebody else
    (tmp_path / "locks").write_text(f"{line}\n")
    agent = read_host(lock, proc=tmp_path).agent
    assert agent == AgentMemory(7, 0, 0, may_dump=True, may_swap=True)
