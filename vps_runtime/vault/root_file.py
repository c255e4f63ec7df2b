"""The unlock state on disk: the share and the wrapped root key, which open nothing alone."""

import os
from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field, ValidationError

from bus_schemas.errors import Refused
from bus_schemas.event import Contract
from bus_schemas.fields import CounterFromZero, ServerId
from bus_schemas.transport.private_files import sync_folder
from vps_runtime.vault.store import write_atomically


class RootFile(Contract, extra="forbid"):
    """Generation g of one server's unlock state; replaced as a whole at every unlock."""

    v: Literal[1] = 1
    server_id: ServerId
    g: CounterFromZero
    share: Annotated[bytes, Field(min_length=32, max_length=32, repr=False)]
    """share_g: half of what opens the root key; the evaluator's key is the other half."""
    wrapped_root: Annotated[bytes, Field(min_length=60, max_length=60)]
    """`record.wrap_root_key` under KEK_g."""
    next_share: Annotated[bytes | None, Field(min_length=32, max_length=32, repr=False)] = None
    """share_{g+1} of the start that was begun; on the disk before the evaluator hears of it."""


def read_root_file(path: Path) -> RootFile:
    """Return the state. Raises FileNotFoundError, or Refused(`root_file_damaged`)."""
    raw = path.read_bytes()
    try:
        return RootFile.model_validate_json(raw)
    except ValidationError as error:
        count = error.error_count()
    # Raised here and not above: a chained ValidationError would carry the share along.
    raise Refused("root_file_damaged", f"{path.name} has {count} faults; enrol the server again")


def write_root_file(path: Path, state: RootFile) -> None:
    """Replace the state, whole or not at all. Raises DiskFull, OSError."""
    write_atomically(path, state.model_dump_json().encode())


def sync_root_file(path: Path) -> None:
    """Make a state that was read survive a power cut: its writer may have been killed too soon.

    Killed after the rename and before the folder's fsync, it is in the page cache only.
    """
    handle = os.open(path, os.O_RDONLY | os.O_NOFOLLOW)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
    sync_folder(path.parent)
