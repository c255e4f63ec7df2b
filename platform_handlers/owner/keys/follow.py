"""What becomes of credentials that were sent: each step as the server tells it, and no sooner."""

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Final

from rich.console import Console
from rich.text import Text

from bus_schemas.api import SlotStep, SlotView, StepView
from bus_schemas.events.health import Validity
from bus_schemas.exit_codes import ExitCode
from bus_schemas.providers import Provider
from platform_handlers.owner.console import plain
from platform_handlers.owner.keys.goals import Goal, Result, result
from platform_handlers.owner.keys.rules import Phase, SlotCourse, slot_course, told_revision
from platform_handlers.owner.keys.words import reason_in_words
from platform_handlers.owner.platform_api import (
    LOOK_EVERY_SECONDS,
    PlatformApi,
    PlatformRefused,
    PlatformUnreachable,
    passing,
)

_SETTLES_SECONDS: Final = 2.0
"""How long to look for `drained` once the goal is reached: without traffic it comes at once."""

CODES: Final = {
    Result.REACHED: ExitCode.OK,
    Result.REFUSED: ExitCode.NEGATIVE,
    Result.WAITING: ExitCode.TRY_AGAIN,
    Result.UNCLEAR: ExitCode.TRY_AGAIN,
    Result.OVERTAKEN: ExitCode.TRY_AGAIN,
}


@dataclass(frozen=True)
class Sent:
    """One credential that the platform has taken."""

    server_id: str
    slot_id: str
    revision: int
    provider: Provider


@dataclass(frozen=True)
class Followed:
    """Where it stood when there was no more to wait for."""

    sent: Sent
    result: Result
    slot: SlotView | None
    """None if the platform never answered."""


Listener = Callable[[Sent, SlotView], None]


def follow(
    platform: PlatformApi,
    sent: Sequence[Sent],
    goal: Goal,
    wait: float,
    hear: Listener = lambda _sent, _slot: None,
) -> list[Followed]:
    """Look until each has reached *goal*, cannot any more, or *wait* seconds are over."""
    deadline = time.monotonic() + wait
    found: dict[str, Followed] = {}
    while True:
        for each in sent:
            before = found.get(each.server_id)
            if before is None or before.result in {Result.WAITING, Result.UNCLEAR}:
                found[each.server_id] = _look(platform, each, goal, before, hear)
        undecided = {Result.WAITING, Result.UNCLEAR} & {one.result for one in found.values()}
        if not undecided or time.monotonic() >= deadline:
            return list(found.values())
        time.sleep(LOOK_EVERY_SECONDS)


def settled(
    platform: PlatformApi,
    followed: Sequence[Followed],
    wait: float,
    hear: Listener = lambda _sent, _slot: None,
) -> list[Followed]:
    """Return the same, with `drained` if that comes at once: then the old key may be revoked."""
    current = [one.sent for one in followed if one.slot and _is_current(one.slot)]
    looked = follow(platform, current, Goal.DRAINED, min(wait, _SETTLES_SECONDS), hear)
    later = {one.sent.server_id: one.slot for one in looked}
    return [replace(one, slot=later.get(one.sent.server_id, one.slot)) for one in followed]


def _is_current(slot: SlotView) -> bool:
    return slot_course(slot).latest.phase is Phase.CURRENT


def _look(
    platform: PlatformApi, sent: Sent, goal: Goal, before: Followed | None, hear: Listener
) -> Followed:
    try:
        slot = platform.slot(sent.server_id, sent.slot_id)
    except (PlatformUnreachable, PlatformRefused) as error:
        if not passing(error):
            raise
        return before or Followed(sent, Result.WAITING, None)
    if told_revision(slot) == sent.revision:
        hear(sent, slot)
    return Followed(sent, result(slot, sent.revision, goal), slot)


class Teller:
    """Says each step of one credential once, as it comes."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._told = 0

    def hear(self, sent: Sent, slot: SlotView) -> None:
        """Say the steps of *slot* that were not said yet."""
        for step in slot.steps[self._told :]:
            line = _line(step, sent)
            if line is not None:
                self._console.print(Text.assemble((f"{line[0]:<10}", "bold"), line[1]))
        self._told = max(self._told, len(slot.steps))


_LINES: Final = {
    SlotStep.STORED: ("stored", "on the server, encrypted; not in use yet"),
    SlotStep.DRAINED: ("drained", "no call with an older key waits any more"),
    SlotStep.RETIRED: ("retired", "an order took it out of use for good"),
}


def _line(step: StepView, sent: Sent) -> tuple[str, str] | None:
    name = sent.provider.name
    match step.step:
        case SlotStep.VERIFIED:
            return "verified", _verified(step, name)
        case SlotStep.IN_USE:
            return "in use", f"{name} has answered a call made with it"
        case SlotStep.REJECTED:
            return "refused", f"nothing else has changed. {_reason(step)}"
        case SlotStep.ABORTED:
            return "given up", f"nothing else has changed. {_reason(step)}"
    return _LINES.get(step.step)  # `sent` was said already, and `needs-key` is no news of this one


_SAYS: Final[Mapping[str | None, str]] = {
    Validity.VALID: "accepts it",
    Validity.LIMITED: "accepts it, within a limit (quota, rate or balance)",
    Validity.INVALID: "does not accept it",
}


def _verified(step: StepView, name: str) -> str:
    says = _SAYS.get(step.reason)
    if step.promoted:
        return f"{f'{name} {says}' if says else 'untested, by your order'}; used from now on"
    return f"{name} {says}" if says else f"{name}'s answer was unclear; the server asks again"


def _reason(step: StepView) -> str:
    return plain(reason_in_words(step.reason or "unknown"))


def told_in_full(platform: PlatformApi, followed: Followed) -> SlotCourse | None:
    """Return what became of the slot, older revisions too; None if the platform does not say."""
    sent = followed.sent
    if followed.slot is None:
        return None
    try:
        return slot_course(followed.slot, platform.history(sent.server_id, sent.slot_id))
    except (PlatformUnreachable, PlatformRefused):
        return slot_course(followed.slot)
