"""Why the platform cannot be reached, and how long its certificates are good. Pure.

Each sentence says what to do and who does it. Left to others: trying, and reading files.
"""

from collections.abc import Sequence
from datetime import datetime
from pathlib import Path

from cryptography import x509
from cryptography.exceptions import InvalidSignature

from bus_schemas.authorities import valid_at
from bus_schemas.fields import at_utc
from bus_schemas.finding import DAYS_AHEAD, Finding, Grade, expiry_finding, span

_DAY = 24 * 3600


def turned_away(server_id: str, door_ends: int | None, now: float) -> Finding:
    """Judge a refused token: nats-server does not tell why."""
    ask = f"ask the platform's operators what `byok server show {server_id}` says"
    if door_ends is not None and now >= door_ends:
        was = f"{server_id} was off until its way back in closed on {at_utc(door_ends):%Y-%m-%d}"
        return Finding(Grade.BAD, "link", f"{was}; ask the platform's operators to enrol it anew")
    detail = f"the platform no longer lets {server_id} in: it was revoked or enrolled anew; {ask}"
    return Finding(Grade.BAD, "link", detail)


def bad_certificate(
    shown: x509.Certificate, trusted: Sequence[x509.Certificate], ca_file: Path, at: datetime
) -> Finding:
    """Judge a certificate that TLS did not accept: whose fault it is, and what to do."""
    if shown.not_valid_before_utc > at:
        behind = span((shown.not_valid_before_utc - at).total_seconds())
        detail = f"this clock is at least {behind} behind the platform"
        return Finding(Grade.BAD, "clock", f"{detail}; set it: timedatectl set-ntp true")
    signers = [ca for ca in trusted if _signed(shown, ca)]
    if not signers:
        detail = (
            "the platform shows a certificate of a CA that is not trusted here; if its operators"
            f" confirm that they changed it, put their public/ca.pem at {ca_file}"
        )
        return Finding(Grade.BAD, "link", detail)
    if not any(valid_at(ca, at) for ca in signers):
        detail = "the platform still uses a CA that has expired; ask its operators to change it"
        return Finding(Grade.BAD, "link", detail)
    if shown.not_valid_after_utc <= at:
        detail = "the platform's certificate has expired; ask its operators to run `byok ca renew`"
        return Finding(Grade.BAD, "link", f"{detail}, or set this clock if it is wrong")
    detail = "the platform's certificate is not for the host in settings.json; ask its operators"
    return Finding(Grade.BAD, "link", f"{detail} for one that is")


def certificate_findings(shown: x509.Certificate, at: datetime) -> list[Finding]:
    """Warn of the end of the certificate that the platform shows."""
    days = (shown.not_valid_after_utc - at).total_seconds() / _DAY
    if days >= DAYS_AHEAD:
        return []
    remedy = "tell its operators to run `byok ca renew`"
    return [expiry_finding("certificate", "the platform's certificate", days, remedy)]


def authority_finding(newest: x509.Certificate, ca_file: Path, at: datetime) -> Finding:
    """Judge the newest CA in *ca_file*; whatever is beside it is on its way out."""
    days = (newest.not_valid_after_utc - at).total_seconds() / _DAY
    if days <= 0:
        remedy = f"ask the platform's operators for their new public/ca.pem and put it at {ca_file}"
    else:
        remedy = "tell the platform's operators to run `byok ca add`; the new one comes by itself"
    return expiry_finding("ca", "the CA of the platform", days, remedy)


def _signed(certificate: x509.Certificate, ca: x509.Certificate) -> bool:
    try:
        certificate.verify_directly_issued_by(ca)
    except (InvalidSignature, ValueError, TypeError):
        return False
    return True
