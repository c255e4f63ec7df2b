"""Which facts about held credentials are still to be told: the vault against the memory. Pure.

Keys of the memory (`Facts.told`); everything else about a fact is in its value:

    held/<slot>/<revision>                    StoredNote, told as stored and not as retired
    tag/<slot>/<revision>/<epoch>/<basis>     told as observed
    last/<slot>                               the highest revision ever taken in
    rejected/<slot>                           which sealing was refused, and why
    needs-key/<slot>                          the missing key that was told
    pins, sealing-key, renewed, generation    the last one told or acted on

What signed orders leave there is listed in `orders.rules`.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated

from pydantic import Field

from bus_schemas.event import Contract
from bus_schemas.fields import Basis, Counter, CredentialKind, ProviderId, RotationId, SlotId
from vps_runtime.vault.credentials import Held

_HELD = "held/"
_DAY = 24 * 3600


class StoredNote(Contract):
    """What was told of a credential that the vault holds; nothing in it is secret."""

    slot_id: SlotId
    revision: Counter
    provider: ProviderId
    kind: CredentialKind
    rotation_id: RotationId
    stored_at: Annotated[int, Field(ge=0)]
    """Unix seconds."""


@dataclass(frozen=True, slots=True)
class TagKey:
    """One tag that a held credential has under one epoch."""

    slot_id: str
    revision: int
    epoch: str
    basis: Basis

    @property
    def key(self) -> str:
        """Where the memory keeps that it was told."""
        return f"tag/{self.slot_id}/{self.revision}/{self.epoch}/{self.basis}"


def notes(told: Mapping[str, str]) -> list[StoredNote]:
    """Return what was told as stored and not yet as retired, by slot and revision."""
    found = [
        StoredNote.model_validate_json(value)
        for key, value in told.items()
        if key.startswith(_HELD)
    ]
    return sorted(found, key=lambda note: (note.slot_id, note.revision))


def newest_notes(told: Mapping[str, str]) -> list[StoredNote]:
    """Return the newest of them for each slot, by slot."""
    return list({note.slot_id: note for note in notes(told)}.values())


def to_tell_stored(held: Iterable[Held], told: Mapping[str, str]) -> list[Held]:
    """Return what the vault holds and nobody was told of, oldest revision first."""
    new = [entry for entry in held if _held_key(entry.slot_id, entry.revision) not in told]
    return sorted(new, key=lambda entry: (entry.revision, entry.slot_id))


def to_tell_retired(
    held: Mapping[tuple[str, int], Held], told: Mapping[str, str]
) -> list[StoredNote]:
    """Return what was told as stored and is gone from the vault."""
    return [note for note in notes(told) if (note.slot_id, note.revision) not in held]


def missing_tags(
    held: Iterable[Held], epochs: Iterable[str], told: Mapping[str, str]
) -> list[TagKey]:
    """Return the tags still to be told, under each of *epochs*."""
    wanted = (
        TagKey(entry.slot_id, entry.revision, epoch, basis)
        for epoch in epochs
        for entry in held
        for basis in entry.bases
    )
    return [tag for tag in wanted if tag.key not in told]


def settled(held: Iterable[Held], epoch: str, told: Mapping[str, str]) -> list[Held]:
    """Return the held credentials whose tags were all told under *epoch*."""
    return [entry for entry in held if not missing_tags([entry], [epoch], told)]


def superseded(held: Mapping[tuple[str, int], Held], settled: Sequence[Held]) -> list[Held]:
    """Return what may be retired: older than the newest of its slot, which is in *settled*.

    Until the newest one's tags are all told the older one stays, unused, so that a match does
    not seem to end and begin again.
    """
    newest = dict(sorted(held))  # by slot: of several revisions the last one stays
    done = {entry.slot_id for entry in settled if entry.revision == newest[entry.slot_id]}
    return [
        entry
        for _, entry in sorted(held.items())
        if entry.slot_id in done and entry.revision < newest[entry.slot_id]
    ]


def closed_epochs(epochs: Iterable[str], told: Mapping[str, str]) -> list[str]:
    """Return the keys of tags that were told under an epoch that is over."""
    still = set(epochs)
    return [key for key in told if key.startswith("tag/") and key.split("/")[3] not in still]


def last_revision(slot_id: str, told: Mapping[str, str], held: Iterable[tuple[str, int]]) -> int:
    """Return the highest revision of *slot_id* ever taken in; 0 for none.

    Asks the vault as well: a kill may have come before the memory was written.
    """
    there = [revision for slot, revision in held if slot == slot_id]
    return max([int(told.get(f"last/{slot_id}", 0)), *there])


def stored_memory(entry: Held) -> dict[str, str]:
    """Return what to remember when *entry* is told as stored."""
    note = StoredNote(
        slot_id=entry.slot_id,
        revision=entry.revision,
        provider=entry.provider,
        kind=entry.kind,
        rotation_id=entry.rotation_id,
        stored_at=entry.stored_at,
    )
    return {
        _held_key(entry.slot_id, entry.revision): note.model_dump_json(),
        f"last/{entry.slot_id}": str(entry.revision),
    }


def retired_forgets(note: StoredNote, told: Mapping[str, str]) -> list[str]:
    """Return what to forget when *note* is told as retired."""
    tags = f"tag/{note.slot_id}/{note.revision}/"
    return [
        _held_key(note.slot_id, note.revision),
        *(key for key in told if key.startswith(tags)),
    ]


def _held_key(slot_id: str, revision: int) -> str:
    return f"{_HELD}{slot_id}/{revision}"


def renewal_due(told: Mapping[str, str], now: float) -> bool:
    """Whether the daily renewal is to be told at *now*, in Unix seconds.

    A last one in the future means that the clock was set back: then it is due as well.
    """
    if "renewed" not in told:
        return bool(notes(told))
    return not 0 <= now - int(told["renewed"]) < _DAY
