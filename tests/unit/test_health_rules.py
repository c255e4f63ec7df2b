"""Which transitions a health report, or its absence, means."""

from collections.abc import Callable
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bus_schemas.events import (
    CredentialInUse,
    CredentialVerified,
    HealthReported,
    ServerUnlocked,
    StatusChanged,
    UnlockAnswered,
)
from bus_schemas.events.health import SlotHealth, Transition, Validity
from bus_schemas.transport.ledger import Fact
from platform_handlers.health.rules import (
    REJECTED_AT_LEAST_SECONDS,
    SILENT_AFTER_SECONDS,
    STRAY_SECONDS,
    Known,
    Rejection,
    on_report,
    on_silence,
    started,
    told,
)
from platform_handlers.health.store import fold
from tests.facts import NKEY, Ledger, nkey

NOW = 1_000_000.0
LATE = STRAY_SECONDS + 1
DAY = 24 * 3600


def report(**slots: Validity) -> HealthReported:
    """What acme-1 reports of its slots."""
    return HealthReported(
        server_id="acme-1",
        incarnation=1,
        n=1,
        observed_generation=1,
        runtime_version="0.1.0",
        outbox_depth=0,
        slots=tuple(
            SlotHealth(
                slot_id=slot, provider="anthropic", revision=1, validity=validity, age_seconds=1
            )
            for slot, validity in slots.items()
        ),
    )


def refused(*slots: str, reason: str | None = None, at: float = 0.0) -> dict[str, Rejection]:
    """The provider refuses the keys of these slots, told long ago unless said otherwise."""
    return dict.fromkeys(slots, Rejection(at, reason))


def rejection(slot: str) -> StatusChanged:
    """The health handler's word that a key is refused."""
    return StatusChanged(
        server_id="acme-1", owner_id="acme", transition=Transition.REJECTED, slot_id=slot
    )


def transitions(
    known: Known, reported: HealthReported, age_seconds: float = 0
) -> list[tuple[Transition, str | None]]:
    """What a report means, in short."""
    told_of = on_report(known, reported, at=NOW - age_seconds, now=NOW)
    return [(change.transition, change.slot_id) for change in told_of]


@pytest.mark.parametrize(
    ("validity", "rejected", "expected"),
    [
        (Validity.INVALID, False, Transition.REJECTED),
        (Validity.INVALID, True, None),
        (Validity.VALID, True, Transition.ACCEPTED),
        (Validity.LIMITED, True, Transition.ACCEPTED),
        (Validity.VALID, False, None),
        (Validity.UNKNOWN, True, None),
        (Validity.UNKNOWN, False, None),
    ],
)
def test_only_a_clear_word_changes_how_a_key_stands(
    validity: Validity, rejected: bool, expected: Transition | None
) -> None:
    """`unknown` neither rejects nor accepts, and nothing is told twice."""
    known = Known("acme", rejected=refused("main") if rejected else {})
    expect = [(expected, "main")] if expected else []
    assert transitions(known, report(main=validity)) == expect


def reasoned(reason: str | None, validity: Validity = Validity.INVALID) -> HealthReported:
    """What acme-1 reports of its one slot, with a reason."""
    slot = SlotHealth(
        slot_id="main",
        provider="anthropic",
        revision=1,
        validity=validity,
        reason=reason,
        age_seconds=1,
    )
    return report().model_copy(update={"slots": (slot,)})


def test_a_refusal_is_told_with_its_reason_and_again_with_another() -> None:
    """That a sign-in was used elsewhere may come out after the provider's first plain no."""
    for before, reason, expect in (
        ({}, None, [None]),
        ({}, "invalid_grant", ["invalid_grant"]),
        (refused("main"), "invalid_grant", ["invalid_grant"]),
        (refused("main", reason="invalid_grant"), "invalid_grant", []),
        (refused("main", reason="invalid_grant"), None, [None]),
    ):
        changes = on_report(Known("acme", rejected=before), reasoned(reason), at=NOW, now=NOW)
        assert [change.reason for change in changes] == expect
        assert all(change.transition is Transition.REJECTED for change in changes)
    accepted = on_report(
        Known("acme", rejected=refused("main")), reasoned("odd", Validity.VALID), at=NOW, now=NOW
    )
    assert [change.reason for change in accepted] == [None]


