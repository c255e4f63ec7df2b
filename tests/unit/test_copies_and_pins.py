"""CLONE_SUSPECTED and OWNER_KEY_CHANGED: what raises, changes, reopens and ends them."""

from collections.abc import Callable
from dataclasses import replace
from datetime import timedelta
from functools import partial

import pytest

from bus_schemas.events import BannerEvent
from bus_schemas.events.banner import BannerCode, CopySign, KeyChanges
from bus_schemas.events.health import Transition
from bus_schemas.transport.ledger import Fact
from platform_handlers.banner.lifecycle import Banner, BannerKey, announcement
from platform_handlers.fingerprint import projection
from platform_handlers.fingerprint.projection import Projection
from tests.facts import BEGIN, Ledger, fold, pin

SERVER, OWNER = "acme-1", "acme"
COPY = BannerKey(SERVER, "", BannerCode.CLONE_SUSPECTED)
KEYS = BannerKey(SERVER, "", BannerCode.OWNER_KEY_CHANGED)
STALE, TWO = CopySign.STALE_DISK, CopySign.TWO_RUNNING


class World:
    """A ledger, and a projection that folds each fact as it comes."""

    def __init__(self) -> None:
        self.ledger = Ledger()
        self.state = Projection()
        self._folded = 0
        self.ledger.provisioned(SERVER, OWNER)
        self.said()

    def said(self) -> list[BannerEvent]:
        """Fold what is new and return what is announced."""
        new = self.ledger.facts[self._folded :]
        self._folded += len(new)
        events = [announcement(*moved).data for moved in fold(self.state, *new)]
        return [event for event in events if isinstance(event, BannerEvent)]

    def states(self) -> list[str]:
        """Fold what is new and return the states alone."""
        return [event.state.value for event in self.said()]

    def banner(self, key: BannerKey) -> Banner:
        """How a banner stands."""
        banner = self.state.banners.get(key)
        assert banner is not None
        return banner

    def dismiss(self, key: BannerKey) -> None:
        """The owner dismisses a banner as it stands."""
        self.ledger.dismissed(OWNER, key.banner_id, self.banner(key).revision)
        assert self.states() == ["dismissed"]


@pytest.fixture
def world() -> World:
    """One server that has enrolled."""
    return World()


def test_an_older_disk_that_asks_is_told_and_how_often_in_steps(world: World) -> None:
    """A thousand refusals are five events; the day of the last one is always right."""
    for _ in range(1000):
        world.ledger.refused(SERVER)
    events = world.said()
    assert [event.state.value for event in events] == ["raised", *["updated"] * 4]
    assert [event.copies.times for event in events if event.copies] == [1, 2, 10, 100, 1000]
    assert world.banner(COPY).times == 1000
    assert {event.copies.signs for event in events if event.copies} == {(STALE,)}


def test_an_attempt_on_another_day_is_told_once_that_day(world: World) -> None:
    """Whoever reads that it was last noticed on Monday may rely on there being none on Tuesday."""
    days = []
    for hours in (0, 23, 24, 25, 47, 72):
        fact = replace(world.ledger.refused(SERVER), stored_at=BEGIN + timedelta(hours=hours))
        moved = fold(world.state, fact)
        days += [banner.content.copies.last_on for banner, _ in moved if banner.content.copies]
    assert [day.day for day in days] == [23, 23, 24, 26]  # the second 23: it was twice by then


def test_only_a_stale_disk_and_two_machines_speak_for_a_copy(world: World) -> None:
    """Neither an evaluator from a backup nor a server that starts too often does."""
    for reason in ("generation_ahead", "too_many_unlocks"):
        world.ledger.refused(SERVER, reason)
    world.ledger.status(SERVER, OWNER, Transition.SILENT)
    world.ledger.answered(SERVER, 7)
    assert {event.code for event in world.said()} == {BannerCode.SERVER_SILENT}


def test_another_kind_of_sign_changes_the_words(world: World) -> None:
    """A copy that runs is another matter than one that was refused."""
    world.ledger.refused(SERVER)
    world.ledger.status(SERVER, OWNER, Transition.CLONED)
    raised, updated = world.said()
    assert raised.copies is not None
    assert updated.copies is not None
    assert (raised.copies.signs, updated.copies.signs) == ((STALE,), (STALE, TWO))


def test_a_dismissed_suspicion_reopens_with_the_next_sign(world: World) -> None:
    """One dismissal silences what was seen, and nothing after it; the count goes on."""
    world.ledger.refused(SERVER)
    world.said()
    world.dismiss(COPY)
    world.ledger.refused(SERVER)
    [event] = world.said()
    assert (event.state, event.copies and event.copies.times) == ("reopened", 2)


