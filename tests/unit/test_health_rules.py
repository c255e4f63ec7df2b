"""Which transitions a health report, or its absence, means."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bus_schemas.events import HealthReported
from bus_schemas.events.health import SlotHealth, Transition, Validity
from platform_handlers.health.rules import (
    SILENT_AFTER_SECONDS,
    Known,
    on_report,
    on_silence,
    told,
)
from platform_handlers.health.store import fold
from tests.facts import Ledger


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


def transitions(
    known: Known, reported: HealthReported, age_seconds: float = 0
) -> list[tuple[Transition, str | None]]:
    """What a report means, in short."""
    return [(c.transition, c.slot_id) for c in on_report(known, reported, age_seconds)]


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
    known = Known("acme", rejected=frozenset({"main"} if rejected else ()))
    expect = [(expected, "main")] if expected else []
    assert transitions(known, report(main=validity)) == expect


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
        rejected=st.frozensets(st.sampled_from(["one", "two"])),
    ),
    st.dictionaries(st.sampled_from(["one", "two"]), st.sampled_from(Validity)),
)
def test_what_was_told_is_not_told_again(known: Known, slots: dict[str, Validity]) -> None:
    """Once its transitions are known, the same report means nothing new."""
    for change in on_report(known, report(**slots), 0):
        known = told(known, change)
    assert on_report(known, report(**slots), 0) == []
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
        fold(servers, fact.envelope.data)
    assert servers == {"acme-1": Known("acme", silent=True, rejected=frozenset({"main"}))}
    for fact in (
        ledger.status("acme-1", "acme", Transition.RETURNED),
        ledger.deprovisioned("acme-1", "acme"),
    ):
        fold(servers, fact.envelope.data)
    assert servers["acme-1"] == Known("acme", active=False, rejected=frozenset({"main"}))


def test_a_server_cannot_invent_rejected_slots_without_end() -> None:
    """Beyond the most a server may hold, a refusal of one slot more is not told."""
    full = Known("acme", rejected=frozenset(f"s-{n}" for n in range(63)))
    told_of = transitions(full, report(one=Validity.INVALID, more=Validity.INVALID))
    assert told_of == [(Transition.REJECTED, "one")]
