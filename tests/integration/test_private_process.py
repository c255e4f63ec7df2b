"""The process flags that keep keys where they are."""

import subprocess
import sys


def test_the_kernel_is_told_not_to_dump() -> None:
    """A core that is piped to a program knows no limit; the flag also keeps debuggers out."""
    code = (
        "import ctypes; from bus_schemas.transport.private_process import forbid_dumps;"
        "forbid_dumps(); print(ctypes.CDLL(None).prctl(3, 0, 0, 0, 0))"  # PR_GET_DUMPABLE
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "0"
