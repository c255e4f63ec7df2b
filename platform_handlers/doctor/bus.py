"""What the bus says: roles, streams, clock, readers, and whether servers are answered."""

import asyncio
import secrets
import sqlite3
import time
from collections.abc import Callable
from datetime import datetime
from typing import Final

from bus_schemas.codec import decode
from bus_schemas.errors import ByokError, ContractError, ReaderMustStop
from bus_schemas.events.fingerprint import FINGERPRINT
from bus_schemas.finding import Finding, Grade, clock_finding
from bus_schemas.flows import Role
from bus_schemas.requests import EVALUATE, TOKEN
from bus_schemas.streams import HEALTH, LEDGER, PARKED, STREAMS, Stream
from bus_schemas.transport.connection import Bus
from bus_schemas.transport.jetstream import StreamError, api, read_batch
from bus_schemas.transport.ledger import check_position
from bus_schemas.transport.target import BusDenied, BusTarget, BusUnavailable, TokenRefused
from platform_handlers.authority.accounts import user_credentials
from platform_handlers.authority.initialise import CORE_ROLES
from platform_handlers.authority.installation import Installation
from platform_handlers.authority.refusal import last_refusal
from platform_handlers.authority.role_bus import role_bus
from platform_handlers.authority.store import STREAM_NOT_FOUND, stored_streams, wrong_key
from platform_handlers.doctor import databases, rules
from platform_handlers.provisioning.service import system_bus

_ANSWER_SECONDS: Final = 3.0
_UNKNOWN: Final = b'{"type": "byok.doctor.asked.v1", "source": "/servers/doctor"}'
_REPORTS = 10_000
"""Health reports that are looked at, at most."""

Clock = Callable[[], float]


async def roles(installation: Installation, target: BusTarget) -> list[Finding]:
    """Judge whether each role's credentials let it in; one line if all do, or if none can."""
    names = [role.value for role in CORE_ROLES]
    tries = await asyncio.gather(
        *(_sign_in(installation, target, role) for role in CORE_ROLES),
        _sign_in(installation, target, None),
    )
    failed = [(name, error) for name, error in zip([*names, "system"], tries, strict=True) if error]
    if not failed:
        detail = f"{target.url} answers over TLS and lets all {len(tries)} roles in"
        return [Finding(Grade.OK, "bus", detail)]
    if len(failed) == len(tries):
        return [Finding(Grade.BAD, "bus", _remedied(installation, failed[0][1]))]
    return [
        Finding(Grade.BAD, "bus", f"role {name} cannot sign in: {_remedied(installation, error)}")
        for name, error in failed
    ]


async def _sign_in(
    installation: Installation, target: BusTarget, role: Role | None
) -> ByokError | OSError | None:
    try:
        bus = role_bus(installation, target, role) if role else system_bus(installation, target)
        await (await bus.open()).close()
    except (ByokError, OSError) as error:
        return error
    return None


def _remedied(installation: Installation, error: ByokError | OSError) -> str:
    if isinstance(error, BusUnavailable):
        if refused := last_refusal(installation):
            return f"{error}; the last `byok nats run` ended with {refused}"
        start = "start `byok nats run` (it says why if it does not stay)"
        return f"{error}; {start}, or open the way to it"
    if isinstance(error, TokenRefused):
        return f"{error}; restore roles/ and nats/ from the same back-up"
    if isinstance(error, BusDenied):
        return f"{error}; run `byok ca renew`, or give --bus the name that the certificate has"
    if isinstance(error, OSError):
        return f"{error.filename}: {error.strerror}; restore roles/ from a back-up"
    return str(error)


