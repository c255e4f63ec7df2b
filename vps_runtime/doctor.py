"""`byok-vps doctor`: is this server well, and if not, what to do. Reads only, changes nothing.

It signs in with the door token, so it never disturbs the agent's own connection.
"""

import asyncio
import contextlib
import sqlite3
import time
from collections.abc import Callable, Sequence

from bus_schemas.authorities import read_authorities
from bus_schemas.errors import ByokError, Refused
from bus_schemas.fields import at_utc
from bus_schemas.finding import Finding, Grade, clock_finding
from bus_schemas.transport.presented import presented_certificate
from bus_schemas.transport.target import BusDenied, BusUnavailable, TokenRefused
from vps_runtime.connection.diagnosis import (
    authority_finding,
    bad_certificate,
    certificate_findings,
    turned_away,
)
from vps_runtime.connection.link import by_the_door
from vps_runtime.connection.rules import read_claims
from vps_runtime.connection.tokens import TokenStore
from vps_runtime.enrolment.pins import read_pins
from vps_runtime.exit_codes import sentence
from vps_runtime.memory import memory_findings, read_host
from vps_runtime.state import StateFolder
from vps_runtime.status import Held, Status, read_status
from vps_runtime.unlock.refusal import last_refusal
from vps_runtime.vault.root_file import read_root_file

_DAY = 24 * 3600
_WAITING_WARN = 100


Clock = Callable[[], float]


async def examine(state: StateFolder, *, now: Clock = time.time) -> list[Finding]:
    """Return all findings, worst or not; *now* is this machine's clock, in Unix seconds.

    Raises NotEnrolled.
    """
    settings = state.read_settings()
    findings = [
        Finding(Grade.OK, "server", f"{settings.server_id} of {settings.owner_id}"),
        *await _link(state, now),
        *await _certificates(state, now),
        _unlock(state),
        _pins(state),
        *memory_findings(await asyncio.to_thread(read_host, state.lock_file)),
    ]
    try:
        findings += slot_findings(await read_status(state))
    except (sqlite3.Error, OSError) as error:
        findings.append(
            Finding(Grade.BAD, "slots", f"{state.outbox} cannot be read: {type(error).__name__}")
        )
    return findings


async def _link(state: StateFolder, now: Clock) -> list[Finding]:
    try:
        store = await asyncio.to_thread(TokenStore, state)
        door_ends = store.door_claims().expires_at
    except ByokError as error:
        return [Finding(Grade.BAD, "link", sentence(error))]
    return await _sign_in(state, store, door_ends, now)


async def _sign_in(
    state: StateFolder, store: TokenStore, door_ends: int | None, now: Clock
) -> list[Finding]:
    settings = state.read_settings()
    try:
        tokens = await by_the_door(state.target(), settings.server_id, store)
        issued_at = read_claims(tokens.working).issued_at
    except BusUnavailable as error:
        remedy = "is the platform up, and this machine's way to it open?"
        return [Finding(Grade.BAD, "link", f"{sentence(error)}; {remedy}")]
    except TokenRefused:
        return [turned_away(settings.server_id, door_ends, now())]
    except BusDenied as error:
        return await _denied(state, error, now)
    except ByokError as error:
        if isinstance(error, Refused) and error.reason.startswith("server_"):
            return [turned_away(settings.server_id, None, now())]
        remedy = "ask the platform's operators"
        return [Finding(Grade.BAD, "link", f"{sentence(error)}; {remedy}")]
    return [
        Finding(Grade.OK, "link", f"{settings.url} lets us in and renews tokens"),
        door_finding(door_ends, now()),
        clock_finding(now() - issued_at, "the platform"),
    ]


async def _denied(state: StateFolder, error: BusDenied, now: Clock) -> list[Finding]:
    """Say why TLS failed; an expired CA has a line of its own."""
    at = at_utc(now())
    try:
        trusted = read_authorities(state.ca.read_bytes())
        shown = await presented_certificate(state.read_settings().url)
    except (BusUnavailable, OSError, ValueError):
        return [Finding(Grade.BAD, "link", sentence(error))]
    if trusted[-1].not_valid_after_utc <= at:
        return []
    return [bad_certificate(shown, trusted, state.ca, at)]


def door_finding(ends: int | None, now: float) -> Finding:
    """Judge how long the way back in stays open."""
    if ends is None or ends - now > 7 * _DAY:
        return Finding(Grade.OK, "door", "the way back in is open")
    days = max(0, int((ends - now) / _DAY))
    return Finding(Grade.WARN, "door", f"closes in {days} days; run the agent, it renews it")


async def _certificates(state: StateFolder, now: Clock) -> list[Finding]:
    try:
        trusted = read_authorities(state.ca.read_bytes())
    except (OSError, ValueError):
        remedy = "put the platform's public/ca.pem there"
        return [Finding(Grade.BAD, "ca", f"{state.ca} holds no certificate; {remedy}")]
    found = [authority_finding(trusted[-1], state.ca, at_utc(now()))]
    with contextlib.suppress(BusUnavailable):  # said before
        shown = await presented_certificate(state.read_settings().url)
        found += certificate_findings(shown, at_utc(now()))
    return found


def _unlock(state: StateFolder) -> Finding:
    try:
        if (refusal := last_refusal(state)) is not None:
            return Finding(Grade.BAD, "unlock", f"refused ({refusal.reason}); {refusal.remedy}")
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
        detail = "no owner key is obeyed, so no credential is taken; type what its owner's"
        shows = "`byok owner fingerprint` shows: byok-vps trust FINGERPRINT"
        return Finding(Grade.BAD, "pins", f"{detail} {shows}")
    return Finding(Grade.OK, "pins", f"{count} owner key{'s' if count > 1 else ''} obeyed")


def slot_findings(status: Status) -> Sequence[Finding]:
    """Judge what is held, refused and waiting."""
    findings = [
        Finding(Grade.OK, "slot", f"{note.slot_id} holds revision {note.revision}")
        for note in status.slots
    ]
    if not findings:
        findings.append(Finding(Grade.WARN, "slot", "no credential is held; `byok key set` one"))
    if status.locked:
        remedy = f"its owner lifts that with `byok server unlock {status.server_id}`"
        findings.append(Finding(Grade.WARN, "locked", f"by a signed order; {remedy}"))
    findings += [
        Finding(Grade.WARN, "slot", f"{slot} is stopped by a signed order; {_resume(status, slot)}")
        for slot in sorted(status.stopped)
    ]
    findings += [
        Finding(Grade.BAD, "slot", f"{slot}: the newest sealing was refused ({reason})")
        for slot, reason in status.refused.items()
    ]
    if status.held is not None:
        findings.append(Finding(Grade.WARN, "outbox", held_words(status.waiting, status.held)))
    elif status.waiting > _WAITING_WARN:
        detail = f"{status.waiting} facts wait to be sent; is the agent running and the link up?"
        findings.append(Finding(Grade.WARN, "outbox", detail))
    return findings


def _resume(status: Status, slot: str) -> str:
    return f"its owner resumes it with `byok key resume {status.server_id} {slot}`"


def held_words(waiting: int, held: Held) -> str:
    """Return why facts wait although the link is up."""
    return f"{held.reason}; {waiting} wait until {at_utc(held.until):%H:%M} UTC, none is lost"
