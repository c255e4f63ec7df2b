"""Which facts about held credentials are still to be told: the vault against the memory. Pure.

Keys of the memory (`Facts.told`); everything else about a fact is in its value:

    held/<slot>/<revision>                    StoredNote, told as stored and not as retired
    tag/<slot>/<revision>/<epoch>/<basis>     told as observed; the tag's first 8 digits
    tag/<slot>/<revision>/<epoch>/<basis>/<n> the same of a sign-in's n-th refresh
    last/<slot>                               the highest revision ever taken in
    rejected/<slot>                           which sealing was refused, and why
    needs-key/<slot>                          the missing key that was told
    pins, sealing-key, renewed, generation    the last one told or acted on

What signed orders leave there is listed in `orders.rules`, the rest in `rotation.rules`.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Annotated, Final

from pydantic import Field

from bus_schemas.event import Contract
from bus_schemas.fields import Basis, Counter, CredentialKind, ProviderId, RotationId, SlotId
from vps_runtime.vault.credentials import Held

SHORT_TAG: Final = 8
"""Digits of a tag that are kept and shown: enough to compare two by eye."""

_HELD = "held/"
_REJECTED = "rejected/"
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
    grant: int = 0
    """Which of a sign-in's refresh tokens it is of."""

    @property
    def key(self) -> str:
        """Where the memory keeps that it was told."""
        nth = f"/{self.grant}" if self.grant else ""
        return f"tag/{self.slot_id}/{self.revision}/{self.epoch}/{self.basis}{nth}"


def notes(told: Mapping[str, str]) -> list[StoredNote]:
    """Return what was told as stored and not yet as retired, by slot and revision."""
    found = [
        StoredNote.model_validate_json(value)
        for key, value in told.items()
        if key.startswith(_HELD)
    ]
    return sorted(found, key=lambda note: (note.slot_id, note.revision))


def note_of(slot_id: str, revision: int, told: Mapping[str, str]) -> StoredNote:
    """Return what was told of a held *revision*. Raises KeyError: it is not told, or retired."""
    return StoredNote.model_validate_json(told[_held_key(slot_id, revision)])


def is_noted(slot_id: str, revision: int, told: Mapping[str, str]) -> bool:
    """Whether *revision* was told as stored and not yet as gone."""
    return _held_key(slot_id, revision) in told


def to_tell_stored(held: Iterable[Held], told: Mapping[str, str]) -> list[Held]:
    """Return what the vault holds and nobody was told of, oldest revision first."""
    new = [entry for entry in held if _held_key(entry.slot_id, entry.revision) not in told]
    return sorted(new, key=lambda entry: (entry.revision, entry.slot_id))


def to_tell_gone(held: Mapping[tuple[str, int], Held], told: Mapping[str, str]) -> list[StoredNote]:
    """Return what was told as stored and is gone from the vault."""
    return [note for note in notes(told) if (note.slot_id, note.revision) not in held]


def missing_tags(
    held: Iterable[Held], epochs: Iterable[str], told: Mapping[str, str]
) -> list[TagKey]:
    """Return the tags still to be told, under each of *epochs*, a sign-in's oldest first."""
    wanted = (tag for epoch in epochs for entry in held for tag in _tags_of(entry, epoch))
    return [tag for tag in wanted if tag.key not in told]


def outgrown_tags(held: Iterable[Held], told: Mapping[str, str]) -> list[str]:
    """Return the keys of tags of refresh tokens that the vault no longer remembers."""
    oldest = {f"tag/{entry.slot_id}/{entry.revision}/": entry.grants[0] for entry in held}
    found = []
    for key in told:
        start, _, rest = _parted(key)
        basis, _, nth = rest.partition("/")
        if basis == Basis.OAUTH_GRANT and int(nth or 0) < oldest.get(start, 0):
            found.append(key)
    return found


def short_tag(entry: Held, told: Mapping[str, str]) -> str | None:
    """Return the first 8 digits of the tag that *entry* goes by now; None before it is told.

    Of several epochs it is that of the highest name.
    """
    basis = Basis.OAUTH_GRANT if entry.kind is CredentialKind.OAUTH else Basis.API_KEY
    prefix = f"tag/{entry.slot_id}/{entry.revision}/"
    epochs = sorted({_parted(key)[1] for key in told if key.startswith(prefix)}, reverse=True)
    newest = (TagKey(entry.slot_id, entry.revision, e, basis, entry.grants[-1]) for e in epochs)
    found = (told[tag.key] for tag in newest if tag.key in told)
    return next((value for value in found if len(value) == SHORT_TAG), None)


def _tags_of(entry: Held, epoch: str) -> list[TagKey]:
    return [
        TagKey(entry.slot_id, entry.revision, epoch, basis, grant)
        for basis in entry.bases
        for grant in (entry.grants if basis is Basis.OAUTH_GRANT else (0,))
    ]


def _parted(key: str) -> tuple[str, str, str]:
    """Return the key of a tag as `tag/<slot>/<revision>/`, epoch and the rest; else blanks."""
    parts = key.split("/", 4)
    if parts[0] != "tag":
        return "", "", ""
    return "/".join(parts[:3]) + "/", parts[3], parts[4]


def settled(held: Iterable[Held], epoch: str, told: Mapping[str, str]) -> list[Held]:
    """Return the held credentials whose tags were all told under *epoch*."""
    return [entry for entry in held if not missing_tags([entry], [epoch], told)]


def rejected_key(slot_id: str) -> str:
    """Return where the memory keeps which revision of *slot_id* was refused, and why."""
    return f"{_REJECTED}{slot_id}"


def rejections(told: Mapping[str, str]) -> dict[str, str]:
    """Return why the newest credential of a slot was refused, by slot, where it was."""
    return {
        key.removeprefix(_REJECTED): value.partition("/")[2]
        for key, value in told.items()
        if key.startswith(_REJECTED)
    }


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


def gone_forgets(note: StoredNote, told: Mapping[str, str]) -> list[str]:
    """Return what to forget when *note* is told as gone."""
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
