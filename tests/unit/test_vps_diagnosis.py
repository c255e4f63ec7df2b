"""Why a server cannot reach the platform, as its doctor says it."""

from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from cryptography import x509

from bus_schemas.finding import Grade
from platform_handlers.authority.tls import make_ca, make_server_certificate
from vps_runtime.connection.diagnosis import (
    authority_finding,
    bad_certificate,
    certificate_findings,
    turned_away,
)

NOW = datetime(2026, 11, 23, 10, tzinfo=UTC)
DAY = timedelta(days=1)
PAIR = make_ca("byok CA", now=NOW)
CA = x509.load_pem_x509_certificate(PAIR.certificate)
OTHER = x509.load_pem_x509_certificate(make_ca("byok CA", now=NOW).certificate)
LEAF = x509.load_pem_x509_certificate(
    make_server_certificate(PAIR, "x", ["localhost"], now=NOW).certificate
)
FILE = Path("/state/ca.pem")
LATE = CA.not_valid_after_utc
ENDED = LEAF.not_valid_after_utc


@pytest.mark.parametrize(
    ("trusted", "at", "says"),
    [
        (
            [CA],
            NOW - timedelta(hours=1, minutes=5),
            "clock: this clock is at least 1 h 0 min behind the platform; set it: timedatectl",
        ),
        ([OTHER], NOW, "link: the platform shows a certificate of a CA that is not trusted here"),
        ([CA], LATE, "link: the platform still uses a CA that has expired; ask its operators"),
        ([CA], ENDED, "link: the platform's certificate has expired; ask its operators to run"),
        ([CA], NOW, "link: the platform's certificate is not for the host in settings.json; ask"),
    ],
)
def test_a_certificate_that_is_refused_is_explained(
    trusted: list[x509.Certificate], at: datetime, says: str
) -> None:
    """Whose fault it is, this machine's or the platform's, and who mends it."""
    finding = bad_certificate(LEAF, trusted, FILE, at)
    assert finding.grade is Grade.BAD
    assert f"{finding.check}: {finding.detail}".startswith(says)


def test_the_platforms_certificates_are_watched_from_here_too() -> None:
    """A month ahead, each with the person who can do something about it."""
    assert certificate_findings(LEAF, NOW) == []
    [soon] = certificate_findings(LEAF, ENDED - 3 * DAY)
    assert soon.grade is Grade.WARN
    assert soon.detail == (
        "the platform's certificate expires in 3 days; tell its operators to run `byok ca renew`"
    )
    assert authority_finding(CA, FILE, NOW).grade is Grade.OK
    soon = authority_finding(CA, FILE, LATE - 3 * DAY)
    assert soon.detail == (
        "the CA of the platform expires in 3 days; tell the platform's operators to run"
        " `byok ca add`; the new one comes by itself"
    )
    assert "put it at /state/ca.pem" in authority_finding(CA, FILE, LATE).detail


@pytest.mark.parametrize(
    ("door_ends", "says"),
    [
        (None, "the platform no longer lets acme-1 in: it was revoked or enrolled anew; ask the"),
        (2e9, "the platform no longer lets acme-1 in: it was revoked or enrolled anew; ask the"),
        (1e9, "acme-1 was off until its way back in closed on 2001-09-09; ask the platform's"),
    ],
)
def test_a_server_that_is_turned_away_is_told_so(door_ends: int | None, says: str) -> None:
    """nats-server says the same for a revoked and for an expired token; the door's end tells."""
    finding = turned_away("acme-1", door_ends, NOW.timestamp())
    assert finding.grade is Grade.BAD
    assert finding.detail.startswith(says)