async def streams(installation: Installation, bus: Bus, now: Clock) -> list[Finding]:
    """Judge every declared stream and the clock; *bus* has role SETUP."""
    found: list[Finding] = []
    missing: list[Stream] = []
    skews: list[float] = []
    for stream in STREAMS:
        try:
            answer = await api(bus, f"STREAM.INFO.{stream.name}", {})
        except StreamError as error:
            if error.code == STREAM_NOT_FOUND:
                missing.append(stream)
            else:
                found.append(Finding(Grade.BAD, "streams", f"{stream.name}: {error}"))
            continue
        skews.append(now() - datetime.fromisoformat(answer["ts"]).timestamp())
        state = answer["state"]
        found += rules.stream_findings(stream, rules.Info(answer["config"], state["bytes"]))
        if stream is PARKED:
            found.append(rules.parked_finding(state["messages"]))
    found += await asyncio.to_thread(_missing, installation, missing)
    if not any(finding.check == "streams" for finding in found):
        found.insert(0, Finding(Grade.OK, "streams", f"all {len(STREAMS)} are as declared"))
    if skews:
        found.append(clock_finding(min(skews, key=abs), "nats-server"))
    return found


def _missing(installation: Installation, missing: list[Stream]) -> list[Finding]:
    """Tell streams that were never made from those whose key is wrong."""
    stored = stored_streams(installation)
    locked = [stream.name for stream in missing if stream.name in stored]
    found = [
        finding
        for stream in missing
        if stream.name not in locked
        for finding in rules.stream_findings(stream, None)
    ]
    if locked:
        found.append(Finding(Grade.BAD, "streams", wrong_key(installation, locked)))
    return found


async def reader_findings(installation: Installation, bus: Bus) -> list[Finding]:
    """Judge each handler's place in the ledger; *bus* has role OPS."""
    found: list[Finding] = []
    for reader in databases.readers(installation):
        try:
            position = await asyncio.to_thread(databases.position, reader)
            state = await check_position(bus, LEDGER, reader.name, position)
            behind: int | ReaderMustStop | None = (
                state.last - position.sequence if position else None
            )
        except ReaderMustStop as stop:
            behind = stop
        except StreamError:
            return found  # without a ledger there is no place in it, and that was said
        except sqlite3.Error:
            detail = f"{reader.path} cannot be read; run this as the user that it belongs to"
            found.append(Finding(Grade.WARN, "readers", detail))
            continue
        found.append(rules.reader_finding(reader.name, reader.command, behind))
    return found


async def server_clocks(bus: Bus) -> list[Finding]:
    """Judge servers' clocks by their last health reports; *bus* has role OPS."""
    skews: dict[str, float] = {}
    start = 1
    try:
        while start <= _REPORTS and (batch := await read_batch(bus, HEALTH.name, start, 1000)):
            start = batch[-1].sequence + 1
            for message in batch:
                try:
                    envelope = decode(message.data, message.subject)
                except (ContractError, ByokError):
                    continue
                stored = datetime.fromisoformat(message.stored_at)
                server = message.subject.rpartition(".")[2]
                skews[server] = (envelope.time - stored).total_seconds()
    except BusUnavailable:
        return []
    return rules.server_clock_findings(skews)


async def answers(installation: Installation, target: BusTarget) -> list[Finding]:
    """Judge whether issuer, evaluator and intake answer, asked the way a server asks.

    Under an id that was never issued: all refuse it, and nothing is noted. The intake is asked with
    a type that no build knows, which it stores at no time.
    """
    name = f"doctor-{secrets.token_hex(8)}"
    credentials = user_credentials(installation, Role.SERVER, name, now=int(time.time()))
    bus = Bus(target, name, lambda: credentials)
    try:
        await bus.open()
    except ByokError as error:
        return [Finding(Grade.BAD, "servers", f"a server could not sign in: {error}")]
    asker = {"server_id": name}
    try:
        asking = (
            _answer(bus, TOKEN.fill(asker), "issuer", "byok platform run"),
            _answer(bus, EVALUATE.fill(asker), "evaluator", "byok evaluator run"),
            _answer(bus, FINGERPRINT.fill(asker), "intake", "byok platform run", _UNKNOWN),
        )
        return [*await asyncio.gather(*asking)]
    finally:
        await bus.close()


async def _answer(bus: Bus, subject: str, who: str, command: str, body: bytes = b"{}") -> Finding:
    try:
        await bus.request(subject, body, wait=_ANSWER_SECONDS)
    except BusUnavailable:
        return rules.answer_finding(who, command, answered=False)
    return rules.answer_finding(who, command, answered=True)