@pytest.mark.parametrize(
    "end",
    [
        partial(Ledger.approved, server_id=SERVER),
        partial(Ledger.reenrolled, server_id=SERVER, owner_id=OWNER),
        partial(Ledger.revoked, server_id=SERVER, owner_id=OWNER),
        partial(Ledger.deprovisioned, server_id=SERVER, owner_id=OWNER),
    ],
    ids=["approved", "reenrolled", "revoked", "deprovisioned"],
)
def test_what_ends_a_suspicion_is_said_also_of_a_dismissed_one(
    world: World, end: Callable[[Ledger], Fact]
) -> None:
    """The owner vouched for the copy, or no copy of this machine can come any more."""
    world.ledger.refused(SERVER)
    world.said()
    world.dismiss(COPY)
    end(world.ledger)
    assert world.states() == ["cleared"]


def test_a_normal_start_ends_no_suspicion(world: World) -> None:
    """The live server goes on booting, and whoever has a copy of its disk still has it."""
    world.ledger.refused(SERVER)
    world.ledger.answered(SERVER, 2)
    world.ledger.ticked()
    assert world.states() == ["raised"]


def test_after_its_end_a_suspicion_begins_anew(world: World) -> None:
    """Once approved, the next stale disk is the first of another case."""
    world.ledger.refused(SERVER)
    world.ledger.refused(SERVER)
    world.ledger.approved(SERVER)
    world.ledger.refused(SERVER)
    *_, cleared, raised = world.said()
    assert (cleared.state, raised.state) == ("cleared", "raised")
    assert raised.copies is not None
    assert raised.copies.times == 1


def test_nothing_is_suspected_of_servers_that_are_gone_or_unknown(world: World) -> None:
    """Nobody could ever end it."""
    world.ledger.revoked(SERVER, OWNER)
    world.ledger.refused(SERVER)
    world.ledger.refused("stranger-1")
    assert world.said() == []


