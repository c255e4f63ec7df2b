"""Rotations against brute force: after any history, their banners say what the whole story says.

The story keeps every fact with its tick and is read from its beginning after each one; the
projection keeps a few numbers and looks at a slot only when it must.
"""

from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass, field
from random import Random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bus_schemas.event import Event, ServerFact
from bus_schemas.events import (
    BannerEvent,
    ClockTicked,
    ConfigRequested,
    CredentialAborted,
    CredentialInUse,
    CredentialNeedsKey,
    CredentialRejected,
    CredentialRetired,
    CredentialStored,
    CredentialVerified,
    FingerprintRenewed,
    ServerDeprovisioned,
    ServerReenrolled,
    ServerRevoked,
)
from bus_schemas.events.banner import BannerCode, BannerState, RotationNote
from bus_schemas.events.reported import RotationStep
from platform_handlers.banner.lifecycle import BannerKey
from platform_handlers.fingerprint import rotations
from tests.facts import NKEY
from tests.histories import ABOUT_ROTATIONS, HAPPENINGS, OWNER_OF, SERVERS, Happening, World

STUCK_TICKS, FIRST, LAST = 2, 3, 5
SLOTS = ("one", "two")
ENDS = (CredentialRejected, CredentialAborted, CredentialRetired)


@pytest.fixture(autouse=True, scope="module")
def small() -> Iterator[None]:
    """Make minutes and days pass quickly."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(rotations, "STUCK_TICKS", STUCK_TICKS)
        patch.setattr(rotations, "NOTICE_DAYS", (FIRST, LAST))
        patch.setattr(rotations, "_DAY", 1)
        yield


@dataclass
class Story:
    """What was told of each server's present machine, and when."""

    told: dict[str, list[tuple[int, Event]]] = field(default_factory=lambda: defaultdict(list))
    ticks: int = 0
    _minute: int = 0
    _newest: dict[str, int] = field(default_factory=lambda: dict.fromkeys(SERVERS, 0))
    _machine: dict[str, str] = field(default_factory=lambda: dict.fromkeys(SERVERS, NKEY))
    _ended: set[str] = field(default_factory=set)
    _seen: int = len(SERVERS)

    def look(self, world: World) -> None:
        """Take in what is new on the ledger."""
        for fact in world.ledger.facts[self._seen :]:
            self._take(fact.envelope.data)
        self._seen = len(world.ledger.facts)

    def _take(self, event: Event) -> None:
        server_id = getattr(event, "server_id", "")
        match event:
            case ClockTicked() if event.minute > self._minute:
                self._minute = event.minute
                self.ticks += 1
            case ServerReenrolled() if event.nkey != self._machine[server_id]:
                self._machine[server_id] = event.nkey
                self._ended.discard(server_id)
                self.told.pop(server_id, None)
            case ServerRevoked() | ServerDeprovisioned():
                self._ended.add(server_id)
                self.told.pop(server_id, None)
            case ServerFact() if server_id not in self._ended:
                if event.n > self._newest[server_id]:
                    self._newest[server_id] = event.n
                    self.told[server_id].append((self.ticks, event))
            case ConfigRequested() if server_id not in self._ended:
                if event.owner_id == OWNER_OF[server_id]:
                    self.told[server_id].append((self.ticks, event))

    def of(self, server_id: str, slot: str) -> list[tuple[int, Event]]:
        """Return what was told of one slot, or of all that a server holds."""
        return [
            (tick, event)
            for tick, event in self.told.get(server_id, [])
            if isinstance(event, FingerprintRenewed)
            or (event.slot.slot_id == slot if isinstance(event, ConfigRequested) else False)
            or getattr(event, "slot_id", None) == slot
        ]


def promotes(event: Event) -> bool:
    """Whether a revision is used from *event* on."""
    return isinstance(event, CredentialInUse) or (
        isinstance(event, CredentialVerified) and event.promoted is True
    )


