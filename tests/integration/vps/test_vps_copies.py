"""Restored, moved and lost machines against the real evaluator: what each runbook promises.

docs/runbooks.md names these tests.
"""

import asyncio
import shutil
import time
from pathlib import Path

import aiosqlite
import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from bus_schemas.approval import Approval, sign_approval
from bus_schemas.codec import decode
from bus_schemas.errors import Refused
from bus_schemas.event import Event
from bus_schemas.events import UnlockApproved, UnlockRefused
from bus_schemas.flows import Role
from bus_schemas.keys import owner_fingerprint
from bus_schemas.requests import APPROVE
from bus_schemas.transport.jetstream import read_batch, read_last
from platform_handlers.evaluator.keys import UNLOCK_FILE, KeyStore
from platform_handlers.evaluator.servers import FILE_NAME, ServerStore
from platform_handlers.provisioning.join_token import renew_join_token
from tests.integration.vps.conftest import Fleet, of
from tests.integration.vps.starts import connected, copied, eventually, key, send_approval, start
from vps_runtime.enrolment.join import join
from vps_runtime.enrolment.pins import Pins, write_pins
from vps_runtime.recovery.code import forget_recovery_code, make_recovery_code, recover
from vps_runtime.state import StateFolder
from vps_runtime.status import read_status
from vps_runtime.unlock.boot import keep_pins
from vps_runtime.unlock.refusal import last_refusal
from vps_runtime.vault.record import RecordName, open_record, seal_record
from vps_runtime.vault.recovery import code_typed
from vps_runtime.vault.store import Vault

SERVER = "acme-1"


@pytest.fixture
async def state(fleet: Fleet) -> StateFolder:
    """An enrolled server that was never unlocked."""
    folder: StateFolder = await fleet.enrol(SERVER)
    return folder


async def code_of(copy: StateFolder) -> str:
    """Let *copy* be refused, and return the code that its console shows then."""
    with pytest.raises(Refused, match="byok server approve acme-1") as caught:
        await start(copy)
    refusal = (await read_status(copy)).refusal
    assert refusal is not None
    assert refusal.code in str(caught.value)
    return refusal.code


def word(fleet: Fleet, code: str, *, by: Ed25519PrivateKey | None = None, age: int = 0) -> Approval:
    """Return an approval of *code*, signed *age* seconds ago."""
    issued_at = int(time.time()) - age
    return sign_approval(by or fleet.owner_key, server_id=SERVER, code=code, issued_at=issued_at)


async def unlock_facts(fleet: Fleet) -> list[Event]:
    """Return what the ledger has on the server's unlocks."""
    messages = await read_batch(fleet.ops, "BYOK_LEDGER", 1, 4096)
    return [
        decode(m.data, m.subject).data for m in messages if m.subject == f"byok.v1.unlock.{SERVER}"
    ]


def keep_something(state: StateFolder, root_key: bytes) -> None:
    """Put a record into the vault."""
    name = RecordName(SERVER, "anthropic", 1)
    Vault(state.vault, SERVER).write(name, seal_record(root_key, name, b"made-up"))


def kept(state: StateFolder, root_key: bytes) -> bytes:
    """Return the record's plaintext."""
    name = RecordName(SERVER, "anthropic", 1)
    return open_record(root_key, Vault(state.vault, SERVER).read(name), name)[1]


# --- runbooks ---


async def test_runbook_snapshot_restore(fleet: Fleet, state: StateFolder, tmp_path: Path) -> None:
    """An older disk comes back with its owner's word; from then on what ran last is the copy."""
    first = await start(state)
    snapshot = copied(state, tmp_path / "snapshot")
    await start(state)
    latest = await start(state)
    assert await send_approval(fleet, word(fleet, await code_of(snapshot))) is None
    restored = await start(snapshot)
    assert key(restored) == key(first)
    assert restored.incarnation == latest.incarnation + 1
    assert last_refusal(snapshot) is None
    with pytest.raises(Refused, match="stale_generation"):
        await start(state)
    assert key(await start(snapshot)) == key(first)

    async def told() -> bool:
        return len(of(await unlock_facts(fleet), UnlockRefused)) == 2

    await eventually(told)
    facts = [type(fact) for fact in await unlock_facts(fleet)]
    assert facts.index(UnlockRefused) < facts.index(UnlockApproved)
    [approved] = of(await unlock_facts(fleet), UnlockApproved)
    assert approved.signer == fleet.owner_key.public_key().public_bytes_raw()


