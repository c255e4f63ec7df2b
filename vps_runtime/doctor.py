"""`byok-vps doctor`: is this server well, and if not, what to do. Reads only, changes nothing.

It signs in with the door token, so it never disturbs the agent's own connection.
"""

import asyncio
import sqlite3
import time
from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum

from cryptography import x509

from bus_schemas.errors import ByokError
from bus_schemas.transport.target import BusUnavailable
from vps_runtime.connection.link import by_the_door
from vps_runtime.connection.rules import read_claims
from vps_runtime.connection.tokens import TokenStore
from vps_runtime.enrolment.pins import read_pins
from vps_runtime.exit_codes import sentence
from vps_runtime.state import StateFolder
from vps_runtime.status import Status, read_status
from vps_runtime.vault.root_file import read_root_file

_DAY = 24 * 3600
_SKEW_WARN = 30
_SKEW_BAD = 300
_WAITING_WARN = 100


class Grade(StrEnum):
    """How a check came out."""

    OK = "ok"
    WARN = "warn"
    BAD = "bad"


@dataclass(frozen=True)
class Finding:
    """One line: what was checked, how it is, and what to do if it is not well."""

    grade: Grade
    check: str
    detail: str

    def __str__(self) -> str:
        return f"{self.grade:<4}  {self.check:<8}  {self.detail}"


async def examine(state: StateFolder) -> list[Finding]:
    """Return all findings, worst or not. Raises NotEnrolled."""
    settings = state.read_settings()
    now = time.time()
    findings = [
        Finding(Grade.OK, "server", f"{settings.server_id} of {settings.owner_id}"),
        *await _link(state),
        _certificate(state, now),
        _unlock(state),
        _pins(state),
    ]
    try:
        findings += slot_findings(await read_status(state))
    except (sqlite3.Error, OSError) as error:
        findings.append(
            Finding(Grade.BAD, "slots", f"{state.outbox} cannot be read: {type(error).__name__}")
        )
    return findings


async def _link(state: StateFolder) -> list[Finding]:
    settings = state.read_settings()
    try:
        store = await asyncio.to_thread(TokenStore, state)
        tokens = await by_the_door(state.target(), settings.server_id, store)
        issued_at = read_claims(tokens.working).issued_at
    except BusUnavailable as error:
        return [Finding(Grade.BAD, "link", f"{sentence(error)}; is the platform up?")]
    except ByokError as error:
        remedy = "ask the platform's operators, or enrol this server anew"
        return [Finding(Grade.BAD, "link", f"{sentence(error)}; {remedy}")]
    door_ends = store.door_claims().expires_at
    return [
        Finding(Grade.OK, "link", f"{settings.url} lets us in and renews tokens"),
        door_finding(door_ends, time.time()),
        skew_finding(time.time() - issued_at),
    ]


def door_finding(ends: int | None, now: float) -> Finding:
    """Judge how long the way back in stays open."""
    if ends is None or ends - now > 7 * _DAY:
        return Finding(Grade.OK, "door", "the way back in is open")
    days = max(0, int((ends - now) / _DAY))
    return Finding(Grade.WARN, "door", f"closes in {days} days; run the agent, it renews it")


def skew_finding(seconds: float) -> Finding:
    """Judge the difference between this clock and the platform's."""
    off = abs(seconds)
    detail = f"{off:.0f} s {'ahead of' if seconds > 0 else 'behind'} the platform"
    if off < _SKEW_WARN:
        return Finding(Grade.OK, "clock", detail)
    grade = Grade.WARN if off < _SKEW_BAD else Grade.BAD
    return Finding(grade, "clock", f"{detail}; switch on time synchronisation (timedatectl)")


def _certificate(state: StateFolder, now: float) -> Finding:
    try:
        certificate = x509.load_pem_x509_certificate(state.ca.read_bytes())
    except (OSError, ValueError):
        return Finding(Grade.BAD, "ca", f"{state.ca} is no certificate; restore it or enrol anew")
    return expiry_finding(certificate.not_valid_after_utc.timestamp(), now)


def expiry_finding(ends: float, now: float) -> Finding:
    """Judge how long the CA's certificate is still good."""
    days = int((ends - now) / _DAY)
    if ends <= now:
        return Finding(Grade.BAD, "ca", "the CA has expired; get the new one from the platform")
    if days < 30:  # noqa: PLR2004 (a month to act in)
        return Finding(Grade.WARN, "ca", f"the CA expires in {days} days; ask for the new one")
    return Finding(Grade.OK, "ca", f"the CA is good for {days} days")


def _unlock(state: StateFolder) -> Finding:
    try:
        g = read_root_file(state.root_file).g
    except FileNotFoundError:
        return Finding(Grade.WARN, "unlock", "never unlocked; start `byok-vps run`")
    except (ByokError, OSError) as error:
        return Finding(Grade.BAD, "unlock", f"{sentence(error)}")
    return Finding(Grade.OK, "unlock", f"generation {g} is on the disk")


def _pins(state: StateFolder) -> Finding:
    try:
        count = len(read_pins(state.pins).pinned)
    except (ByokError, OSError) as error:
        return Finding(Grade.BAD, "pins", sentence(error))
    if count == 0:
        return Finding(Grade.BAD, "pins", "no owner key is obeyed; `byok-vps trust FINGERPRINT`")
    return Finding(Grade.OK, "pins", f"{count} owner key{'s' if count > 1 else ''} obeyed")


def slot_findings(status: Status) -> Sequence[Finding]:
    """Judge what is held, refused and waiting."""
    findings = [
        Finding(Grade.OK, "slot", f"{note.slot_id} holds revision {note.revision}")
        for note in status.slots
    ]
    if not findings:
        findings.append(Finding(Grade.WARN, "slot", "no credential is held; `byok key set` one"))
    findings += [
        Finding(Grade.BAD, "slot", f"{slot}: the newest sealing was refused ({reason})")
        for slot, reason in status.refused.items()
    ]
    if status.waiting > _WAITING_WARN:
        detail = f"{status.waiting} facts wait to be sent; is the agent running and the link up?"
        findings.append(Finding(Grade.WARN, "outbox", detail))
    return findings
