"""Why `byok nats run` did not stay: left on the disk, for `byok doctor` to tell."""

import contextlib
from collections.abc import Iterator

from bus_schemas.errors import Refused
from bus_schemas.transport.private_files import write_private
from platform_handlers.authority.installation import Installation


@contextlib.contextmanager
def remembered(installation: Installation) -> Iterator[None]:
    """Leave behind what a step of the start is refused with, and nothing else."""
    note = installation.nats_refusal
    note.unlink(missing_ok=True)
    try:
        yield
    except Refused as refused:
        with contextlib.suppress(OSError):  # a full disk: it is in the log at least
            write_private(note, str(refused).encode())
        raise


def last_refusal(installation: Installation) -> str | None:
    """Return what the last start was refused with; None for a good one, or what we may not read."""
    try:
        return installation.nats_refusal.read_text() or None
    except OSError:
        return None
