"""What a refused start leaves on the disk, so that a person at the console learns what to do.

A disk that is not the newest is refused, whether it was stolen or restored. The code names this
disk; who knows it can do nothing with it, its owner's signature over it lets it in once.
"""

from typing import Final

from pydantic import ValidationError

from bus_schemas.errors import Refused
from bus_schemas.event import Contract
from bus_schemas.fields import KeyFingerprint, Reason, ServerId
from bus_schemas.transport.private_files import write_private
from vps_runtime.state import StateFolder
from vps_runtime.unlock.rules import Start

_A_COPY: Final = frozenset({"stale_generation", "generation_ahead"})


class Refusal(Contract, extra="forbid"):
    """The last start was refused as a copy."""

    server_id: ServerId
    reason: Reason
    code: KeyFingerprint
    """Of the disk that asked."""

    @property
    def remedy(self) -> str:
        """What to do, for the console."""
        return (
            f"if you restored this machine, its owner lets it in with "
            f"`byok server approve {self.server_id} {self.code}`; else it is a copy, leave it off"
        )


def refused(state: StateFolder, start: Start, error: Refused) -> Refused:
    """Return *error* with the remedy in it, and keep that for `status` and `doctor`."""
    if error.reason not in _A_COPY:
        return error
    if start.wrapped_root is None:  # its share is as new as this start: no code would last
        detail = f"{state.root_file} is gone; have the platform enrol this machine again"
        return Refused(error.reason, detail)
    refusal = Refusal(server_id=start.server_id, reason=error.reason, code=start.code)
    write_private(state.refusal, refusal.model_dump_json().encode())
    return Refused(error.reason, f"this disk is not the newest; {refusal.remedy}")


def forget_refusal(state: StateFolder) -> None:
    """Take the note away: the server is in."""
    state.refusal.unlink(missing_ok=True)


def last_refusal(state: StateFolder) -> Refusal | None:
    """Return the note, None if the last start was not refused. Raises OSError."""
    try:
        return Refusal.model_validate_json(state.refusal.read_bytes())
    except (FileNotFoundError, ValidationError):
        return None
