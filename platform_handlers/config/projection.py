"""How far each slot's newest credential has come, folded from the ledger. Pure.

Left to others: loading and saving (`store`), purging the sealed message (`purger`). "Saved" is
not "in use": every step but `sent` is the server's own word.
"""

from datetime import datetime
from typing import Annotated, Final, TypeGuard

from pydantic import Field

from bus_schemas.api import SlotStep, StepView
from bus_schemas.event import Contract, Event, ServerFact
from bus_schemas.events import (
    ConfigRequested,
    CredentialAborted,
    CredentialDrained,
    CredentialInUse,
    CredentialNeedsKey,
    CredentialRejected,
    CredentialRetired,
    CredentialStored,
    CredentialVerified,
)
from bus_schemas.events.reported import RotationStep
from bus_schemas.fields import CounterFromZero

MAX_STEPS: Final = 32

_STEPS: dict[type[ServerFact], SlotStep] = {
    CredentialStored: SlotStep.STORED,
    CredentialRejected: SlotStep.REJECTED,
    CredentialVerified: SlotStep.VERIFIED,
    CredentialInUse: SlotStep.IN_USE,
    CredentialDrained: SlotStep.DRAINED,
    CredentialRetired: SlotStep.RETIRED,
    CredentialAborted: SlotStep.ABORTED,
    CredentialNeedsKey: SlotStep.NEEDS_KEY,
}

SlotFact = ConfigRequested | RotationStep | CredentialNeedsKey


class Progress(Contract):
    """One slot's newest revision and what happened to it."""

    revision: CounterFromZero = 0
    incarnation: CounterFromZero = 0
    n: CounterFromZero = 0
    """With `incarnation`: the newest of the server's facts that is in here."""
    steps: Annotated[tuple[StepView, ...], Field(max_length=MAX_STEPS)] = ()
    """Oldest first."""


def is_slot_fact(event: Event) -> TypeGuard[SlotFact]:
    """Say whether `fold` understands *event*."""
    return isinstance(event, ConfigRequested | RotationStep | CredentialNeedsKey)


def slot_of(fact: SlotFact) -> tuple[str, str]:
    """Return (server, slot) of *fact*."""
    slot_id = fact.slot.slot_id if isinstance(fact, ConfigRequested) else fact.slot_id
    return fact.server_id, slot_id


def fold(known: Progress, fact: SlotFact, *, at: datetime) -> Progress:
    """Return *known* with *fact*, which the ledger took *at*.

    Stale and repeated facts change nothing, and a step of an older revision is not progress of
    the newest, whatever its name.
    """
    if isinstance(fact, ConfigRequested):
        return _requested(known, fact, at)
    if (fact.incarnation, fact.n) <= (known.incarnation, known.n):
        return known
    revision = fact.revision if isinstance(fact, RotationStep) else known.revision
    if revision < known.revision:
        return known
    step = StepView(step=_STEPS[type(fact)], revision=revision, at=at, reason=_reason(fact))
    earlier = known.steps if revision == known.revision else ()
    return Progress(
        revision=revision,
        incarnation=fact.incarnation,
        n=fact.n,
        steps=(*earlier, step)[-MAX_STEPS:],
    )


def _requested(known: Progress, fact: ConfigRequested, at: datetime) -> Progress:
    revision = fact.slot.revision
    sent = StepView(step=SlotStep.SENT, revision=revision, at=at)
    if revision > known.revision:
        return known.model_copy(update={"revision": revision, "steps": (sent,)})
    if revision < known.revision or any(step.step is SlotStep.SENT for step in known.steps):
        return known
    # The server was faster than this fact: it acts on the document, which is written first.
    steps = (sent.model_copy(update={"at": known.steps[0].at}), *known.steps)
    return known.model_copy(update={"steps": steps[:MAX_STEPS]})


def _reason(fact: RotationStep | CredentialNeedsKey) -> str | None:
    if isinstance(fact, CredentialVerified):
        return fact.verdict
    return getattr(fact, "reason", None)