async def test_runbook_move_to_another_host(state: StateFolder, tmp_path: Path) -> None:
    """The folder is copied while the agent is stopped; the host that was left is out after that."""
    before = await start(state)
    keep_something(state, key(before))
    there = copied(state, tmp_path / "there")
    moved = await start(there)
    assert kept(there, key(moved)) == b"made-up"
    with pytest.raises(Refused, match="stale_generation"):
        await start(state)
    assert key(await start(there)) == key(before)


async def test_runbook_resize(state: StateFolder, tmp_path: Path) -> None:
    """A disk that was taken along as it was last is the newest; it needs nobody's leave."""
    before = await start(state)
    larger = copied(state, tmp_path / "larger")
    shutil.rmtree(state.root)
    after = await start(larger)
    assert (key(after), after.incarnation) == (key(before), before.incarnation + 1)


async def test_runbook_reimage(fleet: Fleet, state: StateFolder, tmp_path: Path) -> None:
    """Enrolled again it begins anew, its starts go on counting, and the old disk is worthless."""
    old_key = key(await start(state))
    old = copied(state, tmp_path / "old")
    seed = await unlock_seed(fleet)
    again = await enrolled_again(fleet, tmp_path / "again")
    fresh = await start(again)
    assert key(fresh) != old_key
    assert fresh.incarnation == 2
    with pytest.raises(Refused, match="bad_signature"):
        await start(speaking_as(old, again))
    folder = fleet.platform.installation.evaluator
    assert all(seed not in path.read_bytes() for path in folder.glob("unlock-keys.db*"))


async def test_runbook_reimage_with_a_recovery_code(
    fleet: Fleet, state: StateFolder, tmp_path: Path
) -> None:
    """A vault that was saved opens on the new machine, although the old unlock key is gone."""
    before = await start(state)
    keep_something(state, key(before))
    code = code_typed(await make_recovery_code(state))
    old = copied(state, tmp_path / "old")
    again = await enrolled_again(fleet, tmp_path / "again")
    shutil.copytree(old.vault, again.vault)
    shutil.copy(old.recovery, again.recovery)
    assert await recover(again, code) == 3
    after = await start(again)
    assert kept(again, key(after)) == b"made-up"


async def unlock_seed(fleet: Fleet) -> bytes:
    """Return the seed of the server's unlock key."""
    keys = await KeyStore.open(fleet.platform.installation.evaluator)
    try:
        return (await keys.unlock_key(SERVER)).seed
    finally:
        await keys.close()


async def enrolled_again(fleet: Fleet, folder: Path) -> StateFolder:
    """Let a new machine take the server's place."""
    installation, url = fleet.platform.installation, fleet.platform.server.target.url
    token = await renew_join_token(installation, fleet.registry, url, SERVER)
    state = StateFolder(folder)
    await join(state, token, fleet.fingerprint)
    return state


def speaking_as(old: StateFolder, new: StateFolder) -> StateFolder:
    """Give the old disk the new machine's way in to the bus: worse than any thief of the old."""
    for path in (new.tokens, new.nkey_seed):
        shutil.copy(path, old.root)
    return old


# --- approvals ---


async def test_an_approval_is_the_owners_for_this_server_and_this_hour(
    fleet: Fleet, state: StateFolder, tmp_path: Path
) -> None:
    """No key of the platform's, no stranger's, no old word, none for another server."""
    await start(state)
    snapshot = copied(state, tmp_path / "snapshot")
    await start(state)
    await fleet.enrol("acme-2")
    code = await code_of(snapshot)
    installation = fleet.platform.installation
    platforms = [installation.signing_key(role) for role in (Role.ISSUER, Role.API, Role.OPS)]
    signing = (installation.evaluator / "signing.key").read_bytes()
    platforms.append(Ed25519PrivateKey.from_private_bytes(signing))
    for signer in (*platforms, Ed25519PrivateKey.generate()):
        assert await send_approval(fleet, word(fleet, code, by=signer)) == "not_an_owner_key"
    forged = word(fleet, code, by=platforms[0]).model_copy(
        update={"public_key": fleet.owner_key.public_key().public_bytes_raw()}
    )
    assert await send_approval(fleet, forged) == "bad_signature"
    assert await send_approval(fleet, word(fleet, code, age=3601)) == "approval_expired"
    good = word(fleet, code)
    assert await send_approval(fleet, good, to="acme-2") == "wrong_server"
    moved = good.model_copy(update={"server_id": "acme-2"})
    assert await send_approval(fleet, moved) == "bad_signature"
    with pytest.raises(Refused, match="stale_generation"):
        await start(snapshot)


