"""Where the agent's memory may go: pages that are seen, swap, core files. For `byok-vps doctor`.

Everything is read from the kernel's own words about the running process, which anybody may read.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from bus_schemas.finding import Finding, Grade
from vps_runtime.vault.root_key import Protection, SecretKey

_UNIT = "the unit in deploy/systemd does that"


@dataclass(frozen=True)
class AgentMemory:
    """A running agent, as proc(5) has it."""

    pid: int
    locked_kb: int
    """Memory that is never swapped: the root key's page, once there is one."""
    swapped_kb: int
    may_dump: bool
    """Whether a core file could be written."""
    may_swap: bool
    """Whether its control group lets it be swapped."""


@dataclass(frozen=True)
class HostMemory:
    """One machine, and the agent on it."""

    offers: Protection
    """The best memory for a key that the kernel grants here and now."""
    has_swap: bool
    agent: AgentMemory | None = None
    """None: no agent runs on this state folder."""


def memory_findings(host: HostMemory) -> Sequence[Finding]:
    """Judge how well the keys in memory are kept. Pure."""
    return [_page(host), *_swap(host), *_dumps(host)]


def _page(host: HostMemory) -> Finding:
    if host.offers is Protection.PLAIN:
        remedy = f"allow the agent to lock memory (LimitMEMLOCK=1M; {_UNIT})"
        return Finding(Grade.WARN, "memory", f"the root key is kept in {host.offers}; {remedy}")
    if host.agent is None:
        detail = f"no agent runs; started, it keeps the root key in {host.offers}"
        return Finding(Grade.OK, "memory", detail)
    if host.agent.locked_kb == 0:
        detail = f"the agent (pid {host.agent.pid}) has no key in protected memory"
        remedy = f"if it is unlocked, allow it to lock memory (LimitMEMLOCK=1M; {_UNIT})"
        return Finding(Grade.WARN, "memory", f"{detail}; {remedy}")
    return Finding(Grade.OK, "memory", f"the root key is kept in {host.offers}")


def _swap(host: HostMemory) -> Sequence[Finding]:
    agent = host.agent
    if agent and agent.swapped_kb:
        detail = f"{agent.swapped_kb} kB of the agent are on the swap device, which may hold keys"
        remedy = f"keep it out of swap (MemorySwapMax=0; {_UNIT}) and restart it"
        return [Finding(Grade.WARN, "swap", f"{detail}; {remedy}")]
    if not host.has_swap:
        return [Finding(Grade.OK, "swap", "this machine has none")]
    if agent is None:
        return []
    if agent.may_swap:
        remedy = f"keep it out of swap (MemorySwapMax=0; {_UNIT})"
        return [Finding(Grade.WARN, "swap", f"the agent may be swapped to disk; {remedy}")]
    return [Finding(Grade.OK, "swap", "the agent is kept out of it")]


def _dumps(host: HostMemory) -> Sequence[Finding]:
    if host.agent is None:
        return []
    if host.agent.may_dump:
        detail = f"a crash of pid {host.agent.pid} would write its keys to a core file"
        remedy = "restart it with `byok-vps run`, which forbids that, under no debugger"
        return [Finding(Grade.BAD, "dumps", f"{detail}; {remedy}")]
    return [Finding(Grade.OK, "dumps", "a crash of the agent leaves no core file")]


def read_host(lock: Path, proc: Path = Path("/proc")) -> HostMemory:
    """Look at this machine and at the agent that holds the *lock* file."""
    with SecretKey() as tried:
        offers = tried.protection
    swaps = _text(proc / "swaps").splitlines()[1:]
    pid = _holder(lock, proc)
    return HostMemory(offers, bool(swaps), None if pid is None else _agent(pid, proc))


def _holder(lock: Path, proc: Path) -> int | None:
    """Return the process that wrote itself into *lock*, if it still holds a lock (proc(5)).

    To try the lock would be surer, and might turn away an agent that starts in that moment.
    """
    pid = _text(lock).strip()
    locks = [line.split() for line in _text(proc / "locks").splitlines()]
    holds = any("->" not in words and words[1] == "FLOCK" and words[4] == pid for words in locks)
    return int(pid) if holds else None


def _agent(pid: int, proc: Path) -> AgentMemory:
    folder = proc / str(pid)
    status = dict(line.partition(":")[::2] for line in _text(folder / "status").splitlines())
    core = [line for line in _text(folder / "limits").splitlines() if "core file size" in line]
    return AgentMemory(
        pid,
        locked_kb=_kilobytes(status.get("VmLck", "")),
        swapped_kb=_kilobytes(status.get("VmSwap", "")),
        may_dump=not core or core[0].split()[4] != "0",
        may_swap=_text(_group(folder) / "memory.swap.max").strip() != "0",
    )


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
