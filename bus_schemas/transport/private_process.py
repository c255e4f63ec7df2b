"""What keeps keys out of core dumps and other processes. Linux only, as all that holds keys is."""

import ctypes
import resource

_PR_SET_DUMPABLE = 4  # prctl(2)


def forbid_dumps() -> None:
    """Make this process undumpable: no core file, no ptrace or /proc/PID/mem by its own uid.

    The limit alone does not do it: a core that is piped to a program knows none (core(5)). Raises
    OSError if the kernel refuses: better not to start than to leave keys in a core file.
    """
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.prctl(_PR_SET_DUMPABLE, 0, 0, 0, 0) != 0:
        raise OSError(ctypes.get_errno(), "prctl(PR_SET_DUMPABLE) was refused")
