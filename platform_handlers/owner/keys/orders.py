"""Orders about one revision of a slot: which revision is meant, and what came of the order."""

import time
from dataclasses import dataclass
from typing import Final

from rich.console import Console
from rich.text import Text

from bus_schemas.api import SlotStep, SlotView, StepView
from bus_schemas.errors import ContractError
from bus_schemas.events.health import Validity
from bus_schemas.exit_codes import ExitCode
from bus_schemas.orders import Instruction, OrderKind
from platform_handlers.owner.console import Failed, plain
from platform_handlers.owner.home import Home
from platform_handlers.owner.keys.rules import SlotCourse, rotation_of, slot_course
from platform_handlers.owner.keys.words import step_in_words
from platform_handlers.owner.ordering import Ordering, give_orders
from platform_handlers.owner.platform_api import (
    LOOK_EVERY_SECONDS,
    PlatformApi,
    PlatformRefused,
    PlatformUnreachable,
    passing,
)

_CODES: Final = {
    Validity.VALID.value: ExitCode.OK,
    Validity.LIMITED.value: ExitCode.OK,
    Validity.INVALID.value: ExitCode.NEGATIVE,
}


@dataclass(frozen=True)
class Slot:
    """One slot of one server."""

    server_id: str
    slot_id: str

    def __str__(self) -> str:
        return f"{self.server_id}/{self.slot_id}"

    @property
    def words(self) -> str:
        """As arguments of a command."""
        return f"{self.server_id} {self.slot_id}"


@dataclass(frozen=True)
class Desk:
    """Where an owner sits while orders about one slot are given."""

    platform: PlatformApi
    home: Home
    console: Console
    slot: Slot
    wait: float
    """Seconds to wait for an answer."""

    def look(self) -> tuple[SlotView, SlotCourse]:
        """Return the slot and what became of its revisions. Raises PlatformRefused for none."""
        at = self.slot
        view = self.platform.slot(at.server_id, at.slot_id)
        return view, slot_course(view, self.platform.history(at.server_id, at.slot_id))

    def steps(self, revision: int) -> tuple[StepView, ...]:
        """Return what the server has told of *revision*."""
        at = self.slot
        rotation = rotation_of(self.platform.history(at.server_id, at.slot_id), revision)
        return rotation.steps if rotation else ()

    def order(self, kind: OrderKind, revision: int) -> ExitCode:
        """Order *kind* about *revision*, and say what the server answers."""
        what = Instruction(kind, slot_id=self.slot.slot_id, argument=str(revision))
        ordering = Ordering((self.slot.server_id,), what, self.wait)
        return give_orders(self.platform, self.home, ordering, self.console)


def verify(desk: Desk, *, force: bool) -> ExitCode:
    """Have the server ask the provider now, or use the pending revision untested by *force*."""
    _, course = desk.look()
    revision = course.pending if force else course.held
    if not revision:
        raise Failed(_nothing_to_verify(course, desk.slot), ExitCode.NEGATIVE)
    before = _last_verdict(desk.steps(revision))
    deadline = time.monotonic() + desk.wait
    code = desk.order(OrderKind.PROMOTE if force else OrderKind.VERIFY, revision)
    if force or code is not ExitCode.OK:
        return code
    said = _next_verdict(desk, revision, before, deadline)
    if said is None:
        words = desk.slot.words
        desk.console.print(f"The provider's answer is not there yet; `byok key status {words}`.")
        return ExitCode.TRY_AGAIN
    desk.console.print(Text(f"revision {revision}: {plain(step_in_words(said))}"))
    code = _CODES.get(said.reason or "", ExitCode.TRY_AGAIN)
    _advise(code, desk, pending=revision == course.pending)
    return code


def _nothing_to_verify(course: SlotCourse, at: Slot) -> str:
    if course.in_use:
        return f"nothing of {at} waits for the provider's word; revision {course.in_use} is in use"
    return f"{at} holds no credential; `byok key set {at.words}` sends one"


def _last_verdict(steps: tuple[StepView, ...]) -> StepView | None:
    said = [step for step in steps if step.step is SlotStep.VERIFIED]
    return said[-1] if said else None


def _next_verdict(
    desk: Desk, revision: int, before: StepView | None, deadline: float
) -> StepView | None:
    """Wait for a verdict that is not *before*; None if none came in time."""
    with desk.console.status(f"waiting for {desk.slot.server_id} to hear from the provider"):
        while True:
            try:
                said = _last_verdict(desk.steps(revision))
            except (PlatformUnreachable, PlatformRefused) as error:
                if not passing(error):
                    raise
                said = before
            if said != before:
                return said
            if time.monotonic() >= deadline:
                return None
            time.sleep(LOOK_EVERY_SECONDS)


def _advise(code: ExitCode, desk: Desk, *, pending: bool) -> None:
    words = desk.slot.words
    if code is ExitCode.NEGATIVE:
        what = "It is not used" if pending else "It is still the one in use"
        desk.console.print(f"{what}; `byok key set {words}` sends another one.")
    if code is ExitCode.TRY_AGAIN and pending:
        desk.console.print(
            f"It is not in use. `byok key verify --force {words}` has it used untested, "
            f"`byok key abort {words}` gives it up."
        )


def abort(desk: Desk) -> ExitCode:
    """Have the server give the pending revision up."""
    _, course = desk.look()
    if not course.pending:
        sentence = f"nothing of {desk.slot} waits for the provider's word: nothing to give up"
        raise Failed(sentence, ExitCode.NEGATIVE)
    return desk.order(OrderKind.ABORT, course.pending)


def to_retire(course: SlotCourse, asked: int | None) -> int:
    """Return the revision to retire, with all before it: *asked*, or the newest one sealed.

    That may be one that the server has not fetched yet: it never will. Raises ContractError
    (`unknown_revision`). Pure.
    """
    if asked is not None and asked > course.newest:
        detail = f"there is no revision {asked}, the newest is {course.newest}"
        raise ContractError("unknown_revision", detail)
    return asked or course.newest


def what_goes(course: SlotCourse, revision: int) -> str:
    """Return in words what retiring *revision* takes away. Pure."""
    goes = [f"revision {revision}, and all before it, is never used again"]
    if 0 < course.in_use <= revision:
        goes.append("the agent has no key here until you send a new one")
    elif course.in_use:
        goes.append(f"revision {course.in_use} stays in use")
    if 0 < course.pending <= revision and course.in_use:
        keep = f"--revision {course.pending - 1} keeps it"
        goes.append(f"revision {course.pending}, which waits for its test, goes as well ({keep})")
    return "; ".join(goes)
