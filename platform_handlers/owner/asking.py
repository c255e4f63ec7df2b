"""Asking the person at the keyboard for secrets and fingerprints, or reading a pipe.

Secrets come from a hidden prompt or from standard input: never from an argument or the environment,
which other processes can read.
"""

import contextlib
import sys
import termios
from collections.abc import Iterator

import click

from bus_schemas.errors import ContractError, Refused
from bus_schemas.keys import fingerprint_typed
from platform_handlers.owner.pasted import complaint

_MAX_INPUT = 64 * 1024


def read_api_key(provider_name: str) -> str:
    """Return the key as it was pasted. Raises ContractError(`pasted_key`) with what is wrong."""
    if sys.stdin.isatty():
        pasted = str(click.prompt(f"{provider_name} key (hidden)", hide_input=True, err=True))
    else:
        pasted = _read_all().removesuffix("\n").removesuffix("\r")  # the end of the line, no more
    sentence = complaint(pasted)
    if sentence is not None:
        raise ContractError("pasted_key", sentence)
    return pasted


def read_sign_in(provider_name: str) -> str:
    """Return the JSON document of an OAuth sign-in, unread."""
    if not sys.stdin.isatty():
        return _read_all()
    click.echo(f"Paste the JSON of your {provider_name} sign-in (hidden), then Ctrl-D:", err=True)
    with _without_echo():
        return _read_all()


def read_token() -> str:
    """Return the API token the platform gave the owner."""
    if sys.stdin.isatty():
        return str(click.prompt("API token (hidden)", hide_input=True, err=True)).strip()
    return _read_all().strip()


def read_fingerprint(server_id: str) -> str:
    """Return what the person read on *server_id*'s console.

    It is typed, not confirmed: nobody compares twenty characters that a screen already shows.
    Raises Refused(`not_pinned`) when nobody is there to ask.
    """
    if not sys.stdin.isatty():
        detail = f"{server_id} is new here; give --server-fingerprint from its own console"
        raise Refused("not_pinned", detail)
    click.echo(f"{server_id} is new here. On its own console run: byok-vps fingerprint", err=True)
    return fingerprint_typed(click.prompt("Type the 20 characters it prints", err=True))


def _read_all() -> str:
    try:
        text = sys.stdin.read(_MAX_INPUT + 1)
    except UnicodeDecodeError:
        text = ""
    if not 0 < len(text) <= _MAX_INPUT:
        raise ContractError("no_input", "standard input held nothing, or far too much")
    return text


@contextlib.contextmanager
def _without_echo() -> Iterator[None]:
    handle = sys.stdin.fileno()
    before = termios.tcgetattr(handle)
    silent = [*before[:3], before[3] & ~termios.ECHO, *before[4:]]
    termios.tcsetattr(handle, termios.TCSAFLUSH, silent)
    try:
        yield
    finally:
        termios.tcsetattr(handle, termios.TCSAFLUSH, before)
