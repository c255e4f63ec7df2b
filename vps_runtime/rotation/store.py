"""Carries a rotation on: decides on the memory as it is, and tells the steps, at one stroke."""

from collections.abc import Callable, Mapping
from functools import partial

import structlog

from bus_schemas.events.reported import CredentialRejected
from vps_runtime.facts.store import Draft, Facts, Telling
from vps_runtime.facts.told import note_of, rejected_key
from vps_runtime.rotation.rules import Change, SlotRotation, Step, rotation_key, rotation_of

_log = structlog.get_logger(__name__)

Event = Callable[[SlotRotation], Change]
"""What happened to a slot, such as `partial(judged, revision=…, verdict=…, at=…)`."""


async def carry_on(facts: Facts, slot_id: str, event: Event) -> Change:
    """Apply *event* to the rotation of *slot_id*. Raises StorageFull: nothing happened then."""
    changes: list[Change] = []

    def decide(told: Mapping[str, str]) -> Telling:
        changes.append(event(rotation_of(slot_id, told)))
        return telling(slot_id, changes[0], told)

    await facts.decide(decide)
    log_steps(slot_id, changes[0])
    return changes[0]


def telling(slot_id: str, change: Change, told: Mapping[str, str]) -> Telling:
    """Return what is to be told and remembered of *change*. Pure."""
    kept = {rotation_key(slot_id): change.rotation.model_dump_json(exclude_defaults=True)}
    for step in change.steps:
        if step.fact is CredentialRejected:
            kept[rejected_key(slot_id)] = f"{step.revision}/{step.words['reason']}"
    return Telling([_draft(slot_id, step, told) for step in change.steps], kept)


def log_steps(slot_id: str, change: Change) -> None:
    """Say in the log what was told."""
    for step in change.steps:
        words = {key: str(word) for key, word in step.words.items()}
        _log.info(step.fact.__name__, slot=slot_id, revision=step.revision, **words)


def _draft(slot_id: str, step: Step, told: Mapping[str, str]) -> Draft:
    note = note_of(slot_id, step.revision, told)  # there while the revision is held
    return partial(
        step.fact,
        slot_id=slot_id,
        revision=step.revision,
        rotation_id=note.rotation_id,
        observed_generation=int(told.get("generation", 0)),
        **step.words,
    )
