"""`byok server approve`: from the owner's machine through the API to the evaluator."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from click.testing import CliRunner, Result
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from bus_schemas.approval import copy_code, sign_approval
from bus_schemas.codec import decode
from bus_schemas.errors import Refused
from bus_schemas.events import RatchetAdvanced, ServerProvisioned
from bus_schemas.flows import Role
from bus_schemas.keys import owner_fingerprint
from bus_schemas.nkeys import KeyType, public_nkey
from bus_schemas.streams import RATCHET
from bus_schemas.transport.fresh import fresh
from bus_schemas.transport.jetstream import read_last, store
from bus_schemas.unlock import unlock_check
from platform_handlers.authority.installation import read_evaluator_keys
from platform_handlers.evaluator.app import run_evaluator
from platform_handlers.owner.cli import approve, owner
from platform_handlers.owner.home import Home
from tests.conftest import Platform
from tests.integration.dashboard.conftest import Faces, as_json
from vps_runtime.state import Identity
from vps_runtime.unlock.evaluator import Evaluator
from vps_runtime.unlock.rules import begin

SERVER = "acme-1"
FIRST = begin(None, server_id=SERVER, first_share=b"\x01" * 32, next_share=b"\x02" * 32)
CODE = copy_code(SERVER, 0, unlock_check(FIRST.preimage))


@pytest.fixture
async def evaluator(platform: Platform) -> AsyncIterator[None]:
    """A running evaluator."""
    ready = asyncio.Event()
    task = asyncio.create_task(
        run_evaluator(platform.installation, platform.server.target, ready.set)
    )
    await asyncio.wait_for(ready.wait(), 10)
    yield
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)


@pytest.fixture
async def home(faces: Faces, tmp_path: Path) -> Home:
    """The owner's machine, with a key and connected."""
    home = Home(tmp_path / "home")
    home.make_owner_key()
    ca, token = str(faces.installation.ca), faces.tokens["acme"] + "\n"
    words = ["connect", faces.url, "--ca", ca, "--home", str(home.folder)]
    assert (await asyncio.to_thread(CliRunner().invoke, owner, words, input=token)).exit_code == 0
    return home


async def approving(home: Home, server_id: str = SERVER, code: str = CODE) -> Result:
    """Run `byok server approve`."""
    words = [server_id, code, "--home", str(home.folder)]
    return await asyncio.to_thread(CliRunner().invoke, approve, words)


async def stored_state(platform: Platform) -> RatchetAdvanced:
    """Return what the evaluator keeps of acme-1."""
    bus = await platform.bus(Role.EVALUATOR)
    message = await read_last(bus, RATCHET.name, f"byok.v1.ratchet.{SERVER}")
    assert message is not None
    state = decode(message.data, message.subject).data
    assert isinstance(state, RatchetAdvanced)
    return state


async def started_once(platform: Platform, faces: Faces, pins: tuple[str, ...]) -> None:
    """Let acme-1 unlock once and say whom it obeys; its disk from before is refused then."""
    server = faces.servers[SERVER]
    issuer = await platform.bus(Role.ISSUER)
    provisioned = ServerProvisioned(
        server_id=SERVER,
        owner_id="acme",
        nkey=public_nkey(Ed25519PrivateKey.generate(), KeyType.USER),
        identity_key=server.identity.public_key().public_bytes_raw(),
    )
    await store(issuer, fresh(provisioned))
    bus = await platform.bus(Role.SERVER, SERVER)
    asking = Evaluator(
        bus, Identity(SERVER, server.identity), read_evaluator_keys(platform.installation)
    )
    await asking.unlock(FIRST)
    assert await asking.commit(1, FIRST.next_preimage, pins) == 1
    with pytest.raises(Refused, match="stale_generation"):
        await asking.unlock(FIRST)


async def test_an_owner_approves_from_their_own_machine(
    platform: Platform, faces: Faces, evaluator: None, home: Home
) -> None:
    """The code may be typed in groups; the evaluator keeps it for the machine that comes."""
    pin = owner_fingerprint(home.owner_key().public_key().public_bytes_raw())
    await started_once(platform, faces, (pin,))
    typo = await approving(home, code="A" * 20)
    assert (typo.exit_code, "compare the code on its console" in typo.output) == (65, True)
    assert (await stored_state(platform)).approved_code is None
    done = await approving(home, code=f"{CODE[:4]}-{CODE[4:8]} {CODE[8:].lower()}")
    assert done.exit_code == 0, done.output
    assert f"{CODE[:4]} {CODE[4:8]}" in done.output
    state = await stored_state(platform)
    assert state.approved_code == CODE


async def test_an_approval_that_is_refused_says_why(
    platform: Platform, faces: Faces, evaluator: None, home: Home
) -> None:
    """Each with its own sentence and exit code, and nothing is approved."""
    await started_once(platform, faces, ())
    unpinned = await approving(home)
    assert unpinned.exit_code == 65
    assert "has not pinned" in unpinned.output
    assert (await approving(home, "globex-1")).exit_code == 65  # 404, as if it did not exist
    assert (await approving(home, code="hunter2")).exit_code == 65
    async with faces.client("acme") as client:
        word = sign_approval(home.owner_key(), server_id="acme-2", code=CODE, issued_at=1)
        answer = await client.post(f"/api/servers/{SERVER}/approval", **as_json(word))
        assert (answer.status_code, answer.json()["type"]) == (
            422,
            "urn:byok:problem:wrong-address",
        )
        assert (await client.post(f"/api/servers/{SERVER}/approval")).status_code == 415
    async with faces.client() as stranger:
        answer = await stranger.post(f"/api/servers/{SERVER}/approval", **as_json(word))
        assert answer.status_code == 401
    state = await stored_state(platform)
    assert state.approved_code is None


async def test_without_an_evaluator_an_approval_is_tried_again(
    faces: Faces, home: Home, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nothing is claimed that nobody has kept."""
    monkeypatch.setattr("platform_handlers.dashboard.approvals._WAIT_SECONDS", 0.2)
    assert (await approving(home)).exit_code == 69
