"""How far the newest rotations of each slot have come, folded from the ledger. Pure.

Left to others: loading and saving (`store`), purging the sealed message (`purger`). "Saved" is
not "in use": every step but `sent` is the server's own word. A server that invents revisions
pushes out its own history, and no more: rotations, steps of one and steps in all are bounded.
"""

from collections.abc import Sequence
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
"""Of one rotation."""
MAX_ROTATIONS: Final = 32
MAX_ALL_STEPS: Final = 256
"""Of one slot: 32 rotations of eight steps, some 30 kB as JSON."""

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


class Rotation(Contract):
    """What happened to one revision."""

    revision: CounterFromZero
    """0 where a server says that it holds none, before any was sent."""
    steps: Annotated[tuple[StepView, ...], Field(min_length=1, max_length=MAX_STEPS)]
    """Oldest first."""


class Progress(Contract):
    """One slot's newest rotations."""

    incarnation: CounterFromZero = 0
    n: CounterFromZero = 0
    """With `incarnation`: the newest of the server's facts that is in here."""
    rotations: Annotated[tuple[Rotation, ...], Field(max_length=MAX_ROTATIONS)] = ()
    """By revision, the newest last."""

    @property
    def revision(self) -> int:
        """The newest revision; 0 for none."""
        return self.rotations[-1].revision if self.rotations else 0

    @property
    def steps(self) -> tuple[StepView, ...]:
        """What happened to the newest revision, oldest first."""
        return self.rotations[-1].steps if self.rotations else ()

    def steps_of(self, revision: int) -> tuple[StepView, ...]:
        """Return what happened to *revision*, oldest first."""
        return next((r.steps for r in self.rotations if r.revision == revision), ())


def as_sent(known: Progress) -> Progress:
    """Return what is left of *known* for another machine: that the newest revision was sent.

    That is the platform's own word, unlike all else, and what the new machine misses is that.
    """
    for rotation in reversed(known.rotations):
        sent = tuple(step for step in rotation.steps if step.step is SlotStep.SENT)
        if sent:
            return Progress(rotations=(rotation.model_copy(update={"steps": sent}),))
    return Progress()


def is_slot_fact(event: Event) -> TypeGuard[SlotFact]:
    """Say whether `fold` understands *event*."""
    return isinstance(event, ConfigRequested | RotationStep | CredentialNeedsKey)


def slot_of(fact: SlotFact) -> tuple[str, str]:
    """Return (server, slot) of *fact*."""
    slot_id = fact.slot.slot_id if isinstance(fact, ConfigRequested) else fact.slot_id
    return fact.server_id, slot_id


def fold(known: Progress, fact: SlotFact, *, at: datetime) -> Progress:
    """Return *known* with *fact*, which the ledger took *at*.

    Stale and repeated facts change nothing, and a step of an older revision is that one's
    history: it is not progress of the newest, whatever its name.
    """
    if isinstance(fact, ConfigRequested):
        return _requested(known, fact, at)
    if (fact.incarnation, fact.n) <= (known.incarnation, known.n):
        return known
    revision = fact.revision if isinstance(fact, RotationStep) else known.revision
    step = StepView(
        step=_STEPS[type(fact)],
        revision=revision,
        at=at,
        reason=_reason(fact),
        promoted=fact.promoted if isinstance(fact, CredentialVerified) else None,
    )
    steps = _added(known.steps_of(revision), step)[-MAX_STEPS:]
    return _with(known, Rotation(revision=revision, steps=steps)).model_copy(
        update={"incarnation": fact.incarnation, "n": fact.n}
    )


def _added(steps: tuple[StepView, ...], step: StepView) -> tuple[StepView, ...]:
    """Return *steps* with *step*; a verdict that changes nothing takes the place of one before it.

    An owner may ask for one every day: what was stored and used must not be pushed out by that.
    """
    only_said = [s.step is SlotStep.VERIFIED and not s.promoted for s in (*steps[-1:], step)]
    return (*(steps[:-1] if only_said == [True, True] else steps), step)


def _requested(known: Progress, fact: ConfigRequested, at: datetime) -> Progress:
    revision = fact.slot.revision
    if revision < fact.slot.min_revision:  # nothing was sent: it was ordered to be retired
        return known
    earlier = known.steps_of(revision)
    if any(step.step is SlotStep.SENT for step in earlier):
        return known
    # The server may have been faster than this fact: it acts on the document, written first.
    sent = StepView(step=SlotStep.SENT, revision=revision, at=earlier[0].at if earlier else at)
    return _with(known, Rotation(revision=revision, steps=(sent, *earlier[1 - MAX_STEPS :])))


def _with(known: Progress, rotation: Rotation) -> Progress:
    """Return *known* with *rotation* in its place, less what is too much."""
    others = (r for r in known.rotations if r.revision != rotation.revision)
    rotations = sorted((*others, rotation), key=lambda r: r.revision)
    return known.model_copy(update={"rotations": _bounded(rotations)})


def _bounded(rotations: Sequence[Rotation]) -> tuple[Rotation, ...]:
    """Return the newest of *rotations* that are few and short enough; always the last one."""
    kept: list[Rotation] = []
    steps = 0
    for rotation in reversed(rotations[-MAX_ROTATIONS:]):
        steps += len(rotation.steps)
        if steps > MAX_ALL_STEPS:
            break
        kept.append(rotation)
    return tuple(reversed(kept))


def _reason(fact: RotationStep | CredentialNeedsKey) -> str | None:
    if isinstance(fact, CredentialVerified):
        return fact.verdict
    return getattr(fact, "reason", None)
