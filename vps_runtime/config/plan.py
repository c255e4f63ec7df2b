"""What to do so that the vault holds what the desired document says. Pure.

Left to others: reading the document, fetching and admitting sealings, the vault, telling it.
The document is level-triggered: the same one planned twice asks for nothing the second time.
"""

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Final

from bus_schemas.events.config import ConfigDesired, DesiredSlot
from vps_runtime.rotation.rules import SlotRotation

_NEW: Final = SlotRotation()


@dataclass(frozen=True, slots=True)
class Retire:
    """Use no revision of this slot up to this one any more, whether it is held or not."""

    slot_id: str
    revision: int


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


def plan(
    document: ConfigDesired, rotations: Mapping[str, SlotRotation], last: Mapping[str, int]
) -> list[Action]:
    """Return the actions that *document* asks for, removals first.

    *last* has the highest revision ever taken in of each slot: what was retired, given up or
    refused by the provider is not fetched again. A superseded revision is not retired here: that
    waits until its successor is in use and nothing waits with it. Nor is what never came: a
    minimum of 2**53 would end the slot for good, and `admit` holds each sealing against it anyway.
    """
    slots = {slot.slot_id: slot for slot in document.slots}
    actions: list[Action] = []
    for name, revision in sorted(last.items()):
        floor = min(slots[name].min_revision - 1, revision) if name in slots else revision
        if floor > rotations.get(name, _NEW).floor:
            actions.append(Retire(name, floor))
    for name, slot in sorted(slots.items()):
        lowest = max(last.get(name, 0), rotations.get(name, _NEW).floor) + 1
        if slot.revision >= max(lowest, slot.min_revision):
            actions.append(Fetch(slot))
    return actions


@dataclass(frozen=True, slots=True)
class Missing:
    """A slot that the document lists and that has no usable credential."""

    slot: DesiredSlot
    reason: str


def missing(
    document: ConfigDesired,
    held: Collection[str],
    refusals: Mapping[str, str],
    rotations: Mapping[str, SlotRotation],
) -> list[Missing]:
    """Return the slots without a credential, once everything was fetched that could be.

    *held* are the slots that have one, in use or pending; *refusals* has, by slot, why the last
    one was rejected.
    """
    return [
        Missing(slot, _why(slot, refusals, rotations.get(slot.slot_id, _NEW)))
        for slot in document.slots
        if slot.slot_id not in held
    ]


def _why(slot: DesiredSlot, refusals: Mapping[str, str], rotation: SlotRotation) -> str:
    if slot.revision <= max(rotation.floor, slot.min_revision - 1):
        return "retired"
    return "rejected" if slot.slot_id in refusals else "not_delivered"