def naive_stuck(story: list[tuple[int, Event]], now: int) -> RotationNote | None:
    """Say whether the newest revision that was asked for is overdue, from all that was told."""
    asked: dict[int, int] = {}
    for tick, event in story:
        if isinstance(event, ConfigRequested):
            asked.setdefault(event.slot.revision, tick)
    if not asked:
        return None
    newest = max(asked)
    steps = [event for _, event in story if isinstance(event, RotationStep)]
    over = [step.revision for step in steps if isinstance(step, ENDS) or promotes(step)]
    if max(over, default=0) >= newest or now - asked[newest] < STUCK_TICKS:
        return None
    stored = [e.revision for _, e in story if isinstance(e, CredentialStored)]
    there = max(stored, default=0) >= newest
    return RotationNote(revision=newest, waits_for="provider" if there else "server")


def naive_since(story: list[tuple[int, Event]], used: int, at: int) -> int:
    """Return when *used* was stored, if it was the newest that was stored before its use *at*."""
    stored = [(e.revision, tick) for tick, e in story[:at] if isinstance(e, CredentialStored)]
    newest = max((revision for revision, _ in stored), default=0)
    first = next((tick for revision, tick in stored if revision == newest), 0)
    return first if newest == used else story[at][0]


def ends_use(event: Event, slot: str, used: int) -> bool:
    """Whether *used* is in use no more after *event*."""
    match event:
        case CredentialRetired():
            return event.revision >= used
        case FingerprintRenewed():
            return (slot, used) not in {(held.slot_id, held.revision) for held in event.held}
        case _:
            return isinstance(event, CredentialNeedsKey)


def naive_due(story: list[tuple[int, Event]], slot: str, now: int) -> RotationNote | None:
    """Say how old the key in use is, by following what was told."""
    used, since = 0, 0
    for at, (_, event) in enumerate(story):
        if promotes(event) and isinstance(event, RotationStep) and event.revision > used:
            used, since = event.revision, naive_since(story, event.revision, at)
        elif ends_use(event, slot, used):
            used = 0
    asked = any(isinstance(event, ConfigRequested) for _, event in story)
    if not used or not asked or slot != "one" or now - since < FIRST:
        return None
    return RotationNote(revision=used, age_days=LAST if now - since >= LAST else FIRST)


def standing(world: World, server_id: str, slot: str, code: BannerCode) -> RotationNote | None:
    """Return what a banner says that stands."""
    banner = world.state.banners.get(BannerKey(server_id, slot, code))
    return banner.content.rotation if banner and banner.stands else None


def check_reopened(event: BannerEvent, earlier: BannerEvent | None) -> None:
    """Nothing but a new revision or age, or its owner, opens what was dismissed."""
    if event.state is not BannerState.REOPENED or event.rotation is None or earlier is None:
        return
    before, now = earlier.rotation, event.rotation
    assert before is not None
    undone = now == before
    assert undone or (before.revision, before.age_days) != (now.revision, now.age_days)


@pytest.mark.parametrize("happenings", [HAPPENINGS, ABOUT_ROTATIONS])
@settings(max_examples=60, deadline=None)
@given(st.randoms(use_true_random=False), st.integers(1, 150))
def test_rotation_banners_say_what_the_whole_story_says(
    happenings: list[Happening], dice: Random, length: int
) -> None:
    """After every single fact of any history, brute force comes to the same two banners."""
    world, story = World(), Story()
    for _ in range(length):
        dice.choice(happenings)(world, dice)
        story.look(world)
        for event, earlier in world.catch_up():
            check_reopened(event, earlier)
        for server_id in SERVERS:
            for slot in SLOTS:
                told = story.of(server_id, slot)
                stuck = standing(world, server_id, slot, BannerCode.ROTATION_STUCK)
                assert stuck == naive_stuck(told, story.ticks)
                due = standing(world, server_id, slot, BannerCode.ROTATION_DUE)
                assert due == naive_due(told, slot, story.ticks)
