"""What `byok key` concludes from a slot's steps, against a small model of a server."""

from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from types import MappingProxyType

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bus_schemas.api import (
    BannerList,
    BannerView,
    RotationView,
    SlotHistory,
    SlotStep,
    SlotView,
    StepView,
)
from bus_schemas.events.banner import BannerCode, BannerState, Sharing
from bus_schemas.fields import CredentialKind
from platform_handlers.owner.keys.goals import Goal, Result, result
from platform_handlers.owner.keys.rules import (
    Claim,
    Course,
    Phase,
    SlotCourse,
    age,
    also_on,
    claim,
    course,
    rotation_of,
    slot_course,
)

AT = datetime(2026, 11, 23, 9, tzinfo=UTC)


def step(kind: SlotStep, revision: int = 1, **more: object) -> StepView:
    """Return one step."""
    return StepView.model_validate({"step": kind, "revision": revision, "at": AT} | more)


def slot(*steps: StepView, revision: int | None = None, in_use: int | None = None) -> SlotView:
    """Return a slot with these steps of its newest revision."""
    return SlotView(
        slot_id="chat",
        provider="anthropic",
        kind=CredentialKind.API_KEY,
        revision=steps[-1].revision if revision is None else revision,
        steps=steps,
        in_use=in_use,
    )


SENT, STORED = step(SlotStep.SENT), step(SlotStep.STORED)
UNCLEAR = step(SlotStep.VERIFIED, reason="unknown")
GOOD = step(SlotStep.VERIFIED, reason="valid", promoted=True)
FORCED = step(SlotStep.VERIFIED, reason="unknown", promoted=True)
BAD = step(SlotStep.VERIFIED, reason="invalid")
REFUSED = step(SlotStep.REJECTED, reason="refused_by_provider")
IN_USE, DRAINED = step(SlotStep.IN_USE), step(SlotStep.DRAINED)
ABORTED, RETIRED = step(SlotStep.ABORTED, reason="superseded"), step(SlotStep.RETIRED)
LOST = step(SlotStep.NEEDS_KEY, reason="not_delivered")


@dataclass(frozen=True)
class Server:
    """A server with one slot, as docs/design.md says that it rotates, and what it has told."""

    newest: int = 0
    pending: int = 0
    current: int = 0
    was_current: frozenset[int] = frozenset()
    calls: frozenset[int] = frozenset()
    """Revisions with a call that waits for the head of its answer."""
    drained: bool = False
    held: frozenset[int] = frozenset()
    told: MappingProxyType[int, tuple[StepView, ...]] = field(
        default_factory=lambda: MappingProxyType({})
    )

    def tell(self, kind: SlotStep, revision: int, **more: object) -> "Server":
        """Return the server once it has told a step."""
        steps = (*self.told.get(revision, ()), step(kind, revision, **more))
        return replace(self, told=MappingProxyType({**self.told, revision: steps}))

    def view(self) -> SlotCourse:
        """Return what the owner's machine makes of it."""
        rotations = tuple(RotationView(revision=n, steps=s) for n, s in sorted(self.told.items()))
        history = SlotHistory(server_id="acme-1", slot_id="chat", rotations=rotations)
        return slot_course(slot(*self.told[self.newest], revision=self.newest), history)


def moves(s: Server) -> Iterator[Server]:
    """Yield all that may happen next."""
    new = s.newest + 1
    yield replace(s, newest=new).tell(SlotStep.SENT, new)
    if s.newest and s.newest not in s.held and s.told[s.newest][-1].step is SlotStep.SENT:
        yield from _taken(s)
    if s.pending:
        yield from _judged(s)
    if s.current:
        yield replace(s, calls=s.calls | {s.current})
        yield s.tell(SlotStep.IN_USE, s.current)
        yield s.tell(SlotStep.VERIFIED, s.current, reason="invalid")
        if not s.drained and not any(n < s.current for n in s.calls):
            yield replace(s, drained=True).tell(SlotStep.DRAINED, s.current)
    for call in s.calls:
        yield replace(s, calls=s.calls - {call})
    for revision in s.held:
        yield _retired(s, revision)
    if s.held:  # the machine is set up anew
        empty = replace(s, pending=0, current=0, held=frozenset(), calls=frozenset())
        yield empty.tell(SlotStep.NEEDS_KEY, s.newest, reason="not_delivered")


def _taken(s: Server) -> Iterator[Server]:
    before = s.tell(SlotStep.ABORTED, s.pending, reason="superseded") if s.pending else s
    held = s.held - {s.pending} | {s.newest}
    yield replace(before, pending=s.newest, held=held).tell(SlotStep.STORED, s.newest)
    yield s.tell(SlotStep.REJECTED, s.newest, reason="does_not_open")


