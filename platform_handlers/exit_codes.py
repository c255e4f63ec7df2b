"""From an error to the exit code of `byok`. Pure."""

from typing import Final

from bus_schemas.errors import ContractError, ReaderMustStop, Refused
from bus_schemas.exit_codes import ExitCode
from bus_schemas.transport.database import StorageFull
from bus_schemas.transport.jetstream import Conflict, StreamError
from bus_schemas.transport.target import BusDenied, BusUnavailable
from platform_handlers.authority.nats_process import NatsServerFailed
from platform_handlers.demo.stage import DemoFailed
from platform_handlers.provisioning.turn_away import NotYetVerified

_BY_ERROR: Final[tuple[tuple[type[BaseException], ExitCode], ...]] = (
    (ContractError, ExitCode.DATA),
    (ReaderMustStop, ExitCode.DATA),
    (BusUnavailable, ExitCode.UNAVAILABLE),
    (NatsServerFailed, ExitCode.UNAVAILABLE),
    (StreamError, ExitCode.UNAVAILABLE),
    (DemoFailed, ExitCode.UNAVAILABLE),
    (StorageFull, ExitCode.TRY_AGAIN),
    (NotYetVerified, ExitCode.NEGATIVE),
    (Conflict, ExitCode.TRY_AGAIN),
    (BusDenied, ExitCode.DENIED),
    (PermissionError, ExitCode.DENIED),
    (Refused, ExitCode.DENIED),
    (OSError, ExitCode.TRY_AGAIN),  # a full disk, a port that is taken
)
_SETTINGS: Final = frozenset(
    {
        "not_initialised",
        "bus_unknown",
        "bad_credentials_file",
        "store_locked",
        "ca_damaged",
        "ca_key_lost",
    }
)
"""Refusals that mean a wrong setting, not a denied wish."""


def exit_code(error: BaseException) -> ExitCode:
    """Return the exit code for *error*; what nobody foresaw is a bug."""
    if isinstance(error, Refused) and error.reason in _SETTINGS:
        return ExitCode.CONFIG
    return next((code for kind, code in _BY_ERROR if isinstance(error, kind)), ExitCode.BUG)
