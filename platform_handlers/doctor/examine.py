"""All of `byok doctor`, in the order in which one would mend things."""

import asyncio
import sqlite3
import time

from bus_schemas.errors import ByokError
from bus_schemas.fields import at_utc
from bus_schemas.finding import Finding, Grade
from bus_schemas.flows import Role
from bus_schemas.transport.target import BusTarget
from platform_handlers.authority import rotation
from platform_handlers.authority.installation import Installation
from platform_handlers.authority.role_bus import role_bus
from platform_handlers.doctor import bus, databases, files, rules
from platform_handlers.provisioning.authorities import trusted_by_servers


async def examine(
    installation: Installation, target: BusTarget, *, now: bus.Clock = time.time
) -> list[Finding]:
    """Return all findings; *now* is this machine's clock, in Unix seconds."""
    found = files.authority(installation, at_utc(now()))
    found.append(await asyncio.to_thread(files.disk, installation))
    found += await files.shown(installation, target)
    if any(finding.check == "ca" and finding.grade is Grade.BAD for finding in found):
        return [*found, *await _servers(installation)]  # nobody gets in, for that one reason
    found += await bus.roles(installation, target)
    try:
        found += await _on_the_bus(installation, target, now)
    except ByokError as error:
        if not any(finding.grade is Grade.BAD for finding in found):
            found.append(Finding(Grade.BAD, "bus", f"the bus broke off: {error}; do this again"))
    return [*found, *await _servers(installation)]


async def _on_the_bus(
    installation: Installation, target: BusTarget, now: bus.Clock
) -> list[Finding]:
    setup = await role_bus(installation, target, Role.SETUP).open()
    try:
        found = await bus.streams(installation, setup, now)
    finally:
        await setup.close()
    ops = await role_bus(installation, target, Role.OPS).open()
    try:
        found += await bus.reader_findings(installation, ops)
        found += await bus.server_clocks(ops)
    finally:
        await ops.close()
    return [*found, *await bus.answers(installation, target)]


async def _servers(installation: Installation) -> list[Finding]:
    """Judge what servers have told: their pins and the CAs that they trust."""
    try:
        trusting = await asyncio.to_thread(trusted_by_servers, installation)
        told = await asyncio.to_thread(databases.pins, installation)
        known = rotation.read(installation)
        confirmed = await asyncio.to_thread(databases.revocations_confirmed, installation)
    except (ByokError, sqlite3.Error, OSError) as error:
        detail = f"the registry or config.db cannot be read: {error}"
        return [Finding(Grade.WARN, "servers", f"{detail}; run this as the platform's user")]
    pins = {server: told.get(server) for server in trusting}
    return [
        rules.revocation_finding(confirmed=confirmed),
        *rules.pin_findings(pins),
        *rules.trust_findings(trusting, known.certificates),
    ]