def test_a_server_full_of_invented_slots_is_still_suspected(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Else a copy could hide its own discovery behind banners of its making."""
    monkeypatch.setattr(projection, "MAX_BANNERS", 1)
    world.ledger.needs_key(SERVER, slot="one")
    world.ledger.needs_key(SERVER, slot="two")
    world.ledger.refused(SERVER)
    assert [event.code for event in world.said()] == [
        BannerCode.KEY_MISSING,
        BannerCode.CLONE_SUSPECTED,
    ]


def changes(world: World) -> list[tuple[str, KeyChanges | None]]:
    """Fold what is new and return state and changes of keys."""
    return [(event.state.value, event.keys) for event in world.said()]


def keys(added: str = "", removed: str = "", passing: str = "") -> KeyChanges:
    """Changes of the owner keys with these letters."""
    return KeyChanges(
        added=tuple(map(pin, added)),
        removed=tuple(map(pin, removed)),
        passing=tuple(map(pin, passing)),
    )


def test_the_first_pins_are_the_ones_to_compare_with(world: World) -> None:
    """One of them was typed on the server's console when it joined."""
    world.ledger.pinned(SERVER, "A")
    world.ledger.pinned(SERVER, "A")
    assert changes(world) == []


def test_each_change_of_pins_is_told_with_the_keys_it_is_about(world: World) -> None:
    """Against what the owner knew, not against the last step."""
    for letters in ("A", "AB", "BC"):
        world.ledger.pinned(SERVER, letters)
    assert changes(world) == [
        ("raised", keys(added="B")),
        ("updated", keys(added="BC", removed="A")),
    ]


def test_a_key_that_came_and_went_stays_told(world: World) -> None:
    """It may have been used in between; putting the list back must not wipe the trace."""
    for letters in ("A", "AB", "A"):
        world.ledger.pinned(SERVER, letters)
    assert changes(world)[-1] == ("updated", keys(passing="B"))


def test_a_key_that_went_and_came_back_is_no_news_any_more(world: World) -> None:
    """Nobody else was ever obeyed."""
    for letters in ("AB", "A", "AB"):
        world.ledger.pinned(SERVER, letters)
    assert [state for state, _ in changes(world)] == ["raised", "cleared"]


def test_a_dismissal_makes_the_keys_known_and_the_next_change_reopens(world: World) -> None:
    """From then on only what is new against the dismissed list is told."""
    world.ledger.pinned(SERVER, "A")
    world.ledger.pinned(SERVER, "AB")
    world.said()
    world.dismiss(KEYS)
    world.ledger.pinned(SERVER, "AB")
    world.ledger.pinned(SERVER, "ABC")
    world.ledger.pinned(SERVER, "A")
    assert changes(world) == [
        ("reopened", keys(added="C")),
        ("updated", keys(removed="B", passing="C")),
    ]


def test_a_dismissal_that_was_undone_made_nothing_known(world: World) -> None:
    """The next change is told together with what is open again."""
    world.ledger.pinned(SERVER, "A")
    world.ledger.pinned(SERVER, "AB")
    world.said()
    world.dismiss(KEYS)
    world.ledger.undone(OWNER, KEYS.banner_id)
    world.ledger.pinned(SERVER, "ABC")
    assert changes(world) == [("reopened", keys(added="B")), ("updated", keys(added="BC"))]


def test_pins_that_arrive_late_change_nothing(world: World) -> None:
    """An outbox may send again what is long outdated."""
    old = world.ledger.pinned(SERVER, "A")
    world.ledger.pinned(SERVER, "AB")
    world.said()
    world.ledger.add(old.envelope.data)
    assert changes(world) == []


def test_another_machine_starts_with_pins_of_its_own_and_an_empty_vault(world: World) -> None:
    """What the old one held, obeyed, or was refused for ends; what its slots lack stays told."""
    world.ledger.provisioned("acme-2", OWNER)
    for server_id in (SERVER, "acme-2"):
        world.ledger.observed(server_id, "k1")
    for letters in ("A", "AB"):
        world.ledger.pinned(SERVER, letters)
    world.ledger.refused(SERVER)
    world.ledger.status(SERVER, OWNER, Transition.REJECTED, "main")
    world.ledger.needs_key(SERVER, slot="other")
    world.said()
    world.ledger.reenrolled(SERVER, OWNER)
    assert {(event.server_id, event.code, event.state) for event in world.said()} == {
        (SERVER, "API_KEY_REUSE", "cleared"),
        ("acme-2", "API_KEY_REUSE", "cleared"),
        (SERVER, "OWNER_KEY_CHANGED", "cleared"),
        (SERVER, "CLONE_SUSPECTED", "cleared"),
        (SERVER, "KEY_REJECTED", "cleared"),
    }
    world.ledger.pinned(SERVER, "C")
    assert changes(world) == []
    world.ledger.pinned(SERVER, "CD")
    assert changes(world) == [("raised", keys(added="D"))]


def test_a_repeated_reenrolment_takes_nothing_from_the_new_machine(world: World) -> None:
    """Its word may lie in the ledger twice; between the two the new machine may have spoken."""
    again = world.ledger.reenrolled(SERVER, OWNER)
    world.ledger.observed(SERVER, "k1")
    world.ledger.add(again.envelope.data)
    world.said()
    assert [holding.slot.server_id for holding in world.state.holders] == [SERVER]


def test_an_invented_number_silences_a_server_until_its_next_start_only(world: World) -> None:
    """The evaluator counts starts, not whoever has the nkey; its word may come twice, and late."""
    world.ledger.pinned(SERVER, "A")
    world.ledger.pinned(SERVER, "A", 2**53 - 1)
    world.ledger.reenrolled(SERVER, OWNER)
    world.ledger.unlocked("stranger-1", 1)
    world.ledger.pinned(SERVER, "B", 2)
    world.said()
    assert (world.state.dropped, world.state.servers[SERVER].pins) == (1, None)
    world.ledger.unlocked(SERVER, 2)
    world.ledger.pinned(SERVER, "B", 2)
    world.ledger.unlocked(SERVER, 2)
    late = world.ledger.pinned(SERVER, "C", 1)
    world.ledger.add(late.envelope.data)
    world.said()
    assert world.state.servers[SERVER].pins is not None
    assert world.state.dropped == 3


def test_a_revoked_server_is_back_with_another_machine(world: World) -> None:
    """And of one that nobody knows nothing is said."""
    world.ledger.revoked(SERVER, OWNER)
    world.ledger.reenrolled(SERVER, "globex")
    world.ledger.reenrolled("stranger-1", OWNER)
    world.ledger.observed(SERVER, "k1")
    world.said()
    server = world.state.servers[SERVER]
    assert (server.owner_id, server.active) == (OWNER, True)
    assert "stranger-1" not in world.state.servers
    assert world.state.dropped == 0


def test_of_very_many_passing_keys_some_are_told(world: World) -> None:
    """The list fits an event, whatever a server does; in every replay it is the same list."""
    names = [a + b for a in "ABCDEFGH" for b in "ABCDEFGHIJ"]
    for name in ("Z", *names):
        world.ledger.pinned(SERVER, [name])
    told = world.said()[-1].keys
    assert told is not None
    assert told.passing == tuple(map(pin, sorted(names[:-1])[:64]))
