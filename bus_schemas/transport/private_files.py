"""Whole or not at all: files that only their owner may read.

Commands are also run by root, beside a service with a uid of its own. What root makes in the
service's folder belongs to the service, else its next start would find a file it cannot read.
"""

import os
import secrets
from pathlib import Path
from typing import Final

PRIVATE: Final = 0o600
PUBLIC: Final = 0o644
"""For what anybody may have: certificates, addresses, public keys."""


def write_private(path: Path, content: bytes, mode: int = PRIVATE) -> None:
    """Put *content* at *path* atomically and durably, readable as *mode* says.

    A crash or a full disk leaves the old file whole; the half-written one is removed. Raises
    OSError as the kernel gave it.
    """
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(4)}.tmp")
    handle = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o600)
    try:
        with os.fdopen(handle, "wb") as file:
            os.fchmod(handle, mode)  # whatever the umask
            give_to_folders_owner(handle, path.parent)
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
    sync_folder(path.parent)


def give_to_folders_owner(handle: int, folder: Path) -> None:
    """Let an open file, new in *folder*, belong to whom the folder does; only root has to."""
    if os.geteuid() == 0:
        owner = folder.stat()
        os.fchown(handle, owner.st_uid, owner.st_gid)


def sync_folder(folder: Path) -> None:
    """Make a rename in *folder* survive a power cut (fsync of the directory, POSIX)."""
    handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def make_private_folder(folder: Path) -> Path:
    """Create *folder* and its parents, the last one 0700, and return it."""
    folder.mkdir(parents=True, exist_ok=True)
    folder.chmod(0o700)
    return folder
