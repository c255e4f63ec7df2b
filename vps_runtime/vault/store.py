"""The folder of vault records: whole files or none, readable by the runtime's uid only.

Blocking: a write waits for the disk (fsync), so asyncio code calls it in a thread.
"""

import errno
import re
from dataclasses import dataclass
from pathlib import Path

from bus_schemas.errors import ByokError
from bus_schemas.transport.private_files import make_private_folder, sync_folder, write_private
from vps_runtime.vault.record import RecordName

_FILE = re.compile(r"(?P<slot>_?[a-z0-9-]{1,63})\.(?P<revision>[1-9][0-9]{0,15})\.vault")
_FULL = frozenset({errno.ENOSPC, errno.EDQUOT})


@dataclass
class DiskFull(ByokError):
    """A file was not written for want of space; what was there before is untouched."""

    file: str
    """Name of the file, without its folder."""

    def __str__(self) -> str:
        return (
            f"disk full: {self.file} was not written and the version before is whole; "
            "free some space and retry"
        )


class Vault:
    """The records of one server in one folder (mode 0700, made if missing)."""

    def __init__(self, folder: Path, server_id: str) -> None:
        self._folder = make_private_folder(folder)
        self._server_id = server_id

    def write(self, name: RecordName, raw: bytes) -> None:
        """Put the sealed record *raw* there, or leave all as it was. Raises DiskFull, OSError."""
        write_atomically(self._path(name), raw)

    def read(self, name: RecordName) -> bytes:
        """Return the record's file. Raises FileNotFoundError."""
        return self._path(name).read_bytes()

    def names(self) -> list[RecordName]:
        """Return the records that are there, by slot and revision; other files are passed over."""
        found = (_FILE.fullmatch(path.name) for path in self._folder.iterdir())
        return sorted(
            RecordName(self._server_id, match["slot"], int(match["revision"]))
            for match in found
            if match
        )

    def remove(self, name: RecordName) -> None:
        """Take the record's file away; one that is not there is fine."""
        self._path(name).unlink(missing_ok=True)
        sync_folder(self._folder)

    def sweep(self) -> None:
        """Take away what a crash left half-written. Call it once at start, before any write."""
        for path in self._folder.glob(".*.tmp"):
            path.unlink(missing_ok=True)

    def _path(self, name: RecordName) -> Path:
        if name.server != self._server_id:
            raise ValueError(f"this is the vault of {self._server_id}, not of {name.server}")
        return self._folder / f"{name.slot}.{name.revision}.vault"


def write_atomically(path: Path, content: bytes) -> None:
    """Replace *path* by *content* (0600), whole or not at all.

    Raises DiskFull when there is no room, else the OSError; nothing half-written stays.
    """
    try:
        write_private(path, content)
    except OSError as error:
        if error.errno in _FULL:
            raise DiskFull(path.name) from error
        raise
