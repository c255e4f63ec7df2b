"""Reading what is pasted at a hidden prompt, whole: nothing of it cut off, nothing of it shown.

A terminal that edits lines itself keeps 4,095 bytes of each and hands over the first one alone: a
long key would come in shortened, and a second line would be dropped without a word, or end up in
plain sight at the shell. So that is switched off while reading.
"""

import contextlib
import os
import select
import sys
import termios
from collections.abc import Iterator
from typing import Final

import click

_QUIET_SECONDS: Final = 0.1
"""Nobody types so fast: what comes this soon after the end of a line was pasted with it."""

_END: Final = b"\x04"  # Ctrl-D
_ERASE: Final = frozenset(b"\x7f\x08")
_KILL: Final = b"\x15"  # Ctrl-U
_CHUNK: Final = 4096


def read_hidden(prompt: str, limit: int, *, whole_document: bool = False) -> bytes:
    """Return what comes from the keyboard after *prompt*, up to one byte more than *limit*.

    It ends with a line and whatever was pasted behind that, or, if it is a *whole_document*, with
    Ctrl-D. Standard input must be a terminal.
    """
    handle, pasted, line_ended = sys.stdin.fileno(), bytearray(), False
    with _unedited(handle):
        click.echo(prompt, nl=False, err=True)  # now, for whoever sees it may paste at once
        while True:
            chunk = os.read(handle, _CHUNK)
            _take(pasted, chunk.removesuffix(_END), limit)
            line_ended |= b"\n" in chunk and not whole_document
            if not chunk or chunk.endswith(_END) or (line_ended and _is_quiet(handle)):
                return bytes(pasted)


def _take(pasted: bytearray, chunk: bytes, limit: int) -> None:
    """Add *chunk*, or do what it says: an editing key comes alone, in a paste it is a character."""
    if chunk == _KILL:
        pasted.clear()
    elif chunk and _ERASE.issuperset(chunk):
        del pasted[-len(chunk) :]
    else:
        pasted += chunk[: limit + 1 - len(pasted)]


def _is_quiet(handle: int) -> bool:
    return not select.select([handle], [], [], _QUIET_SECONDS)[0]


@contextlib.contextmanager
def _unedited(handle: int) -> Iterator[None]:
    """Let the terminal show nothing, and pass on each character as it comes, but for Ctrl-C."""
    before = termios.tcgetattr(handle)
    flags = before[3] & ~(termios.ECHO | termios.ICANON)
    control = list(before[6])
    control[termios.VMIN], control[termios.VTIME] = 1, 0
    termios.tcsetattr(handle, termios.TCSAFLUSH, [*before[:3], flags, *before[4:6], control])
    try:
        yield
    finally:
        termios.tcsetattr(handle, termios.TCSAFLUSH, before)
        click.echo(err=True)  # the end of the line was as hidden as the rest
