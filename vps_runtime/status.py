"""What may be said about a server without unlocking it: read from its memory of what it told.

Read-only and beside the running agent: the database is in WAL mode.
"""

import asyncio
import sqlite3
from collections.abc import Mapping
from contextlib import closing
from dataclasses import dataclass
from typing import Any

from vps_runtime.facts.told import StoredNote, notes
from vps_runtime.state import StateFolder


@dataclass(frozen=True)
class Status:
    """One server, from its own disk."""

    server_id: str
    owner_id: str
    generation: int
    """The desired document it last acted on; 0 for none."""
    waiting: int
    """Facts that the ledger does not have yet."""
    slots: tuple[StoredNote, ...]
    """The newest held credential of each slot."""
    refused: Mapping[str, str]
    """Slots whose newest sealing was refused, with the reason."""

    def as_json(self) -> dict[str, Any]:
        """Return it for `--json`."""
        return {
            "server": self.server_id,
            "owner": self.owner_id,
            "generation": self.generation,
            "waiting": self.waiting,
            "slots": [
                slot.model_dump(mode="json", include={"slot_id", "provider", "kind", "revision"})
                for slot in self.slots
            ],
            "refused": dict(self.refused),
        }


async def read_status(state: StateFolder) -> Status:
    """Return the status of the server in *state*. Raises NotEnrolled, OSError."""
    settings = state.read_settings()
    told, waiting = await asyncio.to_thread(_read, state)
    newest = {note.slot_id: note for note in notes(told)}
    prefix = "rejected/"
    return Status(
        settings.server_id,
        settings.owner_id,
        int(told.get("generation", 0)),
        waiting,
        tuple(newest.values()),
        {
            key.removeprefix(prefix): value.partition("/")[2]
            for key, value in told.items()
            if key.startswith(prefix)
        },
    )


def _read(state: StateFolder) -> tuple[dict[str, str], int]:
    if not state.outbox.exists():  # it never ran
        return {}, 0
    with closing(sqlite3.connect(f"{state.outbox.absolute().as_uri()}?mode=ro", uri=True)) as file:
        told = dict(file.execute("SELECT key, value FROM told").fetchall())
        (waiting,) = file.execute("SELECT count(*) FROM outbox").fetchone()
    return told, waiting
