"""What may be said about a server without unlocking it: read from its memory of what it told.

Read-only and beside the running runtime: the database is in WAL mode.
"""

import asyncio
import sqlite3
from collections.abc import Mapping, Sequence
from contextlib import closing
from dataclasses import asdict, dataclass
from itertools import groupby
from typing import Any

from bus_schemas.events.health import Validity
from bus_schemas.fields import CredentialKind
from vps_runtime.connection.standing import TurnedAway, read_turned_away
from vps_runtime.facts.told import StoredNote, notes, rejections
from vps_runtime.orders.rules import is_locked, stopped
from vps_runtime.rotation.rules import SlotRotation, rotation_of
from vps_runtime.state import StateFolder
from vps_runtime.unlock.refusal import Refusal, last_refusal


@dataclass(frozen=True)
class HeldUp:
    """Why the facts that wait are not sent."""

    until: int
    """When the platform is asked again, Unix seconds."""
    reason: str
    """The platform's own words."""


@dataclass(frozen=True)
class SlotStatus:
    """What is held for one slot, and which of it is used."""

    slot_id: str
    provider: str
    kind: CredentialKind
    revision: int
    """The one in use, or the newest held while none is."""
    current: int | None
    """The one in use; None: the slot has no usable key."""
    pending: int | None
    """A newer one that waits for the provider's word."""
    previous: tuple[int, ...]
    """What is used no more and has not left the vault yet."""
    validity: Validity
    """What the provider said last of the one in use."""
    reason: str | None
    in_use: bool
    """Whether the provider has answered a call made with it."""
    drained: bool
    """Whether nothing waits with an older one any more."""

    @property
    def words(self) -> str:
        """It in a line, for a person."""
        use = "no revision in use"
        if self.current is not None:
            why = f", {self.reason}" if self.reason else ""
            use = f"revision {self.current} in use ({self.validity}{why})"
        waits = f", revision {self.pending} waits for the provider" if self.pending else ""
        old = f", revision {self.previous[-1]} on its way out" if self.previous else ""
        return f"{self.slot_id}  {self.provider}  {self.kind}  {use}{waits}{old}"


@dataclass(frozen=True)
class Status:
    """One server, from its own disk."""

    server_id: str
    owner_id: str
    generation: int
    """The desired document it last acted on; 0 for none."""
    waiting: int
    """Facts that the ledger does not have yet."""
    slots: tuple[SlotStatus, ...]
    """Every slot that a credential is held for."""
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
    held: HeldUp | None = None
    """Set while the platform takes no more of its facts."""

    def as_json(self) -> dict[str, Any]:
        """Return it for `--json`."""
        return {
            "server": self.server_id,
            "owner": self.owner_id,
            "generation": self.generation,
            "waiting": self.waiting,
            "held": self.held and {"until": self.held.until, "reason": self.held.reason},
            "slots": [asdict(slot) for slot in self.slots],
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
    return Status(
        settings.server_id,
        settings.owner_id,
        int(told.get("generation", 0)),
        waiting,
        tuple(slot_statuses(told)),
        rejections(told),
        stopped(told),
        is_locked(told) or state.lock_note.exists(),
        read_turned_away(state.turned_away),
        await asyncio.to_thread(last_refusal, state),
        held,
    )


def slot_statuses(told: Mapping[str, str]) -> list[SlotStatus]:
    """Return the status of each slot that a credential is held for, by slot. Pure."""
    return [
        _slot_status(list(found), rotation_of(slot, told))
        for slot, found in groupby(notes(told), key=lambda note: note.slot_id)
    ]


def _slot_status(found: Sequence[StoredNote], rotation: SlotRotation) -> SlotStatus:
    shown = next((note for note in found if note.revision == rotation.current), found[-1])
    alive = {rotation.current, rotation.pending}
    return SlotStatus(
        slot_id=shown.slot_id,
        provider=shown.provider,
        kind=shown.kind,
        revision=shown.revision,
        current=rotation.current,
        pending=rotation.pending,
        previous=tuple(note.revision for note in found if note.revision not in alive),
        validity=rotation.validity,
        reason=rotation.reason,
        in_use=rotation.used,
        drained=rotation.drained,
    )


def _read(state: StateFolder) -> tuple[dict[str, str], int, HeldUp | None]:
    if not state.outbox.exists():  # it never ran
        return {}, 0, None
    with closing(sqlite3.connect(f"{state.outbox.absolute().as_uri()}?mode=ro", uri=True)) as file:
        told = dict(file.execute("SELECT key, value FROM told").fetchall())
        (waiting,) = file.execute("SELECT count(*) FROM outbox").fetchone()
        held = file.execute("SELECT until, reason FROM outbox_held").fetchone()
    return told, waiting, HeldUp(*held) if held else None
