"""What to do so that the vault holds what the desired document says. Pure.

Left to others: reading the document, fetching and admitting sealings, the vault, telling it.
The document is level-triggered: the same one planned twice asks for nothing the second time.
"""

from collections.abc import Mapping
from dataclasses import dataclass

from bus_schemas.events.config import ConfigDesired, DesiredSlot
from vps_runtime.vault.credentials import Held


@dataclass(frozen=True, slots=True)
class Retire:
    """Take this revision out of the vault now: it may not be used again."""

    held: Held


@dataclass(frozen=True, slots=True)
class Fetch:
    """Get and admit the sealed credential of this slot."""

    slot: DesiredSlot


Action = Retire | Fetch


@dataclass(frozen=True, slots=True)
class Known:
    """Where this server stands when a document arrives."""

    server_id: str
    owner_id: str
    generation: int
    """The highest one it ever acted on; 0 for none."""


def acceptable(document: ConfigDesired, known: Known) -> bool:
    """Whether to act on *document*: it is ours, and no older than what we acted on."""
    ours = (document.server_id, document.owner_id) == (known.server_id, known.owner_id)
    return ours and document.generation >= known.generation


def plan(document: ConfigDesired, held: Mapping[tuple[str, int], Held]) -> list[Action]:
    """Return the actions that *document* asks for, removals first.

    A superseded revision is not retired here: that waits until its successor's tags are told.
    """
    slots = {slot.slot_id: slot for slot in document.slots}
    newest = dict(sorted(held))  # by slot: of several revisions the last one stays
    actions: list[Action] = [
        Retire(entry)
        for _, entry in sorted(held.items())
        if entry.slot_id not in slots or entry.revision < slots[entry.slot_id].min_revision
    ]
    actions += [
        Fetch(slot) for name, slot in sorted(slots.items()) if newest.get(name, 0) < slot.revision
    ]
    return actions


@dataclass(frozen=True, slots=True)
class Missing:
    """A slot that the document lists and that has no usable credential."""

    slot: DesiredSlot
    reason: str


def missing(
    document: ConfigDesired,
    held: Mapping[tuple[str, int], Held],
    refusals: Mapping[str, str],
) -> list[Missing]:
    """Return the slots without a credential, once everything was fetched that could be.

    *refusals* has, by slot, why the last sealing was rejected.
    """
    there = {slot for slot, _ in held}
    return [
        Missing(slot, "rejected" if slot.slot_id in refusals else "not_delivered")
        for slot in document.slots
        if slot.slot_id not in there
    ]
