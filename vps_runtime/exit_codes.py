"""From an error to the exit code of `byok-vps`, and to its one line for people. Pure."""

from bus_schemas.errors import ByokError, ContractError, Refused
from bus_schemas.exit_codes import ExitCode
from bus_schemas.transport.database import StorageFull
from bus_schemas.transport.target import BusDenied, BusUnavailable
from vps_runtime.state import AlreadyRunning, NotEnrolled
from vps_runtime.vault.store import DiskFull

_BY_ERROR: tuple[tuple[type[BaseException], ExitCode], ...] = (
    (NotEnrolled, ExitCode.CONFIG),
    (AlreadyRunning, ExitCode.TRY_AGAIN),
    (DiskFull, ExitCode.TRY_AGAIN),
    (StorageFull, ExitCode.TRY_AGAIN),
    (BusDenied, ExitCode.DENIED),
    (Refused, ExitCode.DENIED),
    (BusUnavailable, ExitCode.UNAVAILABLE),
    (ContractError, ExitCode.DATA),
    (ByokError, ExitCode.TRY_AGAIN),
    (OSError, ExitCode.TRY_AGAIN),
)


def exit_code(error: BaseException) -> ExitCode:
    """Return the code for *error*; what is not in the table is a bug."""
    for cls, code in _BY_ERROR:
        if isinstance(error, cls):
            return code
    return ExitCode.BUG


def sentence(error: BaseException) -> str:
    """Return one line for people. A bug's own words stay out: they might repeat a payload."""
    if isinstance(error, ByokError):
        return " ".join(str(error).split())
    if isinstance(error, OSError):
        where = f"{error.filename}: " if isinstance(error.filename, str) else ""
        return f"{where}{error.strerror or type(error).__name__}"
    return f"{type(error).__name__}: this is a bug; please report it with the log"
