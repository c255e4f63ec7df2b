"""What may be said about a server without unlocking it: read from its memory of what it told.

Read-only and beside the running agent: the database is in WAL mode.
"""

import asyncio
import sqlite3
from collections.abc import Mapping
from contextlib import closing
from dataclasses import dataclass
from typing import Any

from vps_runtime.connection.standing import TurnedAway, read_turned_away
from vps_runtime.facts.told import StoredNote, newest_notes
from vps_runtime.orders.rules import is_locked, stopped
from vps_runtime.state import StateFolder
from vps_runtime.unlock.refusal import Refusal, last_refusal


@dataclass(frozen=True)
class Held:
    """What holds up the facts that wait."""

    until: int
    """When the platform is asked again, Unix seconds."""
    reason: str
    """The platform's own words."""


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
    stopped: frozenset[str] = frozenset()
    """Slots that a signed order forbids to use."""
    locked: bool = False
    """Whether a signed order keeps this server locked."""
    turned_away: TurnedAway | None = None
    """Since when and why the platform lets this server in no more; None if it does."""
    refusal: Refusal | None = None
    """Why the last start was refused, and what lets this disk in."""
    held: Held | None = None
    """Set while the platform takes no more of its facts."""

    def as_json(self) -> dict[str, Any]:
        """Return it for `--json`."""
        return {
            "server": self.server_id,
            "owner": self.owner_id,
            "generation": self.generation,
            "waiting": self.waiting,
            "held": self.held and {"until": self.held.until, "reason": self.held.reason},
            "slots": [
                slot.model_dump(mode="json", include={"slot_id", "provider", "kind", "revision"})
                for slot in self.slots
            ],
            "refused": dict(self.refused),
            "stopped": sorted(self.stopped),
            "locked": self.locked,
            "turned_away": self.turned_away and self.turned_away.model_dump(exclude={"v"}),
            "approval_code": self.refusal and self.refusal.code,
        }


async def read_status(state: StateFolder) -> Status:
    """Return the status of the server in *state*. Raises NotEnrolled, OSError."""
    settings = state.read_settings()
    told, waiting, held = await asyncio.to_thread(_read, state)
    prefix = "rejected/"
    return Status(
        settings.server_id,
        settings.owner_id,
        int(told.get("generation", 0)),
        waiting,
        tuple(newest_notes(told)),
        {
            key.removeprefix(prefix): value.partition("/")[2]
            for key, value in told.items()
            if key.startswith(prefix)
        },
        stopped(told),
        is_locked(told) or state.lock_note.exists(),
        read_turned_away(state.turned_away),
        await asyncio.to_thread(last_refusal, state),
        held,
    )


def _read(state: StateFolder) -> tuple[dict[str, str], int, Held | None]:
    if not state.outbox.exists():  # it never ran
        return {}, 0, None
    with closing(sqlite3.connect(f"{state.outbox.absolute().as_uri()}?mode=ro", uri=True)) as file:
        told = dict(file.execute("SELECT key, value FROM told").fetchall())
        (waiting,) = file.execute("SELECT count(*) FROM outbox").fetchone()
        held = file.execute("SELECT until, reason FROM outbox_held").fetchone()
    return told, waiting, Held(*held) if held else None
