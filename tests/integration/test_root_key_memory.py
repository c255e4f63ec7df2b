"""The pages of the root key, looked at from outside the process that holds it."""

import hashlib
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest

from bus_schemas.errors import Refused
from tests.memory import count
from vps_runtime.vault.root_key import Protection, SecretKey

ROOT = Path(__file__).parents[2]

HOLDER = """
import sys
from vps_runtime.vault import record
from vps_runtime.vault.root_key import Protection, SecretKey
from vps_runtime.unlock.rules import begin, finish

sys.stdin.readline()
key = SecretKey((Protection[sys.argv[1]],))
for place in range(32):  # never as bytes: that would be a copy to be found
    key.view()[place] = (place * 37 + 11) % 256
first = begin(None, server_id="acme-1", first_share=bytes(32), next_share=bytes(32))
opened = finish(first, (bytes(64), bytes(64)), root_key=key)
again = begin(opened.file, server_id="acme-1", first_share=bytes(32), next_share=bytes(32))
finish(again, (bytes(64), bytes(64)), root_key=key)  # this time it is unwrapped into its place
name = record.RecordName("acme-1", "slot", 1)
for _ in range(50):
    raw = record.seal_record(key.view(), name, b"text")
    assert record.open_record(key.view(), raw, name)[1] == b"text"
print(key.protection.name, flush=True)
sys.stdin.readline()
key.close()
print("closed", flush=True)
sys.stdin.readline()
"""

KEY = bytes((place * 37 + 11) % 256 for place in range(32))


def granted() -> Iterator[Protection]:
    """Yield the kinds of memory that this machine grants; plain memory is always among them."""
    for kind in Protection:
        with suppress(OSError):
            SecretKey((kind,)).close()
            yield kind


GRANTED = tuple(granted())


@contextmanager
def holder(kind: Protection) -> Iterator["subprocess.Popen[str]"]:
    """Run a process that unlocks, seals and opens with `KEY` in memory of *kind*."""
    process = subprocess.Popen(
        [sys.executable, "-c", HOLDER, kind.name],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env={"PYTHONPATH": str(ROOT)},
    )
    with process:
        yield process
        process.kill()


def step(process: "subprocess.Popen[str]") -> str:
    """Let it take its next step; return what it says then."""
    assert process.stdin
    assert process.stdout
    process.stdin.write("\n")
    process.stdin.flush()
    return process.stdout.readline().strip()


@pytest.mark.parametrize("kind", GRANTED)
def test_the_key_lies_in_its_own_place_and_nowhere_else(kind: Protection) -> None:
    """After two unlocks and a hundred records there is no copy; after `close` nothing at all.

    Hidden pages are not even given to a debugger; in the others the one place is found.
    """
    with holder(kind) as process:
        assert step(process) == kind.name
        own_place = 0 if kind is Protection.HIDDEN else 1
        assert count(process.pid, {"key": KEY}) == {"key": own_place}
        assert step(process) == "closed"
        assert count(process.pid, {"key": KEY}) == {"key": 0}


@pytest.mark.parametrize("kind", GRANTED)
def test_pages_are_in_no_core_file_and_no_child(kind: Protection) -> None:
    """The kernel's own words: left out of dumps, not copied at a fork, locked (proc(5), smaps)."""
    code = (
        "import ctypes, sys\n"
        "from pathlib import Path\n"
        "from vps_runtime.vault.root_key import Protection, SecretKey\n"
        "key = SecretKey((Protection[sys.argv[1]],))\n"
        "address = ctypes.addressof((ctypes.c_ubyte * 32).from_buffer(key.view()))\n"
        "smaps = Path('/proc/self/smaps').read_text()\n"
        "print(smaps.partition(f'{address:x}-')[2].partition('VmFlags:')[2].splitlines()[0])\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, kind.name],
        capture_output=True,
        text=True,
        check=True,
        env={"PYTHONPATH": str(ROOT)},
    )
    flags = {"dd", "dc"} if kind is Protection.PLAIN else {"dd", "dc", "lo"}
    assert flags <= set(done.stdout.split())


def test_without_a_right_to_lock_memory_it_says_so() -> None:
    """A limit of zero and no privilege leave plain memory, and the word for it is honest."""
    code = (
        "import os, resource\n"
        "from vps_runtime.vault.root_key import SecretKey\n"
        "resource.setrlimit(resource.RLIMIT_MEMLOCK, (0, 0))\n"
        "uid = os.getuid() or 65534\n"
        "os.setresuid(uid, uid, uid)\n"
        "print(SecretKey.random().protection.name)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        check=True,
        env={"PYTHONPATH": str(ROOT)},
    )
    assert done.stdout.splitlines()[-1] == "PLAIN"


def test_a_wiped_key_is_refused_and_old_views_show_zeros() -> None:
    """Whoever still holds a view reads zeros; whoever asks anew is told why."""
    with SecretKey.of(KEY) as key:
        view = key.view()
        assert view == KEY
        assert KEY.hex() not in repr(key)
    assert view == bytes(32)
    assert key.closed
    with pytest.raises(Refused, match="vault_locked"):
        key.view()


def test_fresh_keys_differ() -> None:
    """Randomness comes from the kernel, 32 bytes each time."""
    with SecretKey.random() as one, SecretKey.random() as two:
        digests = {hashlib.sha256(key.view()).digest() for key in (one, two)}
        assert len(digests) == 2


def test_a_short_key_is_refused() -> None:
    """A key of another length is a mistake of ours."""
    with pytest.raises(ValueError, match="32 bytes, got 31"):
        SecretKey.of(KEY[1:])