async def test_an_approval_lets_one_copy_in_once(
    fleet: Fleet, state: StateFolder, tmp_path: Path
) -> None:
    """A second copy of the same snapshot, and the same words again, are refused."""
    await start(state)
    snapshot = copied(state, tmp_path / "snapshot")
    thief = copied(state, tmp_path / "thief")
    await start(state)
    approval = word(fleet, await code_of(snapshot))
    assert await code_of(thief) == approval.code
    assert await send_approval(fleet, word(fleet, "A" * 20, age=60)) == "unknown_copy"
    assert await send_approval(fleet, approval) is None
    assert await send_approval(fleet, approval) is None
    await start(snapshot)
    used = word(fleet, approval.code, age=-60)
    assert await send_approval(fleet, used) == "unknown_copy"
    with pytest.raises(Refused, match="stale_generation"):
        await start(thief)
    assert await send_approval(fleet, approval) == "approval_replayed"
    with pytest.raises(Refused, match="stale_generation"):
        await start(thief)


async def test_an_answer_to_an_approval_is_stored_nowhere(fleet: Fleet, state: StateFolder) -> None:
    """The API sits in the evaluator's own account, where nobody but us checks a reply subject."""
    client = await (await fleet.platform.bus(Role.API)).client()
    place = "byok.v1.ratchet.acme-9"
    await client.publish(APPROVE.fill({"server_id": SERVER}), b"{}", reply=place)
    await client.flush()
    assert await send_approval(fleet, word(fleet, "A" * 20)) == "not_an_owner_key"
    evaluator = await fleet.platform.bus(Role.EVALUATOR)
    assert await read_last(evaluator, "BYOK_RATCHET", place) is None


async def test_a_key_pinned_while_the_agent_runs_may_approve_at_once(
    fleet: Fleet, state: StateFolder, tmp_path: Path
) -> None:
    """The evaluator hears of a change of pins without a start, and a removed key is out."""
    await start(state)
    snapshot = copied(state, tmp_path / "snapshot")
    await start(state)
    code = await code_of(snapshot)
    second = Ed25519PrivateKey.generate()
    changed = asyncio.Event()
    async with connected(state) as evaluator:
        keeping = asyncio.create_task(keep_pins(state, SERVER, evaluator, changed))
        pin = owner_fingerprint(second.public_key().public_bytes_raw())
        write_pins(state.pins, Pins(pinned=(pin,)))
        changed.set()

        async def heard() -> bool:
            return await send_approval(fleet, word(fleet, code, by=second)) is None

        await eventually(heard)
        keeping.cancel()
    assert await send_approval(fleet, word(fleet, code)) == "not_an_owner_key"
    await start(snapshot)


async def test_damaged_pins_leave_the_owners_way_back(
    fleet: Fleet, state: StateFolder, tmp_path: Path
) -> None:
    """A start that cannot read whom it obeys takes nothing from those that the evaluator knows."""
    await start(state)
    snapshot = copied(state, tmp_path / "snapshot")
    state.pins.write_bytes(b"{")
    await start(state)
    assert await send_approval(fleet, word(fleet, await code_of(snapshot))) is None
    await start(snapshot)


# --- the recovery code ---


async def test_a_recovery_code_opens_when_the_evaluator_lost_its_key(
    fleet: Fleet, state: StateFolder
) -> None:
    """It makes a new key only in a recovery window; the code opens then, the disk alone not."""
    before = await start(state)
    code = code_typed(await make_recovery_code(state))
    folder = fleet.platform.installation.evaluator
    async with aiosqlite.connect(folder / UNLOCK_FILE) as file:  # an older back-up has no row
        await file.execute("DELETE FROM unlock_keys")
        await file.commit()
    with pytest.raises(Refused, match="unlock_key_missing"):
        await start(state)
    servers = await ServerStore.open(folder / FILE_NAME)
    await servers.open_recovery(int(time.time()) + 600)
    await servers.close()
    with pytest.raises(Refused, match="root_key_does_not_open"):
        await start(state)
    with pytest.raises(Refused, match="recovery_code_does_not_fit"):
        await recover(state, bytes(20))
    await recover(state, code)
    assert key(await start(state)) == key(before)


async def test_a_newer_recovery_code_makes_the_one_before_worthless(state: StateFolder) -> None:
    """Shown once each; what was written down before opens nothing, and so it does after forget."""
    root_key = key(await start(state))
    first = code_typed(await make_recovery_code(state))
    file = state.recovery.read_bytes()
    second = code_typed(await make_recovery_code(state))
    assert root_key not in file + state.recovery.read_bytes()
    with pytest.raises(Refused, match="recovery_code_does_not_fit"):
        await recover(state, first)
    assert forget_recovery_code(state)
    assert not forget_recovery_code(state)
    with pytest.raises(Refused, match="no_recovery_file"):
        await recover(state, second)
