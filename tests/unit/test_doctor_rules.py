"""What `byok doctor` says of each case: the sentence, and whether it is bad."""

from datetime import UTC, datetime, timedelta

import pytest
from cryptography import x509

from bus_schemas.authorities import authority_id
from bus_schemas.errors import ReaderMustStop
from bus_schemas.finding import Finding, Grade, clock_finding, expiry_finding, span, well
from bus_schemas.streams import BANNERS, LEDGER, Stream
from platform_handlers.authority.tls import made_at, make_ca, make_server_certificate, signed_by
from platform_handlers.ca.rules import named
from platform_handlers.doctor import rules

NOW = datetime(2026, 11, 23, 10, tzinfo=UTC)
DAY = timedelta(days=1)
PAIR = make_ca("byok CA", now=NOW)
OLD = x509.load_pem_x509_certificate(PAIR.certificate)
NEW = x509.load_pem_x509_certificate(make_ca("byok CA", now=NOW + DAY).certificate)
LEAF = x509.load_pem_x509_certificate(
    make_server_certificate(PAIR, "x", ["localhost"], now=NOW).certificate
)
OLD_ID, NEW_ID = authority_id(OLD), authority_id(NEW)


def told(findings: list[Finding]) -> list[tuple[Grade, str]]:
    """Return grades and sentences."""
    return [(finding.grade, finding.detail) for finding in findings]


def test_a_ca_is_judged_by_the_newest_and_by_the_one_in_use() -> None:
    """A month ahead there is still time for the change; after the end there is only the hand."""
    month, end = OLD.not_valid_after_utc - 29 * DAY, OLD.not_valid_after_utc
    assert told(rules.authority_findings([OLD], OLD, NOW)) == [
        (Grade.OK, f"the CA {OLD_ID} is good for 3650 days")
    ]
    assert told(rules.authority_findings([OLD], OLD, month)) == [
        (
            Grade.WARN,
            (
                f"the CA {OLD_ID} expires in 29 days; run `byok ca add` now, so that servers"
                " learn of the next one in time"
            ),
        )
    ]
    assert told(rules.authority_findings([OLD], OLD, end)) == [
        (
            Grade.BAD,
            (
                f"the CA {OLD_ID} has expired; every client refuses the bus; run `byok ca add`,"
                " then `byok ca use --cut-off`, and give servers and owners the new public/ca.pem"
                " by hand"
            ),
        )
    ]
    assert told(rules.authority_findings([OLD, NEW], OLD, month))[1] == (
        Grade.WARN,
        f"the CA in use {OLD_ID} expires in 29 days; run `byok ca use`",
    )
    assert told(rules.authority_findings([OLD, NEW], NEW, NOW))[1] == (
        Grade.WARN,
        "the CA is being changed; the old one is still trusted until `byok ca retire`",
    )
    [strange] = rules.authority_findings([OLD], None, NOW)
    assert strange.grade is Grade.BAD


def test_a_certificate_is_judged_by_its_end_and_by_who_shows_it() -> None:
    """Renewed in the files is not yet shown."""
    soon = LEAF.not_valid_after_utc - DAY
    assert told([rules.leaf_finding("the bus", LEAF, soon)]) == [
        (Grade.WARN, "the certificate of the bus expires in 1 day; run `byok ca renew`")
    ]
    assert rules.shown_finding("nats-server", same=True).grade is Grade.OK
    assert rules.shown_finding("nats-server", same=False).grade is Grade.WARN


@pytest.mark.parametrize(
    ("seconds", "grade", "detail"),
    [
        (3, Grade.OK, "this clock agrees with nats-server"),
        (
            -40,
            Grade.WARN,
            "this clock is 40 s behind nats-server; set it: timedatectl set-ntp true",
        ),
        (
            600,
            Grade.BAD,
            "this clock is 10 min ahead of nats-server; set it: timedatectl set-ntp true",
        ),
        (
            -3600,
            Grade.BAD,
            "this clock is 1 h 0 min behind nats-server; set it: timedatectl set-ntp true",
        ),
    ],
)
def test_a_clock_is_judged_by_its_distance(seconds: float, grade: Grade, detail: str) -> None:
    """Seconds are the network's, minutes want a person."""
    assert told([clock_finding(seconds, "nats-server")]) == [(grade, detail)]


def test_spans_are_said_as_people_say_them() -> None:
    """Never 0 min."""
    assert [span(s) for s in (0, 119, 120, 3599, 7260)] == [
        "0 s",
        "119 s",
        "2 min",
        "1 h 0 min",
        "2 h 1 min",
    ]


def test_an_end_is_announced_thirty_days_ahead() -> None:
    """Not a day later."""
    grades = [expiry_finding("x", "x", days, "y").grade for days in (30, 29.9, 0.5, 0, -1)]
    assert grades == [Grade.OK, Grade.WARN, Grade.WARN, Grade.BAD, Grade.BAD]


def info(stream: Stream, *, full: float = 0, **changed: object) -> rules.Info:
    """Return what nats-server would say of *stream*: it leaves out what is empty, and adds."""
    config = {name: value for name, value in stream.configuration().items() if value}
    config |= {"metadata": {"_nats.ver": "2.15.1"}, "sealed": False}
    return rules.Info(config | changed, int(stream.max_bytes * full))


def test_a_stream_is_as_declared_or_named_with_what_differs() -> None:
    """What nats-server adds of its own is no difference."""
    assert rules.stream_findings(LEDGER, info(LEDGER)) == []
    [missing] = rules.stream_findings(LEDGER, None)
    assert missing.detail == "BYOK_LEDGER is missing; run `byok nats run`, which makes it"
    [wrong] = rules.stream_findings(LEDGER, info(LEDGER, allow_rollup_hdrs=True, max_age=1))
    assert wrong.grade is Grade.BAD
    assert "differs in allow_rollup_hdrs, max_age;" in wrong.detail


