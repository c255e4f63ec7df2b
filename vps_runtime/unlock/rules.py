"""One start of a server, from generation g to g + 1. Pure: randomness comes in as arguments.

Left to others: asking the evaluator, checking its proofs, replacing the root file, committing.
Steps and byte layouts: docs/protocol.md, "Unlock".
"""

from dataclasses import dataclass, field

from bus_schemas.approval import copy_code
from bus_schemas.errors import Refused
from bus_schemas.unlock import (
    key_encryption_key,
    unlock_check,
    unlock_input,
    unlock_preimage,
)
from vps_runtime.vault.record import unwrap_root_key, wrap_root_key
from vps_runtime.vault.root_file import RootFile
from vps_runtime.vault.root_key import SecretKey


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
    def code(self) -> str:
        """What names this disk to its owner, should the evaluator refuse it."""
        return copy_code(self.server_id, self.g, unlock_check(self.preimage))

    @property
    def begun(self) -> RootFile | None:
        """The file that must be on disk before anybody is asked; None on the first start.

        The evaluator keeps the announced next generation and takes no other any more: a start
        that broke off must be able to go on with the same next share (ADR-15).
        """
        if self.wrapped_root is None:
            return None
        return RootFile(
            server_id=self.server_id,
            g=self.g,
            share=self.share,
            wrapped_root=self.wrapped_root,
            next_share=self.next_share,
        )


@dataclass(frozen=True, slots=True)
class Opened:
    """A start that was answered: the root key, and the file that must be on disk to commit."""

    root_key: SecretKey
    file: RootFile = field(repr=False)


def begin(
    found: RootFile | None, *, server_id: str, first_share: bytes, next_share: bytes
) -> Start:
    """Return the next start of *server_id*, whose disk holds *found* (None: never unlocked).

    *first_share* and *next_share* are 32 fresh random bytes each. A start that was begun before
    and broke off is gone on with: its next share stands in *found*, and *next_share* is not used.
    Raises Refused(`root_file_of_another_server`).
    """
    if found is None:
        return Start(server_id, 0, first_share, next_share, None)
    if found.server_id != server_id:
        detail = f"the root file is of {found.server_id}, this is {server_id}"
        raise Refused("root_file_of_another_server", detail)
    following = found.next_share or next_share
    return Start(server_id, found.g, found.share, following, found.wrapped_root)


def finish(
    start: Start, outputs: tuple[bytes, bytes], *, root_key: SecretKey, known: bool = False
) -> Opened:
    """Open the root key into *root_key* with y_g; wrap it under y_{g+1}.

    On the first start *root_key*, filled at random by the caller, becomes the root key; and where
    it is *known* already, from a recovery code, nothing is opened. *outputs* are the verified
    64-byte evaluations of `start.inputs`. Raises Refused(`root_key_does_not_open`).
    """
    if start.wrapped_root is not None and not known:
        kek = key_encryption_key(outputs[0], start.share, start.server_id, start.g)
        unwrap_root_key(kek, start.server_id, start.g, start.wrapped_root, root_key.view())
    g = start.g + 1
    next_kek = key_encryption_key(outputs[1], start.next_share, start.server_id, g)
    file = RootFile(
        server_id=start.server_id,
        g=g,
        share=start.next_share,
        wrapped_root=wrap_root_key(next_kek, start.server_id, g, root_key.view()),
    )
    return Opened(root_key, file)
