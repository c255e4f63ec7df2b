"""Whether the platform lets this server in: remembered on the disk, for `status` to show.

Written by the runtime alone. That it is missing means that nothing is known to be wrong.
"""

import time
from pathlib import Path
from typing import Annotated, Literal

import structlog
from pydantic import Field, ValidationError

from bus_schemas.event import Contract
from bus_schemas.fields import ShortText
from bus_schemas.transport.private_files import write_private
from bus_schemas.transport.pulse import tell_status

_log = structlog.get_logger(__name__)

_WHAT_TO_DO = (
    "nothing here brings it back; if that is a mistake, the platform's operators enrol it again "
    "(`byok server reenrol`)"
)


class TurnedAway(Contract, extra="forbid"):
    """Neither token of this server opens any more."""

    v: Literal[1] = 1
    since: Annotated[int, Field(ge=0)]
    """Unix seconds: when the runtime met it first."""
    why: ShortText


def read_turned_away(path: Path) -> TurnedAway | None:
    """Return what is known against this server, None for nothing. Raises OSError."""
    try:
        return TurnedAway.model_validate_json(path.read_bytes())
    except (FileNotFoundError, ValidationError):
        return None


class Standing:
    """How the platform and this server stand; what changes is said once."""

    def __init__(self, path: Path | None = None) -> None:
        """*path* is where it is remembered; without one it is not."""
        self._path = path
        self._said = False
        self.turned_away = read_turned_away(path) if path else None

    def fell(self, why: str) -> None:
        """Note that the server is turned away, and say so once in the life of this process.

        Raises OSError.
        """
        if not self._said:
            self._said = True
            _log.error("turned_away", why=why, what_to_do=_WHAT_TO_DO)
            tell_status(f"turned away by the platform: {why}")
        if self.turned_away is None or self.turned_away.why != why:
            since = self.turned_away.since if self.turned_away else int(time.time())
            self.turned_away = TurnedAway(since=since, why=why)
            if self._path:
                write_private(self._path, self.turned_away.model_dump_json().encode())

    def rose(self) -> None:
        """Note that the server is let in. Raises OSError."""
        if self.turned_away is not None:
            if self._path:
                self._path.unlink(missing_ok=True)
            self.turned_away, self._said = None, False
            _log.warning("let_in_again")