@pytest.mark.parametrize(
    ("stream", "what"),
    [(LEDGER, "will refuse new messages"), (BANNERS, "forgets its oldest")],
)
def test_a_stream_that_fills_up_is_told_in_time(stream: Stream, what: str) -> None:
    """At 80 %, with what happens at 100."""
    assert rules.stream_findings(stream, info(stream, full=0.79)) == []
    [full] = rules.stream_findings(stream, info(stream, full=0.81))
    assert (full.grade, f"({what} when full)" in full.detail) == (Grade.WARN, True)


def test_nested_configuration_is_compared_by_what_is_declared() -> None:
    """A source or a republish has fields that only nats-server knows."""
    declared = {"sources": [{"name": "A"}], "republish": {"src": "a", "headers_only": True}}
    found = {
        "sources": [{"name": "A", "extra": 1}],
        "republish": {"src": "a", "headers_only": True},
    }
    same = rules._same  # noqa: SLF001 (the heart of the comparison)
    assert same(found, declared)
    assert not same({**found, "sources": [{"name": "B"}]}, declared)
    assert not same({**found, "sources": []}, declared)
    assert not same({**found, "sources": None}, declared)
    assert not same({**found, "republish": None}, declared)


def test_the_rest_of_the_bus_is_judged() -> None:
    """Room, parked messages, readers, and those who answer servers."""
    assert rules.disk_finding("/x", 9, 100).grade is Grade.WARN
    assert rules.disk_finding("/x", 10, 100).grade is Grade.OK
    assert rules.parked_finding(0).grade is Grade.OK
    assert rules.parked_finding(2).detail.startswith("2 messages are parked; look at them: byok")
    stop = ReaderMustStop("ledger_replaced", 7, "rebuild it")
    run = "byok platform run"
    judged = [rules.reader_finding("config", run, b) for b in (0, 1001, None, stop)]
    assert [finding.grade for finding in judged] == [
        Grade.OK,
        Grade.WARN,
        Grade.WARN,
        Grade.BAD,
    ]
    assert judged[3].detail == (
        "config is stopped at ledger sequence 7 (ledger_replaced): rebuild it"
    )
    assert rules.answer_finding("issuer", run, answered=True).grade is Grade.OK
    silent = rules.answer_finding("issuer", run, answered=False)
    assert silent.grade is Grade.BAD
    assert silent.detail.endswith("or try again in a minute")


def test_servers_without_a_pin_are_named() -> None:
    """One that has not told yet is not accused."""
    assert told(rules.pin_findings({"a-1": (), "a-2": ("F",), "a-3": None})) == [
        (
            Grade.BAD,
            (
                "a-1 obeys no owner key and takes no credential; on the server's console, type what"
                " `byok owner fingerprint` shows its owner: byok-vps trust FINGERPRINT"
            ),
        )
    ]
    [many] = rules.pin_findings(dict.fromkeys("abcdefg", ()))
    assert many.detail.startswith("a, b, c, d, e and 2 more obey no")
    assert told(rules.pin_findings({"a-2": ("F",), "a-3": None})) == [
        (Grade.OK, "1 of 2 servers obey an owner key")
    ]


def test_servers_whose_clock_is_off_are_named() -> None:
    """As their own reports show."""
    assert rules.server_clock_findings({"a-1": 2.0}) == []
    [off] = rules.server_clock_findings({"a-1": 2.0, "a-2": -3600.0})
    assert (
        off.detail == "the clock of a-2 is off by up to 1 h 0 min; there: timedatectl set-ntp true"
    )


def test_a_revocation_that_is_not_confirmed_is_bad() -> None:
    """Who was turned away may be connected still: nobody must take that for done."""
    assert rules.revocation_finding(confirmed=True).grade is Grade.OK
    waiting = rules.revocation_finding(confirmed=False)
    assert waiting.grade is Grade.BAD
    assert "nats-servers and `byok platform run` are up" in waiting.detail


def test_servers_that_trust_too_little_or_too_much_are_named() -> None:
    """Too little only matters while the CA is being changed."""
    ours, strange = frozenset({OLD_ID}), frozenset({OLD_ID, "STRANGER"})
    assert rules.trust_findings({"a-1": ours, "a-2": None}, [OLD]) == []
    found = rules.trust_findings({"a-1": ours, "a-2": None, "a-3": strange}, [OLD, NEW])
    assert [finding.detail.partition(" a CA")[0] for finding in found][:1] == ["a-3 trusts"]
    assert found[1].detail.startswith("a-1, a-2, a-3 are not known to trust the next CA; ")
    [one] = rules.trust_findings({"a-2": None}, [OLD, NEW])
    assert one.detail.startswith("a-2 is not known ")
    [two] = rules.trust_findings({"a-3": strange, "a-4": strange}, [OLD])
    assert two.detail.startswith("a-3, a-4 trust a CA ")
    assert named(["a", "b"]) == "a, b"


def test_a_warning_is_no_failure() -> None:
    """Exit code 1 is for what does not work now."""
    warning, bad = Finding(Grade.WARN, "x", "y"), Finding(Grade.BAD, "x", "y")
    assert well([warning])
    assert not well([warning, bad])
    assert bad.as_json() == {"grade": "bad", "check": "x", "detail": "y"}
    assert str(bad).split() == ["bad", "x", "y"]


def test_a_certificate_tells_who_signed_it_and_when() -> None:
    """What the steps of a change are decided by."""
    assert signed_by(LEAF, OLD)
    assert not signed_by(LEAF, NEW)
    assert made_at(NEW) == NOW + DAY