def test_a_slot_that_is_listed_many_times_is_told_of_once() -> None:
    """Else one report could use up what a server may tell in a day, and the ledger's room."""
    lies = tuple(reasoned(f"lie_{n}").slots[0] for n in range(64))
    changes = on_report(Known("acme"), report().model_copy(update={"slots": lies}), at=NOW, now=NOW)
    assert [change.slot_id for change in changes] == ["main"]


@given(st.lists(st.booleans(), max_size=200), st.floats(1, 120))
def test_a_banner_is_not_raised_and_cleared_faster_than_it_can_be_read(
    good: list[bool], gap: float
) -> None:
    """A provider that says now this, now that: a refusal stands for three reports at least."""
    known, refusals, at = Known("acme"), [0.0], NOW
    for answer in good:
        at += gap
        word = Validity.VALID if answer else Validity.INVALID
        for change in on_report(known, report(main=word), at=at, now=at):
            if change.transition is Transition.REJECTED:
                refusals.append(at)
            else:
                assert at - refusals[-1] >= REJECTED_AT_LEAST_SECONDS
            known = told(known, change, at)


OTHER_KEY: list[Callable[[Ledger], Fact]] = [
    lambda ledger: ledger.promoted("acme-1"),
    lambda ledger: ledger.step(CredentialInUse, "acme-1", provider_status=200),
    lambda ledger: ledger.needs_key("acme-1"),
]


def test_another_key_ends_the_refusal_of_the_one_before_at_once() -> None:
    """Its banner is cleared by the same fact, and an older report does not bring it back."""
    for tell in OTHER_KEY:
        both = refused("main") | refused("other", at=NOW)
        ledger, servers = Ledger(), {"acme-1": Known("acme", rejected=both)}
        fold(servers, tell(ledger).envelope.data, NOW)
        known = servers["acme-1"]
        assert set(known.rejected) == {"other"}
        old = report(main=Validity.INVALID).model_copy(update={"n": known.keys_at[1] - 1})
        new = old.model_copy(update={"n": known.keys_at[1] + 1})
        assert transitions(known, old) == []
        assert transitions(known, new) == [(Transition.REJECTED, "main")]
        fold(servers, tell(Ledger()).envelope.data, NOW)  # told again: no number goes back
        assert servers["acme-1"].keys_at >= known.keys_at


def test_a_change_of_key_that_is_told_again_makes_no_refusal_forgotten() -> None:
    """It clears no banner the second time; then nobody would say that the key is taken again."""
    for tell in OTHER_KEY:
        ledger, servers = Ledger(), {"acme-1": Known("acme")}
        change = tell(ledger).envelope.data
        fold(servers, change, NOW)
        since = servers["acme-1"] = told(servers["acme-1"], rejection("main"), NOW)
        fold(servers, change, NOW)
        assert servers["acme-1"] == since


def test_another_machine_begins_with_no_refusal_once() -> None:
    """Its vault is empty; told again, what its own provider said since stands."""
    ledger, servers = Ledger(), {"acme-1": Known("acme", rejected=refused("main"), nkey=NKEY)}
    anew = ledger.reenrolled("acme-1", "acme").envelope.data
    fold(servers, anew, NOW - 100)
    assert (servers["acme-1"].rejected, servers["acme-1"].nkey) == ({}, nkey(2))
    servers["acme-1"] = told(servers["acme-1"], rejection("main"), NOW)
    fold(servers, anew, NOW)
    assert set(servers["acme-1"].rejected) == {"main"}
    fold(servers, ledger.reenrolled("acme-1", "acme", 3).envelope.data, NOW)
    assert servers["acme-1"].rejected == {}


