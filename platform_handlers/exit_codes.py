"""Which error ends a command with which exit code (sysexits.h), so that scripts can tell. Pure."""

from typing import Final

from bus_schemas.errors import ContractError, ReaderMustStop, Refused
from bus_schemas.transport.connection import BusDenied, BusUnavailable
from bus_schemas.transport.database import StorageFull
from bus_schemas.transport.jetstream import Conflict, StreamError
from platform_handlers.authority.nats_process import NatsServerFailed
from platform_handlers.provisioning.turn_away import NotYetVerified

BUG: Final = 70
CONFIGURATION: Final = 78

_BY_ERROR: Final[tuple[tuple[type[BaseException], int], ...]] = (
    (ContractError, 65),
    (ReaderMustStop, 65),
    (BusUnavailable, 69),
    (NatsServerFailed, 69),
    (StreamError, 69),
    (StorageFull, 75),
    (NotYetVerified, 75),
    (Conflict, 75),
    (BusDenied, 77),
    (PermissionError, 77),
    (Refused, 77),
)
_SETTINGS: Final = frozenset({"not_initialised", "bus_unknown", "bad_credentials_file"})
"""Refusals that mean a wrong setting, not a denied wish."""


def root_cause(error: BaseException) -> BaseException:
    """Return the first error of a group: tasks that run together fail together."""
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    return error


def exit_code(error: BaseException) -> int:
    """Return the exit code for *error*; what nobody foresaw is a bug."""
    if isinstance(error, Refused) and error.reason in _SETTINGS:
        return CONFIGURATION
    return next((code for kind, code in _BY_ERROR if isinstance(error, kind)), BUG)
