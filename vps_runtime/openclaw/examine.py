"""Asks a running OpenClaw for `byok-vps doctor`. Changes nothing."""

import asyncio
from collections.abc import Mapping
from typing import Any

from bus_schemas.errors import ByokError
from bus_schemas.finding import Finding, Grade
from vps_runtime.gateway.server import DEFAULT_PORT
from vps_runtime.openclaw.config import SlotToUse
from vps_runtime.openclaw.diagnosis import secrets_finding, slot_findings, version_finding
from vps_runtime.openclaw.link import OpenClawRefused, Target, connected
from vps_runtime.openclaw.protocol import CONFIG, STATUS
from vps_runtime.outgoing import open_session
from vps_runtime.state import StateFolder
from vps_runtime.status import read_status


def gateway_of(state: StateFolder) -> str:
    """Return where the gateway listens, or would by default."""
    try:
        return state.gateway_url.read_text("ascii").strip()
    except FileNotFoundError:
        return f"http://127.0.0.1:{DEFAULT_PORT}"


async def openclaw_findings(state: StateFolder, target: Target) -> list[Finding]:
    """Return what the OpenClaw at *target* is like. Raises NotEnrolled."""
    held = (await read_status(state)).slots
    slots = [SlotToUse(note.slot_id, note.provider, "") for note in held]
    try:
        version, status, config = await _ask(target)
    except OpenClawRefused as error:
        remedy = f"is {target.token_file} the token in gateway.auth of its configuration?"
        return [Finding(Grade.BAD, "openclaw", f"{error}; {remedy}")]
    except (ByokError, OSError) as error:
        return [Finding(Grade.BAD, "openclaw", str(error))]
    return [
        version_finding(version),
        secrets_finding(status),
        *slot_findings(config, slots, gateway_of(state)),
    ]


async def _ask(target: Target) -> tuple[str, Mapping[str, Any], Mapping[str, Any]]:
    """Return its version, status and configuration."""
    async with open_session() as client, connected(client, target) as connection:
        listening = asyncio.create_task(connection.listen())
        try:
            status = await connection.ask(STATUS)
            return connection.version, status, await connection.ask(CONFIG)
        finally:
            listening.cancel()
            await asyncio.gather(listening, return_exceptions=True)
