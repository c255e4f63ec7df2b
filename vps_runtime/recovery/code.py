"""Making a recovery code and coming back with it, while the runtime is stopped."""

import asyncio
import secrets
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from pydantic import ValidationError

from bus_schemas.errors import Refused
from bus_schemas.transport.private_files import sync_folder
from bus_schemas.transport.target import BusUnavailable
from vps_runtime.connection.link import Link
from vps_runtime.connection.tokens import TokenStore
from vps_runtime.state import StateFolder
from vps_runtime.status import read_status
from vps_runtime.unlock.boot import unlock
from vps_runtime.unlock.evaluator import Evaluator
from vps_runtime.vault.recovery import CODE_BYTES, RecoveryFile, code_shown, unwrap, wrap
from vps_runtime.vault.root_key import SecretKey
from vps_runtime.vault.store import write_atomically

_PATIENCE_SECONDS = 60.0


async def make_recovery_code(state: StateFolder) -> str:
    """Unlock, wrap the root key for a new code, and return the code; an older one is void.

    Raises Refused (`locked`, and those of an unlock), BusUnavailable, BusDenied, AlreadyRunning,
    NotEnrolled, DiskFull, OSError.
    """
    settings, code = state.read_settings(), secrets.token_bytes(CODE_BYTES)
    async with _evaluator_alone(state) as evaluator:
        unlocked = await unlock(state, settings.server_id, evaluator)
        with unlocked.root_key as root_key:
            file = wrap(code, settings.server_id, root_key.view())
        write_atomically(state.recovery, file.model_dump_json().encode())
    return code_shown(code)


def forget_recovery_code(state: StateFolder) -> bool:
    """Remove what the code opens; return whether there was one. Raises NotEnrolled, OSError."""
    state.read_settings()
    had = state.recovery.exists()
    state.recovery.unlink(missing_ok=True)
    sync_folder(state.root)
    return had


async def recover(state: StateFolder, code: bytes) -> int:
    """Open the vault with *code* and bind it to the evaluator's present key; return the start.

    For a server whose unlock key is another than before: the evaluator lost it, or another
    machine, with this one's vault and recovery file, was enrolled in its place. Raises as
    `make_recovery_code`, and Refused: `no_recovery_file`, `recovery_code_does_not_fit`.
    """
    settings, file = state.read_settings(), _read(state)
    with SecretKey() as root_key:
        unwrap(file, code, settings.server_id, root_key.view())
        async with _evaluator_alone(state) as evaluator:
            unlocked = await unlock(state, settings.server_id, evaluator, recovered=root_key)
    return unlocked.incarnation


def _read(state: StateFolder) -> RecoveryFile:
    try:
        return RecoveryFile.model_validate_json(state.recovery.read_bytes())
    except (FileNotFoundError, ValidationError):
        detail = f"{state.recovery} is missing or damaged; copy it here from the old machine"
        raise Refused("no_recovery_file", detail) from None


@asynccontextmanager
async def _evaluator_alone(state: StateFolder) -> AsyncIterator[Evaluator]:
    """Hold the folder, and yield the evaluator as this server reaches it, for a minute."""
    with state.lock():
        if (await read_status(state)).locked:
            detail = "a signed order keeps this server locked; its owner lifts that first"
            raise Refused("locked", detail)
        identity = state.read_identity()
        link = Link(state.target(), identity.server_id, TokenStore(state))
        try:
            async with asyncio.timeout(_PATIENCE_SECONDS):
                await link.open()
                yield Evaluator(link.bus, identity, state.read_evaluator())
        except TimeoutError:
            raise BusUnavailable("the platform or its evaluator does not answer now") from None
        finally:
            await link.close()
