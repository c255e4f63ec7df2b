"""How the owner's commands speak, and the exit code of everything that can go wrong."""

import contextlib
import sys
from collections.abc import Iterator
from typing import Final

import click
from rich.console import Console

from bus_schemas.errors import ByokError, ContractError, Refused
from platform_handlers.owner.platform_api import PlatformRefused, PlatformUnreachable

DATA_WRONG: Final = 65
UNAVAILABLE: Final = 69
TRY_AGAIN: Final = 75
DENIED: Final = 77

_STATUS_CODES: Final = {401: DENIED, 403: DENIED, 409: TRY_AGAIN, 429: TRY_AGAIN, 503: UNAVAILABLE}


class Failed(click.ClickException):
    """A sentence for the person and an exit code for the script."""

    def __init__(self, sentence: str, exit_code: int) -> None:
        # What came over the network must not drive the terminal (ECMA-48 control sequences).
        super().__init__("".join(c if c.isprintable() else " " for c in sentence))
        self.exit_code = exit_code  # type: ignore[misc] # click's way, too (UsageError)


@contextlib.contextmanager
def failures_told() -> Iterator[None]:
    """Turn errors made on purpose into one sentence and their exit code."""
    try:
        yield
    except PlatformRefused as error:
        code = _STATUS_CODES.get(error.problem.status, DATA_WRONG)
        raise Failed(str(error), code) from None
    except PlatformUnreachable as error:
        raise Failed(str(error), UNAVAILABLE) from None
    except ContractError as error:
        raise Failed(error.detail or error.reason, DATA_WRONG) from None
    except Refused as error:
        raise Failed(error.detail or error.reason, DENIED) from None
    except ByokError as error:
        raise Failed(str(error), UNAVAILABLE) from None


def screen() -> Console:
    """Return where results go; colours only on a terminal."""
    return Console(highlight=False, soft_wrap=not sys.stdout.isatty())


def in_fours(fingerprint: str) -> str:
    """Return *fingerprint* in groups of four, as people read it to each other."""
    return " ".join(fingerprint[at : at + 4] for at in range(0, len(fingerprint), 4))