def test_the_last_report_of_the_machine_before_says_nothing_of_the_new_one() -> None:
    """The stream keeps it for a day, and a handler that starts anew reads it again."""
    servers = {"acme-1": Known("acme", nkey=NKEY)}
    fold(servers, Ledger().reenrolled("acme-1", "acme").envelope.data, NOW - 100)
    bad = report(main=Validity.INVALID)
    assert transitions(servers["acme-1"], bad, age_seconds=101) == []
    assert transitions(servers["acme-1"], bad) == [(Transition.REJECTED, "main")]


def test_a_slot_that_holds_no_key_any_more_has_none_refused() -> None:
    """What was retired with its slot is in no report, and nothing else would clear the banner."""
    known = Known("acme", rejected=refused("gone"))
    assert transitions(known, report(main=Validity.VALID)) == [(Transition.ACCEPTED, "gone")]
    lately = Known("acme", rejected=refused("gone", at=NOW - 1))
    assert transitions(lately, report()) == []


def test_a_verdict_that_promotes_nothing_says_nothing_of_the_key_in_use() -> None:
    """A new credential that is refused leaves the old one as it was."""
    ledger = Ledger()
    said = ledger.step(CredentialVerified, "acme-1", verdict="invalid")
    servers = {"acme-1": Known("acme", rejected=refused("main"))}
    fold(servers, said.envelope.data, NOW)
    assert servers == {"acme-1": Known("acme", rejected=refused("main"))}
    fold(servers, ledger.promoted("stranger-1").envelope.data, NOW)
    assert set(servers) == {"acme-1"}


def test_a_silent_server_returns_with_its_report() -> None:
    """And what the report says of its keys is told with it."""
    known = Known("acme", silent=True)
    assert transitions(known, report(main=Validity.INVALID)) == [
        (Transition.RETURNED, None),
        (Transition.REJECTED, "main"),
    ]


def test_an_old_report_read_again_is_no_return() -> None:
    """The stream keeps the last report for a day; a restarted handler must not flap on it."""
    known = Known("acme", silent=True)
    age = SILENT_AFTER_SECONDS + 1
    assert transitions(known, report(main=Validity.VALID), age) == []
    assert transitions(known, report(main=Validity.INVALID), age) == [(Transition.REJECTED, "main")]


@pytest.mark.parametrize(
    ("last", "since", "now", "silent"),
    [
        (100.0, 0.0, 100.0 + SILENT_AFTER_SECONDS, False),
        (100.0, 0.0, 101.0 + SILENT_AFTER_SECONDS, True),
        (100.0, 500.0, 500.0 + SILENT_AFTER_SECONDS, False),
        (100.0, 500.0, 501.0 + SILENT_AFTER_SECONDS, True),
        (None, 0.0, 9e9, False),
    ],
)
def test_silence_is_what_could_have_been_heard(
    last: float | None, since: float, now: float, silent: bool
) -> None:
    """Not the time before we listened, and not a server that was never started."""
    servers = {"acme-1": Known("acme")}
    reports = {} if last is None else {"acme-1": last}
    found = on_silence(servers, reports, listening_since=since, now=now)
    assert [(c.server_id, c.owner_id, c.transition) for c in found] == (
        [("acme-1", "acme", Transition.SILENT)] if silent else []
    )


@pytest.mark.parametrize("known", [Known("acme", active=False), Known("acme", silent=True)])
def test_the_ended_and_the_silent_do_not_fall_silent(known: Known) -> None:
    """Silence is told once, and never of a server that may not speak."""
    assert on_silence({"acme-1": known}, {"acme-1": 0.0}, listening_since=0.0, now=9e9) == []


@given(
    st.builds(
        Known,
        st.just("acme"),
        silent=st.booleans(),
        rejected=st.dictionaries(
            st.sampled_from(["one", "two"]),
            st.builds(Rejection, st.sampled_from([0.0, NOW]), st.sampled_from([None, "why"])),
        ),
    ),
    st.dictionaries(st.sampled_from(["one", "two"]), st.sampled_from(Validity)),
)
def test_what_was_told_is_not_told_again(known: Known, slots: dict[str, Validity]) -> None:
    """Once its transitions are known, the same report means nothing new."""
    for change in on_report(known, report(**slots), at=NOW, now=NOW):
        known = told(known, change, NOW)
    assert on_report(known, report(**slots), at=NOW, now=NOW) == []
    assert not known.silent


