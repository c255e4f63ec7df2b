"""What a command's end means to a script: the codes of `byok` and `byok-vps`. Pure.

The numbers are those of sysexits.h where it has one that fits; docs/commands.md says what to do.
"""

import enum


class ExitCode(enum.IntEnum):
    """Who must act after a command has ended."""

    OK = 0
    NEGATIVE = 1
    """The command worked and the answer is no."""
    USAGE = 2
    DATA = 65
    """A message or a document is not as it should be."""
    UNAVAILABLE = 69
    """Something cannot be reached now."""
    BUG = 70
    TRY_AGAIN = 75
    """A full disk, or somebody was faster."""
    DENIED = 77
    CONFIG = 78
    """A wrong or missing setting."""
    INTERRUPTED = 130
    """Ctrl-C at a prompt, as shells count signals."""


def root_cause(error: BaseException) -> BaseException:
    """Return the first error of a group: tasks that run together fail together."""
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    return error
