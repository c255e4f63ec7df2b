"""How the owner's commands speak, and the exit code of everything that can go wrong."""

import contextlib
import sys
from collections.abc import Collection, Iterator
from typing import Final

import click
from rich.console import Console
from rich.table import Table

from bus_schemas.errors import ByokError, ContractError, Refused
from bus_schemas.exit_codes import ExitCode
from platform_handlers.owner.platform_api import PlatformRefused, PlatformUnreachable

_STATUS_CODES: Final = {
    401: ExitCode.DENIED,
    403: ExitCode.DENIED,
    409: ExitCode.TRY_AGAIN,
    429: ExitCode.TRY_AGAIN,
    503: ExitCode.UNAVAILABLE,
}


def plain(text: str) -> str:
    """Return *text* without what would drive a terminal (ECMA-48): it came over the network."""
    return "".join(c if c.isprintable() else " " for c in text)


class Failed(click.ClickException):
    """A sentence for the person and an exit code for the script."""

    def __init__(self, sentence: str, exit_code: int) -> None:
        super().__init__(plain(sentence))
        self.exit_code = exit_code  # type: ignore[misc] # click's way, too (UsageError)


def told(error: ByokError) -> Failed:
    """Return one sentence and the exit code for an error made on purpose."""
    match error:
        case PlatformRefused():
            code = _STATUS_CODES.get(error.problem.status, ExitCode.DATA)
            return Failed(str(error), code)
        case PlatformUnreachable():
            return Failed(str(error), ExitCode.UNAVAILABLE)
        case ContractError():
            return Failed(error.detail or error.reason, ExitCode.DATA)
        case Refused():
            return Failed(error.detail or error.reason, ExitCode.DENIED)
    return Failed(str(error), ExitCode.UNAVAILABLE)


@contextlib.contextmanager
def failures_told() -> Iterator[None]:
    """Turn errors made on purpose into one sentence and their exit code."""
    try:
        yield
    except ByokError as error:
        raise told(error) from None


def columns(*titles: str, unbroken: Collection[str] = (), gap: int = 0) -> Table:
    """Return an empty table with these columns, and *gap* blank lines after each row."""
    table = Table(box=None, pad_edge=False, padding=(0, 2, gap, 0))
    for title in titles:
        table.add_column(title, no_wrap=title in unbroken, overflow="fold")
    return table


def screen() -> Console:
    """Return where results go; colours only on a terminal."""
    return Console(highlight=False, soft_wrap=not sys.stdout.isatty())
