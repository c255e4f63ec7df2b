"""The process flags that keep keys where they are, looked at from outside."""

import os
import resource
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
ENVIRONMENT = {"PYTHONPATH": str(ROOT), "PATH": os.environ["PATH"]}


def test_the_kernel_is_told_not_to_dump() -> None:
    """A core that is piped to a program knows no limit; the flag also keeps debuggers out."""
    code = (
        "import ctypes; from bus_schemas.transport.private_process import forbid_dumps;"
        "forbid_dumps(); print(ctypes.CDLL(None).prctl(3, 0, 0, 0, 0))"  # PR_GET_DUMPABLE
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "0"


AT_THE_END = """
import atexit, ctypes, resource, sys
flags = lambda: (ctypes.CDLL(None).prctl(3, 0, 0, 0, 0), resource.getrlimit(resource.RLIMIT_CORE))
atexit.register(lambda: print(flags()))
from platform_handlers.cli import main as byok
from vps_runtime.cli import main as vps
"""


@pytest.mark.parametrize(
    "call",
    [
        "sys.argv[1:] = ['run', '--state', 'none']; vps()",
        "sys.argv[1:] = ['join', '--owner', 'AAAAAAAAAAAAAAAAAAAA']; vps()",
        "byok(['--state', 'none', 'platform', 'run'])",
        "byok(['--state', 'none', 'evaluator', 'run'])",
        "byok(['--state', 'none', 'nats', 'run'])",
        "byok(['key', 'set', '--home', 'none', 'acme-1', 'anthropic'])",
        "byok(['owner', 'keygen', '--home', 'none/none'])",
    ],
)
def test_whoever_holds_keys_cannot_be_dumped(call: str, tmp_path: Path) -> None:
    """The flags stand before a command reads its first file, so also when it fails at that."""
    done = subprocess.run(
        [sys.executable, "-c", f"{AT_THE_END}\n{call}"],
        capture_output=True,
        text=True,
        check=False,
        cwd=tmp_path,
        stdin=subprocess.DEVNULL,
        env=ENVIRONMENT,
    )
    assert done.stdout.splitlines()[-1] == "(0, (0, 0))", done.stderr


ATTACHED = """
import ctypes, os
from bus_schemas.transport.private_process import forbid_dumps

libc = ctypes.CDLL(None, use_errno=True)
uid = os.getuid() or 65534  # root may attach to everything: become nobody
steps, answers = os.pipe(), os.pipe()
os.setresuid(uid, uid, uid)
libc.prctl(4, 1, 0, 0, 0)  # a change of uid took the flag away already
if not (child := os.fork()):
    os.read(steps[0], 1)
    forbid_dumps()
    os.write(answers[1], b".")
    os.read(steps[0], 1)
    os._exit(0)

def attach():
    if libc.ptrace(16, child, None, None):  # PTRACE_ATTACH
        return os.strerror(ctypes.get_errno())
    os.waitpid(child, 0)
    libc.ptrace(17, child, None, None)  # PTRACE_DETACH
    return "attached"

def look():
    try:
        open(f"/proc/{child}/mem", "rb").close()
    except OSError as error:
        return error.strerror
    return "open"

print(attach(), look(), sep=", ")
os.write(steps[1], b".")
os.read(answers[0], 1)
print(attach(), look(), sep=", ")
os.write(steps[1], b".")
os.waitpid(child, 0)
"""


def test_a_process_of_the_same_uid_cannot_look_in() -> None:
    """What OpenClaw's shell runs as the agent's own uid could otherwise read its memory."""
    done = subprocess.run(
        [sys.executable, "-c", ATTACHED],
        capture_output=True,
        text=True,
        check=True,
        env=ENVIRONMENT,
    )
    assert done.stdout.splitlines() == [
        "attached, open",  # a parent may look into its child
        "Operation not permitted, Permission denied",
    ]


CRASHED = """
import os, resource, signal, sys
from bus_schemas.transport.private_process import forbid_dumps

hard = resource.getrlimit(resource.RLIMIT_CORE)[1]
resource.setrlimit(resource.RLIMIT_CORE, (hard, hard))
os.chdir(sys.argv[1])
if sys.argv[2] == "private":
    forbid_dumps()
os.kill(os.getpid(), signal.SIGSEGV)
"""


def crashed(folder: Path, how: str) -> tuple[bool, bool]:
    """Crash a process; return whether the kernel dumped it, and whether a file is left."""
    folder.mkdir()
    arguments = [sys.executable, "-c", CRASHED, str(folder), how]
    _, status = os.waitpid(os.posix_spawn(sys.executable, arguments, ENVIRONMENT), 0)
    assert os.WIFSIGNALED(status)
    return os.WCOREDUMP(status), any(folder.iterdir())


def test_a_crash_leaves_no_core_file(tmp_path: Path) -> None:
    """SIGSEGV ends the process and nothing of it stays, where another process leaves its core."""
    assert crashed(tmp_path / "private", "private") == (False, False)
    pattern = Path("/proc/sys/kernel/core_pattern").read_text().strip()
    cores_are_made = resource.getrlimit(resource.RLIMIT_CORE)[1] != 0 and bool(pattern)
    assert crashed(tmp_path / "other", "as it is")[0] == cores_are_made
