"""Where the runtime's memory may go: pages that are seen, swap, core files. For `byok-vps doctor`.

Everything is read from the kernel's own words about the running process. Anybody may read them,
but where an undumpable process has its pages only root.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from bus_schemas.finding import Finding, Grade
from vps_runtime.vault.root_key import Protection, SecretKey

_UNIT = "the unit in deploy/systemd does that"


@dataclass(frozen=True)
class ProcessMemory:
    """A running process of ours, as proc(5) has it."""

    pid: int
    hidden: bool | None
    """Whether it has pages that the kernel itself does not map; None: we may not see that."""
    locked_kb: int
    """Memory that is never swapped: the root key's page, once there is one."""
    swapped_kb: int
    may_dump: bool | None
    """Whether a core file could be written; None: of a process of root that cannot be seen."""
    may_swap: bool
    """Whether its control group lets it be swapped."""


@dataclass(frozen=True)
class HostMemory:
    """One machine, and the runtime on it."""

    offers: Protection
    """The best memory for a key that the kernel grants here and now."""
    has_swap: bool
    runtime: ProcessMemory | None = None
    """None: nothing runs on this state folder."""


def memory_findings(host: HostMemory, *, locked: bool = False) -> Sequence[Finding]:
    """Judge how well the keys in memory are kept; one that is *locked* has none. Pure."""
    return [_page(host, locked=locked), *_swap(host), *_dumps(host)]


def _page(host: HostMemory, *, locked: bool) -> Finding:
    runtime = host.runtime
    if runtime is None:
        detail = f"no runtime is up; started, it keeps the root key in {host.offers}"
        if host.offers is not Protection.PLAIN:
            return Finding(Grade.OK, "memory", detail)
        remedy = f"allow it to lock memory (LimitMEMLOCK=1M; {_UNIT})"
        return Finding(Grade.WARN, "memory", f"{detail}; {remedy}")
    if runtime.hidden:
        return Finding(Grade.OK, "memory", f"the root key is kept in {Protection.HIDDEN}")
    if runtime.locked_kb == 0:
        return _no_page(runtime, locked=locked)
    if runtime.hidden is None:
        detail = "the root key is never swapped; run this as root to see whether it is hidden, too"
        return Finding(Grade.OK, "memory", detail)
    return Finding(Grade.OK, "memory", f"the root key is kept in {Protection.LOCKED}")


def _no_page(runtime: ProcessMemory, *, locked: bool) -> Finding:
    if locked:
        detail = f"the runtime (pid {runtime.pid}) is locked by a signed order and keeps no key"
        return Finding(Grade.OK, "memory", detail)
    detail = f"the runtime (pid {runtime.pid}) has no key in protected memory"
    remedy = f"if it is unlocked, allow it to lock memory (LimitMEMLOCK=1M; {_UNIT})"
    return Finding(Grade.WARN, "memory", f"{detail}; {remedy}")


def _swap(host: HostMemory) -> Sequence[Finding]:
    runtime = host.runtime
    if runtime and runtime.swapped_kb:
        detail = f"{runtime.swapped_kb} kB of the runtime are on the swap device and may hold keys"
        remedy = f"keep it out of swap (MemorySwapMax=0; {_UNIT}) and restart it"
        return [Finding(Grade.WARN, "swap", f"{detail}; {remedy}")]
    if not host.has_swap:
        return [Finding(Grade.OK, "swap", "this machine has none")]
    if runtime is None:
        return []
    if runtime.may_swap:
        remedy = f"keep it out of swap (MemorySwapMax=0; {_UNIT})"
        return [Finding(Grade.WARN, "swap", f"the runtime may be swapped to disk; {remedy}")]
    return [Finding(Grade.OK, "swap", "the runtime is kept out of it")]


def _dumps(host: HostMemory) -> Sequence[Finding]:
    if host.runtime is None:
        return []
    if host.runtime.may_dump is None:
        detail = f"pid {host.runtime.pid} runs as root, of which nobody can see whether it may dump"
        remedy = f"give the runtime a user of its own ({_UNIT})"
        return [Finding(Grade.WARN, "dumps", f"{detail}; {remedy}")]
    if host.runtime.may_dump:
        detail = f"a crash of pid {host.runtime.pid} would write its keys to a core file"
        remedy = "restart it with `byok-vps run`, which forbids that, under no debugger"
        return [Finding(Grade.BAD, "dumps", f"{detail}; {remedy}")]
    return [Finding(Grade.OK, "dumps", "a crash of the runtime leaves no core file")]


def read_host(lock: Path, proc: Path = Path("/proc")) -> HostMemory:
    """Look at this machine and at the runtime that holds the *lock* file."""
    with SecretKey() as tried:
        offers = tried.protection
    swaps = _text(proc / "swaps").splitlines()[1:]
    pid = _holder(lock, proc)
    return HostMemory(offers, bool(swaps), None if pid is None else _runtime(pid, proc))


def _holder(lock: Path, proc: Path) -> int | None:
    """Return the process that wrote itself into *lock*, if it still holds a lock (proc(5)).

    To try the lock would be surer, and might turn away a runtime that starts in that moment.
    """
    pid = _text(lock).strip()
    locks = [line.split() for line in _text(proc / "locks").splitlines()]
    holds = any("->" not in words and words[1] == "FLOCK" and words[4] == pid for words in locks)
    return int(pid) if holds else None


def _runtime(pid: int, proc: Path) -> ProcessMemory:
    folder = proc / str(pid)
    status = dict(line.partition(":")[::2] for line in _text(folder / "status").splitlines())
    return ProcessMemory(
        pid,
        hidden=_hidden(folder),
        locked_kb=_kilobytes(status.get("VmLck", "")),
        swapped_kb=_kilobytes(status.get("VmSwap", "")),
        may_dump=_may_dump(folder, status.get("Uid", "").split()),
        may_swap=_text(_group(folder) / "memory.swap.max").strip() != "0",
    )


def _hidden(process: Path) -> bool | None:
    try:
        return "secretmem" in (process / "maps").read_text()
    except OSError:
        return None


def _may_dump(process: Path, uids: Sequence[str]) -> bool | None:
    """Go by the owner: the files of an undumpable process belong to root (proc(5)).

    The limit alone does not do it: a core that is piped to a program knows none (core(5)).
    """
    limits = _text(process / "limits").splitlines()
    core = [line.split() for line in limits if "core file size" in line]
    if not uids or not core:
        return True
    effective = int(uids[1])
    if effective == 0:
        return True if core[0][4] != "0" else None
    try:
        return (process / "status").stat().st_uid == effective
    except FileNotFoundError:  # it has just ended
        return False


def _group(process: Path) -> Path:
    """Return the folder of the unified control group *process* is in."""
    lines = _text(process / "cgroup").splitlines()
    own = [line[3:].lstrip("/") for line in lines if line.startswith("0::")]
    return Path("/sys/fs/cgroup") / (own[0] if own else "")


def _kilobytes(value: str) -> int:
    words = value.split()
    return int(words[0]) if words else 0


def _text(path: Path) -> str:
    try:
        return path.read_text()
    except OSError:
        return ""
