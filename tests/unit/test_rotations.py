"""When an owner is told that a rotation is stuck, or that one is due."""

import pytest

from bus_schemas.codec import decode, encode
from bus_schemas.events import (
    BannerRaised,
    CredentialAborted,
    CredentialInUse,
    CredentialRejected,
    CredentialRetired,
    CredentialVerified,
)
from bus_schemas.events.banner import BannerCode, RotationNote
from bus_schemas.fields import CredentialKind
from platform_handlers.banner.lifecycle import Banner, BannerKey, announcement
from platform_handlers.fingerprint import projection, rotation_book, rotations
from platform_handlers.fingerprint.holders import SlotKey
from platform_handlers.fingerprint.projection import Projection
from platform_handlers.fingerprint.rotation_book import Rotations
from platform_handlers.fingerprint.rotations import NOTHING, Mark, Rotation, next_look
from tests.facts import Ledger, fold

DAY = 3
"""Ticks, in these tests."""
FIRST, LAST = 83 * DAY, 90 * DAY
SERVER, SLOT = "acme-1", SlotKey("acme-1", "main")
STUCK, DUE = BannerCode.ROTATION_STUCK, BannerCode.ROTATION_DUE


@pytest.fixture(autouse=True)
def short_days(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let a day be a few ticks long."""
    monkeypatch.setattr(rotations, "_DAY", DAY)


class World:
    """A ledger about acme-1 and a projection that folds each fact as it comes."""

    def __init__(self) -> None:
        self.ledger, self.state = Ledger(), Projection()
        self._folded = 0
        self.ledger.provisioned(SERVER, "acme")

    def told(self) -> list[tuple[str, str]]:
        """Fold what is new and return (code, state) of each event."""
        new = self.ledger.facts[self._folded :]
        self._folded += len(new)
        return [(b.key.code.value, b.state.value) for b, _ in fold(self.state, *new)]

    def pass_ticks(self, count: int) -> list[tuple[str, str]]:
        """Let so many minutes pass, one fact each."""
        for _ in range(count):
            self.ledger.ticked()
        return self.told()

    def send(self, revision: int = 1, kind: CredentialKind = CredentialKind.API_KEY) -> None:
        """Have the platform take a sealed credential in."""
        self.ledger.requested(SERVER, "acme", revision=revision, kind=kind)

    def use(self, revision: int = 1, kind: CredentialKind = CredentialKind.API_KEY) -> None:
        """Have a revision sent, stored and promoted."""
        self.send(revision, kind)
        self.ledger.stored(SERVER, revision=revision)
        self.ledger.promoted(SERVER, revision=revision)
        self.told()

    def banner(self, code: BannerCode) -> Banner:
        """How a banner stands."""
        banner = self.state.banners.get(BannerKey(SERVER, "main", code))
        assert banner is not None
        return banner

    def note(self, code: BannerCode) -> RotationNote:
        """What a banner says."""
        note = self.banner(code).content.rotation
        assert note is not None
        return note

    def dismiss(self, code: BannerCode) -> None:
        """The owner dismisses a banner as it stands."""
        banner = self.banner(code)
        self.ledger.dismissed("acme", banner.key.banner_id, banner.revision)
        assert self.told() == [(code.value, "dismissed")]


@pytest.fixture
def world() -> World:
    """One server, of which nothing is known yet."""
    return World()


# --- stuck ---


def test_a_rotation_that_does_not_end_is_told_after_fifteen_ticks(world: World) -> None:
    """Not a minute before, once, and with the one whose answer is missing."""
    world.send(4)
    assert world.pass_ticks(14) == []
    assert world.pass_ticks(1) == [("ROTATION_STUCK", "raised")]
    assert world.note(STUCK) == RotationNote(revision=4, waits_for="server")
    assert world.pass_ticks(100) == []
    world.ledger.stored(SERVER, revision=4)
    assert world.told() == [("ROTATION_STUCK", "updated")]
    assert world.note(STUCK).waits_for == "provider"
    world.ledger.promoted(SERVER, revision=4)
    assert world.told() == [("ROTATION_STUCK", "cleared")]


def end_by(world: World, how: str) -> None:
    """Put the end of revision 4 on the ledger."""
    ledger = world.ledger
    match how:
        case "promoted":
            ledger.promoted(SERVER, revision=4, verdict="unknown")
        case "in-use":
            ledger.step(CredentialInUse, SERVER, revision=4, provider_status=200)
        case "rejected":
            ledger.step(CredentialRejected, SERVER, revision=4, reason="bad_signature")
        case "aborted":
            ledger.step(CredentialAborted, SERVER, revision=4, reason="aborted_by_owner")
        case "retired":
            ledger.step(CredentialRetired, SERVER, revision=4)
        case "superseded":
            world.send(5)
        case "revoked":
            ledger.revoked(SERVER, "acme")
        case "deprovisioned":
            ledger.deprovisioned(SERVER, "acme")
        case _:
            ledger.reenrolled(SERVER, "acme")


ENDS = [
    "promoted",
    "in-use",
    "rejected",
    "aborted",
    "retired",
    "superseded",
    "revoked",
    "deprovisioned",
    "reenrolled",
]


@pytest.mark.parametrize("how", ENDS)
def test_every_end_of_a_rotation_clears_it(world: World, how: str) -> None:
    """Whoever ends it: the server, the provider, the owner, or the end of the machine."""
    world.send(4)
    world.pass_ticks(15)
    end_by(world, how)
    assert world.told() == [("ROTATION_STUCK", "cleared")]
    assert world.pass_ticks(14) == []


@pytest.mark.parametrize("how", [end for end in ENDS if end != "superseded"])
def test_what_ended_in_time_is_never_told(world: World, how: str) -> None:
    """Also if the platform's word of it comes late, or once more: the server may be faster."""
    if how in {"revoked", "deprovisioned", "reenrolled"}:
        world.send(4)
        end_by(world, how)
    else:
        end_by(world, how)
        world.send(4)
        world.send(4)
    assert world.pass_ticks(40) == []


def test_what_is_retired_before_any_server_took_it_is_over(world: World) -> None:
    """No server tells of a revision that it never had: else it would be stuck for ever."""
    world.send(4)
    world.pass_ticks(15)
    world.ledger.requested(SERVER, "acme", revision=4, min_revision=5)
    assert world.told() == [("ROTATION_STUCK", "cleared")]
    assert world.pass_ticks(40) == []
    world.ledger.requested(SERVER, "acme", revision=6, min_revision=5)
    assert world.pass_ticks(15) == [("ROTATION_STUCK", "raised")]


def test_a_verdict_that_promotes_nothing_ends_nothing(world: World) -> None:
    """The provider could not be asked, or said something that nobody documented."""
    world.send(1)
    world.ledger.stored(SERVER)
    world.ledger.step(CredentialVerified, SERVER, verdict="unknown")
    assert world.pass_ticks(15) == [("ROTATION_STUCK", "raised")]


def test_the_wait_is_counted_from_the_first_word(world: World) -> None:
    """A sealing that is sent again, because its answer got lost, is the same rotation."""
    world.send()
    world.pass_ticks(10)
    world.send()
    assert world.pass_ticks(5) == [("ROTATION_STUCK", "raised")]


def test_a_dismissed_one_comes_back_for_another_revision_only(world: World) -> None:
    """That it waits for somebody else by now is the same matter."""
    world.send(1)
    world.pass_ticks(15)
    world.dismiss(STUCK)
    world.ledger.stored(SERVER)
    assert world.told() == [("ROTATION_STUCK", "dismissed")]
    assert world.note(STUCK).waits_for == "provider"
    world.send(2)
    assert world.told() == [("ROTATION_STUCK", "cleared")]
    assert world.pass_ticks(15) == [("ROTATION_STUCK", "raised")]
    assert world.note(STUCK).revision == 2


def test_what_is_told_is_read_back_whole(world: World) -> None:
    """Also by a reader that refuses every field it does not know."""
    world.send(4)
    world.pass_ticks(14)
    world.ledger.ticked()
    [(banner, cause)] = fold(world.state, world.ledger.facts[-1])
    envelope = announcement(banner, cause)
    read = decode(encode(envelope), envelope.data.subject, strict=True)
    assert read == envelope
    assert isinstance(read.data, BannerRaised)
    assert read.data.rotation == RotationNote(revision=4, waits_for="server")
    assert (read.data.severity, read.data.colour) == ("high", "amber")


# --- due ---


def test_a_key_is_due_at_eighty_three_days_and_again_at_ninety(world: World) -> None:
    """Counted since it was stored; dismissed at first, it comes back once, and stays then."""
    world.use()
    assert world.pass_ticks(FIRST - 1) == []
    assert world.pass_ticks(1) == [("ROTATION_DUE", "raised")]
    assert world.note(DUE) == RotationNote(revision=1, age_days=83)
    world.dismiss(DUE)
    assert world.pass_ticks(LAST - FIRST - 1) == []
    assert world.pass_ticks(1) == [("ROTATION_DUE", "reopened")]
    assert world.note(DUE).age_days == 90
    world.dismiss(DUE)
    assert world.pass_ticks(2 * LAST) == []


def test_one_that_nobody_dismissed_is_updated(world: World) -> None:
    """It stands all the time, and says how old the key is by now."""
    world.use()
    assert world.pass_ticks(LAST) == [("ROTATION_DUE", "raised"), ("ROTATION_DUE", "updated")]


def test_a_newer_key_in_use_clears_it_and_is_due_in_its_turn(world: World) -> None:
    """Sending and storing one does not: the old one is still in use."""
    world.use()
    world.pass_ticks(FIRST)
    world.dismiss(DUE)
    world.send(2)
    world.ledger.stored(SERVER, revision=2)
    assert world.told() == []
    world.pass_ticks(2)
    world.ledger.promoted(SERVER, revision=2)
    assert world.told() == [("ROTATION_DUE", "cleared")]
    world.ledger.step(CredentialRetired, SERVER, revision=1)
    assert world.pass_ticks(FIRST - 3) == []
    assert world.pass_ticks(1) == [("ROTATION_DUE", "raised")]
    assert world.note(DUE).revision == 2


@pytest.mark.parametrize("how", ["retired", "not listed", "missing", "revoked", "reenrolled"])
def test_what_is_not_used_any_more_is_not_due(world: World, how: str) -> None:
    """It was retired, the server lists it no longer or wants a key, or the machine is gone."""
    world.use()
    world.pass_ticks(FIRST)
    match how:
        case "retired":
            world.ledger.step(CredentialRetired, SERVER)
        case "not listed":
            world.ledger.renewed(SERVER, ("other", 1), ("main", 2))
        case "missing":
            world.ledger.needs_key(SERVER)
        case "revoked":
            world.ledger.revoked(SERVER, "acme")
        case _:
            world.ledger.reenrolled(SERVER, "acme")
    assert ("ROTATION_DUE", "cleared") in world.told()
    assert world.pass_ticks(LAST) == []


def test_a_key_that_is_still_listed_stays_due(world: World) -> None:
    """A server lists what it holds every day."""
    world.use()
    world.pass_ticks(FIRST)
    world.ledger.renewed(SERVER, ("main", 1))
    assert world.told() == []


def test_a_sign_in_is_never_due(world: World) -> None:
    """It is renewed by the server itself, many times a day."""
    world.use(kind=CredentialKind.OAUTH)
    assert world.pass_ticks(2 * LAST) == []


def test_an_old_key_that_is_used_only_now_is_due_at_once(world: World) -> None:
    """Its age counts from when it was stored: so long it has lain about."""
    world.send()
    world.ledger.stored(SERVER)
    world.pass_ticks(FIRST)
    world.ledger.promoted(SERVER, verdict="unknown")
    assert world.told() == [("ROTATION_DUE", "raised"), ("ROTATION_STUCK", "cleared")]


def test_the_platforms_word_may_come_after_the_servers(world: World) -> None:
    """Only then it is known that it was a key; what was stored and used is known already."""
    world.ledger.stored(SERVER)
    world.ledger.promoted(SERVER)
    world.pass_ticks(5)
    world.send()
    assert world.pass_ticks(FIRST - 5) == [("ROTATION_DUE", "raised")]
    late = World()
    late.ledger.promoted(SERVER)  # and what it stored before that never came
    late.send()
    assert late.pass_ticks(FIRST) == [("ROTATION_DUE", "raised")]


def test_a_slot_that_changes_its_kind_is_due_for_what_is_in_use(world: World) -> None:
    """A sign-in that was turned down does not make the key before it young."""
    world.use(1)
    world.send(2, CredentialKind.OAUTH)
    world.ledger.stored(SERVER, revision=2)
    world.ledger.step(CredentialRejected, SERVER, revision=2, reason="refused_by_provider")
    assert world.pass_ticks(FIRST) == [("ROTATION_DUE", "raised")]
    world.use(3, CredentialKind.OAUTH)
    assert world.pass_ticks(2 * LAST) == []


def test_what_is_told_late_of_an_older_revision_changes_nothing(world: World) -> None:
    """A receipt, a retirement or a store of the one before, after the newer is in use."""
    world.use(1)
    world.use(2)
    before = world.state.rotations.get(SLOT)
    world.ledger.step(CredentialInUse, SERVER, revision=1, provider_status=200)
    world.ledger.stored(SERVER, revision=1)
    world.ledger.step(CredentialRetired, SERVER, revision=1)
    assert world.told() == []
    assert world.state.rotations.get(SLOT) == before


# --- who may say what, and what it costs ---


def test_only_the_owners_own_request_counts(world: World) -> None:
    """One that names a server that is unknown, gone or another owner's is not followed."""
    world.ledger.requested(SERVER, "globex")
    world.ledger.requested("stranger-1", "acme")
    world.ledger.provisioned("acme-2", "acme")
    world.ledger.revoked("acme-2", "acme")
    world.ledger.requested("acme-2", "acme")
    assert world.pass_ticks(20) == []
    assert list(world.state.rotations) == []


def test_a_server_that_invents_slots_is_followed_up_to_a_number(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And what its owner sends is followed all the same, whatever else it has invented."""
    monkeypatch.setattr(rotation_book, "MAX_ROTATIONS", 5)
    monkeypatch.setattr(projection, "MAX_BANNERS", 5)
    for slot in range(9):
        world.ledger.promoted(SERVER, slot=f"s-{slot}")
        world.ledger.needs_key(SERVER, slot=f"t-{slot}")
    world.told()
    assert len(world.state.rotations.of_server(SERVER)) == 5
    world.send()
    assert world.pass_ticks(15) == [("ROTATION_STUCK", "raised")]


def test_what_says_nothing_new_leaves_nothing_behind(world: World) -> None:
    """A server that wants a key for a slot of which nothing is known, and one that is gone."""
    world.ledger.needs_key(SERVER)
    world.told()
    assert list(world.state.rotations) == []
    book = Rotations()
    book.put(SLOT, Rotation(asked=Mark(1, 0, ages=True)), 0)
    book.put(SlotKey(SERVER, "other"), Rotation(ended=1), 0)
    assert book.forget(SERVER, 1) == [SLOT, SlotKey(SERVER, "other")]
    assert (book, book.due(15), book.forget(SERVER, 1)) == (Rotations(), [], [])


def test_a_use_that_nobody_asked_for_leaves_nothing_once_it_ends(world: World) -> None:
    """A server that promotes, then wants a key: only that the rotation is over is remembered."""
    world.ledger.promoted(SERVER)
    world.ledger.needs_key(SERVER)
    world.told()
    assert dict(world.state.rotations) == {SLOT: Rotation(ended=1)}


def test_a_tick_looks_at_the_slots_that_are_listed_for_it_and_no_others() -> None:
    """A million slots cost a minute nothing in which there is nothing to say of them."""
    book = Rotations()
    for number in range(1000):
        book.put(SlotKey("acme-1", f"s-{number}"), Rotation(asked=Mark(1, number)), number)
    assert [len(book.due(tick)) for tick in (14, 15, 15, 16)] == [0, 1, 0, 1]


@pytest.mark.parametrize(
    ("rotation", "tick", "look"),
    [
        (NOTHING, 0, None),
        (Rotation(asked=Mark(2, 7)), 7, 22),
        (Rotation(asked=Mark(2, 7)), 22, None),
        (Rotation(asked=Mark(2, 7), ended=2), 7, None),
        (Rotation(used=Mark(2, 7, ages=True)), 7, 7 + FIRST),
        (Rotation(used=Mark(2, 7, ages=True)), 7 + FIRST, 7 + LAST),
        (Rotation(used=Mark(2, 7, ages=True)), 7 + LAST, None),
        (Rotation(used=Mark(2, 7)), 7, None),
        (Rotation(asked=Mark(2, FIRST), used=Mark(1, 7, ages=True)), FIRST, 7 + FIRST),
    ],
)
def test_each_slot_is_listed_for_the_next_tick_that_matters(
    rotation: Rotation, tick: int, look: int | None
) -> None:
    """Fifteen ticks after it was sent while it is open; two ages of a key in use."""
    assert next_look(rotation, tick) == look


def test_other_facts_move_no_rotation() -> None:
    """Time, for one, is nobody's step."""
    event = Ledger().ticked().envelope.data
    assert rotations.slot_of(event) is None
    assert rotations.after(NOTHING, event, 1) is NOTHING
