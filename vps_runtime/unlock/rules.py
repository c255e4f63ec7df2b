"""One start of a server, from generation g to g + 1. Pure: randomness comes in as arguments.

Left to others: asking the evaluator, checking its proofs, replacing the root file, committing.
Steps and byte layouts: docs/protocol.md, "Unlock".
"""

from dataclasses import dataclass, field

from bus_schemas.errors import Refused
from bus_schemas.unlock import (
    key_encryption_key,
    unlock_check,
    unlock_input,
    unlock_preimage,
)
from vps_runtime.vault.record import unwrap_root_key, wrap_root_key
from vps_runtime.vault.root_file import RootFile


@dataclass(frozen=True, slots=True)
class Start:
    """What one start asks for; both shares stay here."""

    server_id: str
    g: int
    share: bytes = field(repr=False)
    next_share: bytes = field(repr=False)
    wrapped_root: bytes | None = field(repr=False)
    """None on a server's very first start: there is no root key yet."""

    @property
    def inputs(self) -> tuple[bytes, bytes]:
        """x_g and x_{g+1}, to be blinded."""
        return (
            unlock_input(self.server_id, self.g, self.share),
            unlock_input(self.server_id, self.g + 1, self.next_share),
        )

    @property
    def preimage(self) -> bytes:
        """s_g, which shows that this disk is the newest."""
        return unlock_preimage(self.inputs[0])

    @property
    def next_preimage(self) -> bytes:
        """s_{g+1}, which commits the new generation."""
        return unlock_preimage(self.inputs[1])

    @property
    def next_check(self) -> bytes:
        """chk_{g+1}, which the evaluator keeps."""
        return unlock_check(self.next_preimage)


@dataclass(frozen=True, slots=True)
class Opened:
    """A start that was answered: the root key, and the file that must be on disk to commit."""

    root_key: bytes = field(repr=False)
    file: RootFile = field(repr=False)


def begin(
    found: RootFile | None, *, server_id: str, first_share: bytes, next_share: bytes
) -> Start:
    """Return the next start of *server_id*, whose disk holds *found* (None: never unlocked).

    *first_share* and *next_share* are 32 fresh random bytes each. A crash before the root file
    is replaced throws *next_share* away, a crash after it keeps it: both begin again here.
    Raises Refused(`root_file_of_another_server`).
    """
    if found is None:
        return Start(server_id, 0, first_share, next_share, None)
    if found.server_id != server_id:
        detail = f"the root file is of {found.server_id}, this is {server_id}"
        raise Refused("root_file_of_another_server", detail)
    return Start(server_id, found.g, found.share, next_share, found.wrapped_root)


def finish(start: Start, outputs: tuple[bytes, bytes], *, new_root_key: bytes) -> Opened:
    """Open the root key with y_g, or take *new_root_key* on the first start; wrap it under y_{g+1}.

    *outputs* are the verified 64-byte evaluations of `start.inputs`. Raises
    Refused(`root_key_does_not_open`).
    """
    root_key = new_root_key
    if start.wrapped_root is not None:
        kek = key_encryption_key(outputs[0], start.share, start.server_id, start.g)
        root_key = unwrap_root_key(kek, start.server_id, start.g, start.wrapped_root)
    g = start.g + 1
    next_kek = key_encryption_key(outputs[1], start.next_share, start.server_id, g)
    file = RootFile(
        server_id=start.server_id,
        g=g,
        share=start.next_share,
        wrapped_root=wrap_root_key(next_kek, start.server_id, g, root_key),
    )
    return Opened(root_key, file)