def test_the_ledger_says_who_is_there_and_how() -> None:
    """Servers come, are told of, and end; a repeated arrival changes nothing."""
    ledger, servers = Ledger(), dict[str, Known]()
    ledger.status("acme-1", "acme", Transition.SILENT)
    ledger.revoked("acme-1", "acme")
    ledger.provisioned("acme-1", "acme")
    ledger.status("acme-1", "acme", Transition.REJECTED, "main")
    ledger.status("acme-1", "acme", Transition.REJECTED, "other")
    ledger.status("acme-1", "acme", Transition.ACCEPTED, "other")
    ledger.status("acme-1", "acme", Transition.SILENT)
    ledger.provisioned("acme-1", "acme")
    ledger.ticked()
    for fact in ledger.facts:
        fold(servers, fact.envelope.data, fact.stored_at.timestamp())
    at = ledger.facts[3].stored_at.timestamp()
    acme = Known("acme", rejected=refused("main", at=at), nkey=NKEY)
    assert servers == {"acme-1": replace(acme, silent=True)}
    for fact in (
        ledger.status("acme-1", "acme", Transition.RETURNED),
        ledger.deprovisioned("acme-1", "acme"),
    ):
        fold(servers, fact.envelope.data, fact.stored_at.timestamp())
    assert servers["acme-1"] == replace(acme, active=False)


def test_a_server_cannot_invent_rejected_slots_without_end() -> None:
    """Beyond the most a server may hold, a refusal of one slot more is not told."""
    full = Known("acme", rejected=refused(*(f"s-{n}" for n in range(63)), at=NOW))
    told_of = transitions(full, report(one=Validity.INVALID, more=Validity.INVALID))
    assert told_of == [(Transition.REJECTED, "one")]


def report_of(incarnation: int) -> HealthReported:
    """What a machine reports that was started as this incarnation."""
    return report().model_copy(update={"incarnation": incarnation})


def answered(known: Known, *starts: tuple[int, float]) -> Known:
    """Have the evaluator tell of these starts, each at its time."""
    for incarnation, at in starts:
        known = started(known, UnlockAnswered(server_id="acme-1", incarnation=incarnation), at)
    return known


def second_machine(known: Known, incarnation: int, at: float) -> list[int | None]:
    """What a report of *incarnation*, stored *at*, shows: the start above it, once told."""
    changes = on_report(known, report_of(incarnation), at=at, now=at)
    assert all(change.transition is Transition.CLONED for change in changes)
    return [change.incarnation for change in changes]


def test_a_report_of_an_earlier_start_long_after_a_later_one_shows_two_machines() -> None:
    """Whoever unlocked a copy, the original gives them away by saying which start it is."""
    known = answered(Known("acme"), (5, NOW), (6, NOW + 1000))
    assert second_machine(known, 5, NOW + 999) == []
    assert second_machine(known, 5, NOW + 1000 + LATE) == [6]
    assert second_machine(known, 6, NOW + 1000 + LATE) == []


@pytest.mark.parametrize("delay", [-1.0, 0.0, 1.0, STRAY_SECONDS])
def test_what_a_dead_process_had_on_its_way_shows_nothing(delay: float) -> None:
    """A restart is no clone: its last report may be overtaken by the news of the next start."""
    assert second_machine(answered(Known("acme"), (5, NOW), (6, NOW + 1000)), 5, NOW + delay) == []


def test_a_report_of_a_start_that_nobody_told_of_yet_shows_nothing() -> None:
    """The ledger may lag behind the reports, or may have lost its head."""
    assert second_machine(Known("acme"), 7, NOW) == []
    assert second_machine(answered(Known("acme"), (5, NOW)), 7, NOW + LATE) == []