def _judged(s: Server) -> Iterator[Server]:
    told = s.tell(SlotStep.VERIFIED, s.pending, reason="invalid")
    gone = replace(told, pending=0, held=s.held - {s.pending})
    yield gone.tell(SlotStep.REJECTED, s.pending, reason="refused_by_provider")
    yield s.tell(SlotStep.VERIFIED, s.pending, reason="unknown")
    yield replace(s, pending=0, held=s.held - {s.pending}).tell(
        SlotStep.ABORTED, s.pending, reason="aborted_by_owner"
    )
    for verdict in ("valid", "unknown"):
        used = replace(
            s, current=s.pending, pending=0, drained=False, was_current=s.was_current | {s.pending}
        )
        yield used.tell(SlotStep.VERIFIED, s.pending, reason=verdict, promoted=True)


def _retired(s: Server, revision: int) -> Server:
    out = {n for n in s.held if n <= revision}
    for n in sorted(out):
        s = s.tell(SlotStep.RETIRED, n)
    return replace(
        s,
        held=s.held - out,
        current=0 if s.current in out else s.current,
        pending=0 if s.pending in out else s.pending,
    )


def check(server: Server) -> None:
    """Hold what is concluded against what is so."""
    seen = server.view()
    assert seen.in_use == server.current
    assert seen.pending == server.pending
    assert seen.held == (server.pending or server.current)
    earlier = any(n < server.newest for n in server.was_current)
    expected = {
        server.current > 0 and server.current < server.newest: Claim.IN_USE,
        server.current == 0 and bool(server.was_current): Claim.NOTHING_IN_USE,
        server.current == server.newest and earlier and server.drained: Claim.MAY_BE_REVOKED,
        server.current == server.newest and earlier and not server.drained: Claim.DRAINING,
    }
    assert claim(seen) is expected.get(True, Claim.NONE)
    if claim(seen) is Claim.MAY_BE_REVOKED:
        assert not any(n < server.newest for n in server.calls)


def test_the_claim_about_the_old_key_is_right_after_every_sequence_of_steps() -> None:
    """Whatever happened, in any order: nobody is told to revoke a key that is still used."""
    states = {repr(s): s for s in moves(Server())}
    seen = set[str]()
    for _ in range(7):
        following: dict[str, Server] = {}
        for key, server in states.items():
            seen.add(key)
            check(server)
            if server.newest <= 3:
                following |= {repr(after): after for after in moves(server)}
        states = {key: server for key, server in following.items() if key not in seen}
    assert len(seen) > 1000


@given(st.lists(st.integers(0, 50), min_size=5, max_size=40))
def test_and_after_long_ones(choices: list[int]) -> None:
    """The same over many rotations."""
    server = next(moves(Server()))
    for choice in choices:
        after = [s for s in moves(server) if s.newest <= 6] or [server]
        server = after[choice % len(after)]
        check(server)


@pytest.mark.parametrize(
    ("steps", "phase"),
    [
        ([], Phase.SENT),
        ([SENT], Phase.SENT),
        ([SENT, STORED, UNCLEAR], Phase.PENDING),
        ([SENT, STORED, GOOD, BAD], Phase.CURRENT),
        ([SENT, STORED, FORCED], Phase.CURRENT),
        ([DRAINED], Phase.CURRENT),
        ([SENT, STORED, GOOD, REFUSED], Phase.CURRENT),
        ([SENT, STORED, BAD, REFUSED], Phase.REFUSED),
        ([SENT, STORED, BAD, REFUSED, LOST], Phase.REFUSED),
        ([SENT, REFUSED, STORED], Phase.PENDING),
        ([SENT, STORED, ABORTED], Phase.ABORTED),
        ([SENT, STORED, GOOD, RETIRED, STORED, DRAINED, IN_USE, ABORTED], Phase.RETIRED),
        ([SENT, LOST], Phase.LOST),
        ([SENT, STORED, LOST], Phase.LOST),
    ],
)
def test_each_revision_stands_somewhere(steps: list[StepView], phase: Phase) -> None:
    """What ended it is not undone by what comes late; a verdict alone brings nothing into use."""
    assert course(steps).phase is phase


def test_only_the_owners_word_makes_a_forced_one() -> None:
    """A good verdict that comes with the promotion is the provider's own."""
    assert course([STORED, FORCED]).forced
    assert not course([STORED, GOOD]).forced
    assert course([STORED, UNCLEAR]) == Course(Phase.PENDING, AT, "unknown")


