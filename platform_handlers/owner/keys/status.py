"""What `byok key status` and `byok key history` show, as tables and as JSON. Pure.

Left to others: reading it all from the platform. What a table says never depends on a colour.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Final

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from bus_schemas.api import ServerView, SlotHistory, SlotView
from bus_schemas.events.health import Receipt, Validity
from bus_schemas.fields import CredentialKind
from bus_schemas.keys import in_fours, server_fingerprint
from bus_schemas.providers import Provider, load_providers
from platform_handlers.owner.console import columns, plain
from platform_handlers.owner.halted import Halted
from platform_handlers.owner.keys.rules import (
    Age,
    Claim,
    Phase,
    SlotCourse,
    age,
    claim,
    slot_course,
)
from platform_handlers.owner.keys.words import (
    claim_in_words,
    health_in_words,
    reason_in_words,
    state_in_words,
    step_in_words,
    verdict_in_words,
)

_BAD: Final = frozenset({Phase.REFUSED, Phase.ABORTED, Phase.LOST, Phase.RETIRED})


@dataclass(frozen=True)
class ServerStatus:
    """One server with all that is known of its slots."""

    server: ServerView
    pinned: str | None
    """The fingerprint that its owner has compared."""
    halts: Halted
    histories: Mapping[str, SlotHistory]
    """By slot."""
    now: datetime

    def course(self, slot: SlotView) -> SlotCourse:
        """Return what became of the revisions of *slot*."""
        return slot_course(slot, self.histories.get(slot.slot_id))

    def stopped(self, slot: SlotView) -> bool:
        """Whether an order forbids the use of *slot*; its answer is newer than a report."""
        return self.halts.stopped.get(slot.slot_id, bool(slot.stopped))

    @property
    def locked(self) -> bool:
        """Whether an order keeps the server locked."""
        return bool(self.server.locked if self.halts.locked is None else self.halts.locked)


def overview(servers: Sequence[ServerStatus]) -> RenderableType:
    """Return one line for each slot of each server."""
    table = columns("Server", "Slot", "In use", "Newest", "State")
    for status in servers:
        name = status.server.server_id
        if not status.server.slots:
            table.add_row(name, "", "", "", "no credentials yet")
        for slot in status.server.slots:
            course = status.course(slot)
            state = Text(plain(_state(status, slot, course)))
            table.add_row(name, slot.slot_id, _number(course.in_use), _number(course.newest), state)
    return table


def server_status(status: ServerStatus, only: str | None = None) -> RenderableType:
    """Return a block for each slot of one server, or for the one called *only*."""
    server = status.server
    parts: list[RenderableType] = [Text(f"{server.server_id}: {_trust(server, status.pinned)}")]
    if not server.active:
        parts.append(Text("revoked by the platform: it gets no credentials", style="red"))
    if status.locked:
        lift = f"byok server unlock {server.server_id}"
        parts.append(Text(f"locked: it opens and uses nothing, until `{lift}`", style="red"))
    if server.reported_at:
        parts.append(Text(f"last report: {_moment(server.reported_at)}"))
    if server.health:
        parts.append(Text(f"health: {health_in_words(server.health)}"))
    if not server.slots:
        parts.append(f"No credentials yet; `byok key set {server.server_id} SLOT` sends one.")
    for slot in server.slots:
        if only in {None, slot.slot_id}:
            parts += ["", _slot_block(status, slot)]
    return Group(*parts)


def _slot_block(status: ServerStatus, slot: SlotView) -> RenderableType:
    course, provider = status.course(slot), load_providers().get(slot.provider)
    name = provider.name if provider else slot.provider
    kind = "sign-in" if slot.kind is CredentialKind.OAUTH else "API key"
    table = Table.grid(padding=(0, 2, 0, 0))
    table.add_column(no_wrap=True)
    table.add_column(overflow="fold")
    bad = status.stopped(slot) or course.latest.phase in _BAD
    state = plain(_state(status, slot, course))
    table.add_row("state", Text(state, style="red" if bad else ""))
    table.add_row("in use", _in_use(slot, course))
    if course.pending:
        table.add_row("pending", f"revision {course.pending}: it waits for the provider's word")
    table.add_row("receipt", _receipt(slot.receipt))
    if found := _age(age(course, now=status.now), slot):
        table.add_row("age", found)
    table.add_row("old key", _old_key(course, provider))
    table.add_row("", "")
    for step in slot.steps:
        table.add_row(step.step.value, Text(f"{_moment(step.at)}  {plain(step_in_words(step))}"))
    heading = Text.assemble((slot.slot_id, "bold"), f"  {plain(name)}, {kind}")
    return Group(heading, table)


def _state(status: ServerStatus, slot: SlotView, course: SlotCourse) -> str:
    words = f"revision {course.newest}: {state_in_words(course.latest)}"
    if status.stopped(slot):
        lift = f"byok key resume {status.server.server_id} {slot.slot_id}"
        words = f"stopped, until `{lift}`; {words}"
    return words


def _in_use(slot: SlotView, course: SlotCourse) -> str:
    if not course.in_use:
        return "none"
    used = course.by_revision.get(course.in_use)
    # The report speaks of the revision it names; the ledger of each its own.
    validity = slot.validity if slot.in_use == course.in_use else None
    if used and used.forced and validity in {None, Validity.UNKNOWN}:
        return f"revision {course.in_use}, untested, by your order"
    verdict = validity or (used.verdict if used else None)
    why = f". {plain(reason_in_words(slot.reason))}" if validity and slot.reason else ""
    return f"revision {course.in_use}: {verdict_in_words(verdict)}{why}"


def _receipt(receipt: Receipt | None) -> str:
    if receipt is None:
        return "none yet: the agent has made no call since the server's start"
    tag = f", tag {receipt.short_tag}" if receipt.short_tag else ""
    return (
        f"revision {receipt.revision}{tag}: the provider answered {receipt.provider_status} at "
        f"{_moment(receipt.at)}"
    )


def _age(found: Age | None, slot: SlotView) -> str | None:
    if found is None:
        return None
    days = f"{found.days} day{'' if found.days == 1 else 's'}"
    if slot.kind is CredentialKind.OAUTH:
        return f"{days}; the server renews it by itself"
    if found.overdue:
        return f"{days}; due for rotation since {found.due:%Y-%m-%d}"
    return f"{days}; rotation is due on {found.due:%Y-%m-%d}"


def _old_key(course: SlotCourse, provider: Provider | None) -> str:
    about = claim(course)
    words = claim_in_words(about, course)
    links = {Claim.MAY_BE_REVOKED, Claim.NOTHING_IN_USE}
    return f"{words}\n{provider.links.revoke}" if provider and about in links else words


def history_table(history: SlotHistory) -> RenderableType:
    """Return the newest rotations of one slot, oldest first."""
    if not history.rotations:
        return f"Nothing was sent to {history.server_id}/{history.slot_id} yet."
    table = columns("Rev.", "When", "Step", "", unbroken={"When"})
    for rotation in history.rotations:
        for n, step in enumerate(rotation.steps):
            label = str(rotation.revision) if n == 0 else ""
            words = Text(plain(step_in_words(step)))
            table.add_row(label, _moment(step.at), step.step.value, words)
    return table


def as_json(servers: Sequence[ServerStatus], only: str | None = None) -> str:
    """Return the same as the API, and what is concluded from it."""
    return json.dumps({"servers": [_server_json(status, only) for status in servers]}, indent=2)


def _server_json(status: ServerStatus, only: str | None) -> dict[str, object]:
    shown = status.server.model_dump(mode="json", exclude={"slots", "sealing_key"})
    slots = [slot for slot in status.server.slots if only in {None, slot.slot_id}]
    return shown | {
        "pinned": status.pinned,
        "locked": status.locked,
        "slots": [_slot_json(status, slot) for slot in slots],
    }


def _slot_json(status: ServerStatus, slot: SlotView) -> dict[str, object]:
    course = status.course(slot)
    found = age(course, now=status.now)
    return slot.model_dump(mode="json") | {
        "stopped": status.stopped(slot),
        "revision_in_use": course.in_use,
        "revision_pending": course.pending,
        "state": course.latest.phase.value,
        "previous_key": claim(course).value,
        "age_days": found.days if found else None,
        "rotation_due": found.due.date().isoformat() if found else None,
    }


def _trust(server: ServerView, pinned: str | None) -> str:
    if server.identity_key is None:
        return "has not joined yet"
    offered = server_fingerprint(server.server_id, server.identity_key)
    if pinned is None:
        return f"the platform says {in_fours(offered)}; not compared with its console yet"
    if pinned == offered:
        return f"{in_fours(offered)}, as you pinned it"
    return f"NOT the server you pinned ({in_fours(pinned)}); send it nothing"


def _moment(at: datetime) -> str:
    return f"{at:%Y-%m-%d %H:%M:%S} UTC"


def _number(revision: int) -> str:
    return str(revision) if revision else "none"
