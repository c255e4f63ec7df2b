"""Asking the person at the keyboard for secrets and fingerprints, or reading a pipe.

Secrets come from a hidden prompt or from standard input: never from an argument or the environment,
which other processes can read.
"""

import sys

import click

from bus_schemas.errors import ContractError, Refused
from bus_schemas.keys import fingerprint_typed
from platform_handlers.owner.hidden import read_hidden
from platform_handlers.owner.pasted import complaint, sign_in_complaint

_MAX_INPUT = 64 * 1024


def read_api_key(provider_name: str) -> str:
    """Return the key as it was pasted. Raises ContractError(`pasted_key`) with what is wrong."""
    if sys.stdin.isatty():
        pasted = _typed_line(f"{provider_name} key (hidden)")
    else:
        pasted = _line(_read_all())
    sentence = complaint(pasted)
    if sentence is not None:
        raise ContractError("pasted_key", sentence)
    return pasted


def read_sign_in(provider_name: str) -> str:
    """Return the JSON document of an OAuth sign-in. Raises ContractError(`pasted_sign_in`)."""
    if sys.stdin.isatty():
        prompt = f"Paste the JSON of your {provider_name} sign-in (hidden), then Ctrl-D:\n"
        pasted = _text(read_hidden(prompt, _MAX_INPUT, whole_document=True))
    else:
        pasted = _read_all()
    sentence = sign_in_complaint(pasted)
    if sentence is not None:
        raise ContractError("pasted_sign_in", sentence)
    return pasted


def read_token() -> str:
    """Return the API token the platform gave the owner."""
    at_hand = sys.stdin.isatty()
    token = (_typed_line("API token (hidden)") if at_hand else _read_all()).strip()
    if not token:
        raise ContractError("no_input", "Nothing was entered.")
    return token


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


def _typed_line(prompt: str) -> str:
    return _line(_text(read_hidden(f"{prompt}: ", _MAX_INPUT)))


def _line(pasted: str) -> str:
    return pasted.removesuffix("\n").removesuffix("\r")  # the end of the line, no more


def _read_all() -> str:
    """Return standard input, bounded. Raises ContractError(`no_text`, `too_much`)."""
    try:
        text = sys.stdin.read(_MAX_INPUT + 1)
    except UnicodeDecodeError:
        text = None
    return _bounded(text)


def _text(raw: bytes) -> str:
    """Return *raw* as text. Raises as `_read_all`."""
    try:
        text = raw.decode()
    except UnicodeDecodeError:
        text = None
    return _bounded(text)


def _bounded(text: str | None) -> str:
    # Raised here and not above: the decoder's error carries what it could not read.
    if text is None:
        raise ContractError("no_text", "That is no text. Copy the key alone, not a file.")
    if len(text) > _MAX_INPUT:
        raise ContractError("too_much", "That is far too much. Copy the key alone, not a file.")
    return text