def test_what_lies_before_the_known_rotations_is_not_guessed() -> None:
    """There may have been a key before them; what the last report names is still in use."""
    sent = step(SlotStep.SENT, 40)
    assert claim(slot_course(slot(sent))) is Claim.NOTHING_IN_USE
    seen = slot_course(slot(sent, in_use=39))
    assert (seen.in_use, claim(seen)) == (39, Claim.IN_USE)
    used = step(SlotStep.VERIFIED, 40, reason="valid", promoted=True)
    assert claim(slot_course(slot(sent, used))) is Claim.DRAINING
    assert claim(slot_course(slot(sent, used, step(SlotStep.DRAINED, 40)))) is Claim.MAY_BE_REVOKED
    assert slot_course(slot(step(SlotStep.RETIRED, 40), in_use=39)).in_use == 0


def test_the_ledger_may_know_of_a_newer_revision_than_the_document() -> None:
    """Its steps are about that one, then."""
    ahead = slot(step(SlotStep.SENT, 5), revision=4)
    assert slot_course(ahead).newest == 5
    assert result(ahead, 4, Goal.VERIFIED) is Result.OVERTAKEN


def test_the_longer_account_of_a_revision_wins() -> None:
    """The slot and its history are read one after the other; either may be the newer."""
    rotations = (RotationView(revision=1, steps=(SENT, STORED)),)
    history = SlotHistory(server_id="acme-1", slot_id="chat", rotations=rotations)
    assert slot_course(slot(SENT, STORED, GOOD), history).latest.phase is Phase.CURRENT
    assert slot_course(slot(SENT), history).latest.phase is Phase.PENDING
    assert rotation_of(history, 1) == rotations[0]
    assert rotation_of(history, 2) is None


@pytest.mark.parametrize(
    ("steps", "reached", "otherwise"),
    [
        ([SENT], [], Result.WAITING),
        ([SENT, STORED], [Goal.STORED], Result.WAITING),
        ([SENT, STORED, UNCLEAR], [Goal.STORED], Result.UNCLEAR),
        ([SENT, STORED, GOOD], [Goal.STORED, Goal.VERIFIED], Result.WAITING),
        ([SENT, STORED, GOOD, IN_USE], [Goal.STORED, Goal.VERIFIED, Goal.IN_USE], Result.WAITING),
        ([SENT, STORED, GOOD, DRAINED], [Goal.STORED, Goal.VERIFIED, Goal.DRAINED], Result.WAITING),
        ([SENT, STORED, BAD, REFUSED], [], Result.REFUSED),
        ([SENT, STORED, ABORTED], [], Result.REFUSED),
        ([SENT, STORED, GOOD, RETIRED], [], Result.REFUSED),
        ([SENT, LOST], [], Result.WAITING),
    ],
)
def test_a_goal_is_reached_on_the_servers_word_alone(
    steps: list[StepView], reached: list[Goal], otherwise: Result
) -> None:
    """Nothing is done because it was sent; what has ended will not get there."""
    for goal in Goal:
        expected = Result.REACHED if goal in reached else otherwise
        assert result(slot(*steps), 1, goal) is expected
    assert result(slot(*steps), 2, Goal.STORED) is Result.WAITING


def test_the_age_counts_from_when_the_key_in_use_was_stored() -> None:
    """A newer one that waits makes nothing younger; on the ninetieth day it is due."""
    young = slot_course(slot(SENT, STORED, GOOD))
    found = age(young, now=AT + timedelta(days=89, hours=23))
    assert found is not None
    assert (found.days, found.due, found.overdue) == (89, AT + timedelta(days=90), False)
    old = age(young, now=AT + timedelta(days=90))
    assert old is not None
    assert old.overdue
    behind = age(young, now=AT - timedelta(days=1))  # this clock is behind
    assert behind is not None
    assert behind.days == 0
    assert age(slot_course(slot(SENT, STORED)), now=AT) is None
    assert age(slot_course(slot(GOOD)), now=AT) is None


def test_only_standing_reuse_banners_of_the_slot_name_other_servers() -> None:
    """A dismissed one is still true, a cleared one is not."""

    def banner(**more: object) -> BannerView:
        fields: dict[str, object] = {
            "banner_id": "acme-1_chat_api-key-reuse",
            "server_id": "acme-1",
            "slot_id": "chat",
            "code": BannerCode.API_KEY_REUSE,
            "severity": "low",
            "colour": "blue",
            "state": BannerState.RAISED,
            "revision": 1,
            "sharing": Sharing(own_servers=("acme-2",), own_servers_total=1),
            "since_time": AT,
            "changed_at": AT,
            "title": "t",
            "explanation": "e",
            "what_to_do": "w",
        }
        return BannerView.model_validate(fields | more)

    def named(*banners: BannerView) -> frozenset[str]:
        return also_on(BannerList(banners=banners, cursor=1), "acme-1", "chat")

    assert named(banner(), banner(state=BannerState.DISMISSED)) == {"acme-2"}
    assert named(banner(state=BannerState.CLEARED), banner(slot_id="other")) == frozenset()
    assert named(banner(code=BannerCode.ROTATION_DUE)) == frozenset()
