"""`byok-vps doctor`: is this server well, and if not, what to do. Reads only, changes nothing.

It signs in with the door token, so it never disturbs the runtime's own connection.
"""

import asyncio
import contextlib
import sqlite3
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from bus_schemas.authorities import read_authorities
from bus_schemas.errors import ByokError, Refused
from bus_schemas.events.health import Validity
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
from vps_runtime.gateway.examine import gateway_finding
from vps_runtime.openclaw.examine import openclaw_findings
from vps_runtime.openclaw.link import Target
from vps_runtime.process_memory import memory_findings, read_host
from vps_runtime.state import StateFolder
from vps_runtime.status import HeldUp, SlotStatus, Status, read_status
from vps_runtime.unlock.refusal import last_refusal
from vps_runtime.vault.root_file import read_root_file

_DAY = 24 * 3600
_WAITING_WARN = 100


Clock = Callable[[], float]


@dataclass(frozen=True)
class _Link:
    """What came of signing in."""

    findings: list[Finding]
    turned_away: bool = False


async def examine(
    state: StateFolder, *, now: Clock = time.time, openclaw: Target | None = None
) -> list[Finding]:
    """Return all findings, worst or not; *now* is this machine's clock, in Unix seconds.

    Of *openclaw*, too, if one is named.

    Raises NotEnrolled.
    """
    settings = state.read_settings()
    link = await _link(state, now)
    locked = False
    try:
        status = await read_status(state)
        slots, locked = slot_findings(status, turned_away=link.turned_away), status.locked
    except (sqlite3.Error, OSError) as error:
        detail = f"{state.outbox} cannot be read: {type(error).__name__}"
        slots = [Finding(Grade.BAD, "slots", detail)]
    return [
        Finding(Grade.OK, "server", f"{settings.server_id} of {settings.owner_id}"),
        *link.findings,
        *await _certificates(state, now),
        _unlock(state),
        _pins(state),
        *memory_findings(await asyncio.to_thread(read_host, state.lock_file), locked=locked),
        await gateway_finding(state),
        *slots,
        *(await openclaw_findings(state, openclaw) if openclaw else ()),
    ]


async def _link(state: StateFolder, now: Clock) -> _Link:
    try:
        store = await asyncio.to_thread(TokenStore, state)
        door_ends = store.door_claims().expires_at
    except ByokError as error:
        return _Link([Finding(Grade.BAD, "link", sentence(error))])
    return await _sign_in(state, store, door_ends, now)


async def _sign_in(
    state: StateFolder, store: TokenStore, door_ends: int | None, now: Clock
) -> _Link:
    settings = state.read_settings()
    try:
        tokens = await by_the_door(state.target(), settings.server_id, store)
        issued_at = read_claims(tokens.working).issued_at
    except BusUnavailable as error:
        remedy = "is the platform up, and this machine's way to it open?"
        return _Link([Finding(Grade.BAD, "link", f"{sentence(error)}; {remedy}")])
    except TokenRefused:
        return _Link([turned_away(settings.server_id, door_ends, now())], turned_away=True)
    except BusDenied as error:
        return _Link(await _denied(state, error, now))
    except ByokError as error:
        if isinstance(error, Refused) and error.reason.startswith("server_"):
            return _Link([turned_away(settings.server_id, None, now())], turned_away=True)
        remedy = "ask the platform's operators"
        return _Link([Finding(Grade.BAD, "link", f"{sentence(error)}; {remedy}")])
    return _Link(
        [
            Finding(Grade.OK, "link", f"{settings.url} lets us in and renews tokens"),
            door_finding(door_ends, now()),
            clock_finding(now() - issued_at, "the platform"),
        ]
    )


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
    return Finding(Grade.WARN, "door", f"closes in {days} days; start `byok-vps run`, it renews it")


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


def slot_findings(status: Status, *, turned_away: bool = False) -> Sequence[Finding]:
    """Judge what is held, refused and waiting. No order reaches who is *turned_away*."""
    findings = [_slot(slot) for slot in status.slots]
    if not findings:
        findings.append(Finding(Grade.WARN, "slot", "no credential is held; `byok key set` one"))
    if status.locked:
        remedy = f"; its owner lifts that with `byok server unlock {status.server_id}`"
        by = "by a signed order" + ("" if turned_away else remedy)
        findings.append(Finding(Grade.WARN, "locked", by))
    for slot in sorted(status.stopped):
        remedy = f"; its owner resumes it with `byok key resume {status.server_id} {slot}`"
        by = f"{slot} is stopped by a signed order" + ("" if turned_away else remedy)
        findings.append(Finding(Grade.WARN, "slot", by))
    findings += [_refused(status, slot, reason) for slot, reason in status.refused.items()]
    if status.held is not None:
        findings.append(Finding(Grade.WARN, "outbox", held_words(status.waiting, status.held)))
    elif status.waiting > _WAITING_WARN:
        detail = f"{status.waiting} facts wait to be sent; is `byok-vps run` up, and the link?"
        findings.append(Finding(Grade.WARN, "outbox", detail))
    return findings


def _slot(slot: SlotStatus) -> Finding:
    if slot.current is None:
        return Finding(Grade.WARN, "slot", slot.words)
    bad = slot.validity is Validity.INVALID
    return Finding(Grade.BAD if bad else Grade.OK, "slot", slot.words)


def _refused(status: Status, slot: str, reason: str) -> Finding:
    """Judge a refused sealing: anybody with the owner's API token can send one that must be."""
    held = next((one.current for one in status.slots if one.slot_id == slot), None)
    now = "no credential is in use" if held is None else f"revision {held} stays in use"
    again = f"if it was yours, send it again with `byok key set {status.server_id} {slot}`"
    detail = f"{slot}: the newest sealing was refused ({reason}), {now}; {again}"
    return Finding(Grade.BAD if held is None else Grade.WARN, "slot", detail)


def held_words(waiting: int, held: HeldUp) -> str:
    """Return why facts wait although the link is up."""
    return f"{held.reason}; {waiting} wait until {at_utc(held.until):%H:%M} UTC, none is lost"