def test_a_crash_loop_shows_nothing() -> None:
    """Each start ends the one before it, however fast, and also if some never commit."""
    known = Known("acme")
    for n in range(1, 200):
        at = NOW + 50 * n
        assert second_machine(known, n, at - 1) == []  # the one before is heard until it dies
        known = answered(known, (n + 1, at), (n + 1, at + 7))
        assert len(known.starts) <= STRAY_SECONDS / 50 + 2


def test_a_copy_that_keeps_starting_does_not_hide() -> None:
    """What counts is the first start above the reporting one, not the newest."""
    known, seen = answered(Known("acme"), (5, NOW - 1000)), []
    for n in range(6):
        known = answered(known, (6 + n, NOW + 60 * n))
        seen.append(second_machine(known, 5, NOW + 60 * n + 30))
    assert seen == [[], [], [], [6], [7], [8]]


def test_the_first_word_of_a_start_counts() -> None:
    """A commit tells again of the start that was answered; so does a lost answer."""
    known = answered(Known("acme"), (5, NOW), (6, NOW + 1000), (6, NOW + 5000), (5, NOW + 5000))
    again = started(known, ServerUnlocked(server_id="acme-1", incarnation=6), NOW + 5000)
    assert again is known
    assert second_machine(known, 5, NOW + 1000 + LATE) == [6]


def test_two_machines_are_told_once_a_day_and_at_each_further_start() -> None:
    """Minute for minute they both report, and that is one fact, not a thousand."""
    known = answered(Known("acme"), (5, NOW), (6, NOW + 1000))
    at = NOW + 1000 + LATE
    [change] = on_report(known, report_of(5), at=at, now=at)
    known = told(known, change, at)
    assert second_machine(known, 5, at) == []
    assert second_machine(known, 5, at + DAY - 1) == []
    assert second_machine(known, 5, at + DAY) == [6]
    known = answered(known, (7, at + 100))
    assert second_machine(known, 5, at + 100 + LATE) == [7]


def test_a_report_that_is_read_again_shows_nothing_new() -> None:
    """A restarted handler reads the last report of everybody; it was judged when it came."""
    known = answered(Known("acme"), (5, NOW), (6, NOW + 1000))
    at = NOW + 1000 + LATE
    [change] = on_report(known, report_of(5), at=at, now=at)
    known = told(known, change, at + 3 * DAY)
    assert on_report(known, report_of(5), at=at, now=at + 3 * DAY) == []


def test_an_older_word_of_two_machines_takes_no_knowledge_away() -> None:
    """Another handler may tell later of what it noticed earlier."""
    change = Ledger().status("acme-1", "acme", Transition.CLONED).envelope.data
    assert isinstance(change, StatusChanged)
    known = told(Known("acme"), change.model_copy(update={"incarnation": 7}), NOW)
    assert told(known, change.model_copy(update={"incarnation": 6}), NOW + 1).clone_told == (
        7,
        NOW + 1,
    )
    assert told(known, change, NOW + 1).clone_told.incarnation == 7


def test_another_machine_has_no_rejected_keys_and_its_starts_go_on() -> None:
    """Its vault is empty; a machine that was revoked is back with it."""
    ledger, servers = Ledger(), dict[str, Known]()
    ledger.provisioned("acme-1", "acme")
    ledger.status("acme-1", "acme", Transition.REJECTED, "main")
    ledger.answered("acme-1", 3)
    ledger.revoked("acme-1", "acme")
    for fact in (*ledger.facts, ledger.reenrolled("acme-1", "acme")):
        fold(servers, fact.envelope.data, NOW)
    anew = Known("acme", nkey=nkey(2), since=NOW)
    assert servers == {"acme-1": answered(anew, (3, NOW))}
    for fact in (ledger.answered("stranger-1", 1), ledger.reenrolled("stranger-1", "acme")):
        fold(servers, fact.envelope.data, NOW)
    assert set(servers) == {"acme-1"}
