"""Another machine becomes the server: the old one is out, the new one asks for its keys."""

import asyncio
import subprocess
import sys
from datetime import UTC, datetime
from pathlib import Path

import pytest

from bus_schemas.errors import Refused
from bus_schemas.events import CredentialNeedsKey, CredentialStored, SealingKeyPublished
from bus_schemas.keys import verify_sealing_key
from bus_schemas.transport.target import BusDenied
from platform_handlers.provisioning.join_token import renew_join_token
from platform_handlers.provisioning.turn_away import turn_away
from tests.integration.vps.conftest import Agent, Fleet, of
from vps_runtime.connection.link import by_the_door
from vps_runtime.connection.tokens import TokenStore
from vps_runtime.doctor import examine
from vps_runtime.enrolment.join import join
from vps_runtime.state import StateFolder

SERVER = "acme-1"
_BOUND_SECONDS = 20.0


async def log_line(agent: Agent, event: str) -> None:
    """Wait until *agent* has said *event*."""
    async with asyncio.timeout(_BOUND_SECONDS):
        while not any(line["event"] == event for line in agent.lines()):
            assert agent.process.returncode is None, agent.log.read_text()
            await asyncio.sleep(0.05)


def status_of(state: StateFolder) -> str:
    """Return what `byok-vps status` prints."""
    code = "from vps_runtime.cli import main; main()"
    command = [sys.executable, "-c", code, "status", "--state", str(state.root)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    return done.stdout


async def test_another_machine_takes_a_servers_place(fleet: Fleet) -> None:
    """The old one is out and says so once; the new one's slots need their keys and get them."""
    old = await fleet.enrol(SERVER)
    before = await fleet.start(old)
    await before.ready()
    await fleet.send(await fleet.seal(SERVER, revision=1))
    told = await fleet.until(SERVER, lambda events: of(events, CredentialStored))
    known = len(told)

    installation, target = fleet.platform.installation, fleet.platform.server.target
    token = await renew_join_token(installation, fleet.registry, target.url, SERVER)
    seen = await turn_away(installation, target, fleet.registry, SERVER)
    assert (seen.verified, seen.left) == (True, 0)
    await log_line(before, "turned_away")
    with pytest.raises(BusDenied):
        await by_the_door(old.target(), SERVER, TokenStore(old))
    assert "turned away by the platform since" in await asyncio.to_thread(status_of, old)
    assert any("no longer lets" in finding.detail for finding in await examine(old))

    new = StateFolder(fleet.folder / "replacement")
    identity = await join(new, token, fleet.fingerprint)
    after = await fleet.start(new)
    assert (await after.ready())["incarnation"] > 1  # it goes on counting
    told = await fleet.until(SERVER, lambda events: of(events[known:], CredentialNeedsKey))
    assert of(told[known:], CredentialNeedsKey)[0].slot_id == "anthropic"
    published = of(told[known:], SealingKeyPublished)[-1]
    verify_sealing_key(
        published.signed_key,
        server_id=SERVER,
        identity_public_key=identity.public_key,
        at=datetime.now(UTC),
    )
    await fleet.send(await fleet.seal(SERVER, revision=2))
    told = await fleet.until(SERVER, lambda events: of(events[known:], CredentialStored))
    assert of(told[known:], CredentialStored)[-1].revision == 2

    assert before.process.returncode is None  # it stays, and knocks once an hour
    outcry = [line for line in before.lines() if line["level"] in {"warning", "error"}]
    assert [line["event"] for line in outcry].count("turned_away") == 1
    assert len(outcry) < 6, outcry
    assert await before.stop() == 0


async def test_a_folder_that_is_enrolled_is_not_joined_again(fleet: Fleet, tmp_path: Path) -> None:
    """Neither as another server nor as the same one anew; it says what to do instead."""
    state = await fleet.enrol(SERVER)
    kept = {path: path.read_bytes() for path in state.root.iterdir() if path.is_file()}
    token = await fleet.join_token("acme-2")
    with pytest.raises(Refused, match=r"already_enrolled: .*acme-1 already.*mv .*\.old"):
        await join(state, token, fleet.fingerprint)
    again = token.model_copy(update={"server_id": SERVER})
    with pytest.raises(Refused, match=r"its credentials must be sent again"):
        await join(state, again, fleet.fingerprint)
    assert {path: path.read_bytes() for path in state.root.iterdir() if path.is_file()} == kept
    await join(StateFolder(tmp_path / "another"), token, fleet.fingerprint)
