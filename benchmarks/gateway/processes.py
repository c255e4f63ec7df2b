"""What a process and all its children have used, from Linux's own books (proc(5))."""

import os
import subprocess
from pathlib import Path
from typing import Final

_PROC: Final = Path("/proc")
_TICKS: Final = os.sysconf("SC_CLK_TCK")
_MB: Final = 1000.0


def cpu_seconds(pid: int) -> float:
    """Return the seconds of CPU used so far, in user code and in the kernel."""
    ticks = 0
    for one in _tree(pid):
        fields = (_PROC / str(one) / "stat").read_text().rpartition(")")[2].split()
        ticks += int(fields[11]) + int(fields[12])  # utime, stime
    return ticks / _TICKS


def resident(pid: int) -> float:
    """Return the resident memory (RSS) in MB; pages that processes share count for each."""
    return _memory(pid, "Rss:")


def proportional(pid: int) -> float:
    """Return the proportional memory (PSS) in MB: shared pages are divided by who shares them."""
    return _memory(pid, "Pss:")


def stop(process: subprocess.Popen[bytes]) -> None:
    """Ask a process to end, and see to it."""
    process.terminate()
    try:
        process.wait(10)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


def _memory(pid: int, field: str) -> float:
    kib = 0
    for one in _tree(pid):
        for line in (_PROC / str(one) / "smaps_rollup").read_text().splitlines():
            if line.startswith(field):
                kib += int(line.split()[1])
    return kib * 1.024 / _MB


def _tree(pid: int) -> list[int]:
    found = [pid]
    for task in (_PROC / str(pid) / "task").iterdir():
        for child in (task / "children").read_text().split():
            found += _tree(int(child))
    return found
