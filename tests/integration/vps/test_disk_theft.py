"""Stolen disks, recordings of everything, every stream: what they open, and what they do not."""

import contextlib
import shutil
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from bus_schemas.codec import decode
from bus_schemas.errors import Refused
from bus_schemas.evaluation import (
    CommitReply,
    EvaluationReply,
    RefusalReply,
    UnlockReply,
    read_reply,
)
from bus_schemas.events import CredentialStored, UnlockRefused
from bus_schemas.requests import EVALUATE
from bus_schemas.streams import STREAMS
from bus_schemas.transport.connection import Bus
from bus_schemas.transport.jetstream import read_batch
from tests.integration.vps.conftest import Fleet, api_key, of
from tests.integration.vps.starts import copied, eventually, key, killed_start, start
from tests.integration.vps.thief import Recording, Thief
from tests.system.conftest import ACCOUNTS, omnipotent
from vps_runtime.connection.tokens import TokenStore
from vps_runtime.state import StateFolder
from vps_runtime.vault.credentials import CredentialRecord

SECRET = "sk-ant-api03-canary-0123456789"


@pytest.fixture
async def recording(fleet: Fleet) -> AsyncIterator[Recording]:
    """Everything that goes over the bus from now on, in every account."""
    heard = Recording()
    async with contextlib.AsyncExitStack() as stack:
        for account in ACCOUNTS:
            target = fleet.platform.server.target
            bus = await omnipotent(fleet.platform.installation, target, account)
            stack.push_async_callback(bus.close)
            await bus.listen(">", heard.hear)
            await (await bus.client()).flush()
        yield heard


async def streams(fleet: Fleet) -> list[bytes]:
    """Return every message of every stream."""
    bus = await omnipotent(fleet.platform.installation, fleet.platform.server.target, "CORE")
    found: list[bytes] = []
    try:
        for stream in STREAMS:
            start_at = 1
            while batch := await read_batch(bus, stream.name, start_at, 500):
                found += [message.data for message in batch]
                start_at = batch[-1].sequence + 1
    finally:
        await bus.close()
    return found


async def test_disks_recordings_and_streams_open_nothing_without_the_evaluator(
    fleet: Fleet, recording: Recording, tmp_path: Path
) -> None:
    """All of them together open no vault and no envelope; with the evaluator's keys they do."""
    disks = []
    for server_id in ("acme-1", "acme-2"):
        state = await fleet.enrol(server_id)
        disks.append(copied(state, tmp_path / f"{server_id}@joined").root)
        agent = await fleet.start(state)
        await fleet.send(await fleet.seal(server_id, payload=api_key(SECRET)))
        await fleet.until(server_id, lambda told: of(told, CredentialStored))
        disks.append(copied(state, tmp_path / f"{server_id}@held").root)
        await agent.stop()
        again = await fleet.start(state)
        await again.ready()
        await again.stop()
        disks.append(copied(state, tmp_path / f"{server_id}@later").root)
    heard = [data for _, data in recording.messages] + await streams(fleet)
    assert len([data for data in heard if b'"sig"' in data]) >= 2
    assert recording.on("byok.v1.evaluate.acme-1")

    assert not Thief(disks, heard).opens()

    evaluator = tmp_path / "evaluator"
    shutil.copytree(fleet.platform.installation.evaluator, evaluator)
    loot = Thief([*disks, evaluator], heard).opens()
    assert len(loot.root_keys) == 2
    assert len(loot.credentials) >= 2
    assert all(SECRET.encode() in credential.reveal_json() for credential in loot.credentials)
    held = [
        CredentialRecord.model_validate_json(raw).payload
        for name, raw in loot.records.items()
        if name.slot == "anthropic"
    ]
    assert len(held) == 2
    assert all(SECRET.encode() in payload for payload in held)


@pytest.mark.parametrize("lost", [None, "answered", "replaced"])
async def test_an_older_disk_and_every_recorded_request_are_refused(
    fleet: Fleet, recording: Recording, tmp_path: Path, lost: str | None
) -> None:
    """Also when the last commit got lost; it is told, and the live server goes on booting."""
    state = await fleet.enrol("acme-1")
    live = await start(state)
    await start(state)
    older = copied(state, tmp_path / "older")
    if lost is None:
        await start(state)
    else:
        await killed_start(state, lost)
    recorded = recording.on("byok.v1.evaluate.acme-1")
    assert len(recorded) >= 8

    replies = [read_reply(raw) for raw in await asked(older, recorded)]
    opening = (UnlockReply, EvaluationReply, CommitReply)
    assert not [reply for reply in replies if isinstance(reply, opening)]
    assert "stale_nonce" in {reply.reason for reply in replies if isinstance(reply, RefusalReply)}
    with pytest.raises(Refused, match="stale_generation"):
        await start(older)

    async def told() -> bool:
        messages = await read_batch(fleet.ops, "BYOK_LEDGER", 1, 4096)
        facts = [decode(m.data, m.subject).data for m in messages]
        return UnlockRefused(server_id="acme-1", reason="stale_generation") in facts

    await eventually(told)
    assert key(await start(state)) == key(live)
    assert key(await start(state)) == key(live)


async def asked(disk: StateFolder, requests: list[bytes]) -> list[bytes]:
    """Send recorded *requests* once more, with the way in to the bus that is on the *disk*."""
    bus = await Bus(disk.target(), "acme-1", TokenStore(disk).working).open()
    subject = EVALUATE.fill({"server_id": "acme-1"})
    try:
        return [(await bus.request(subject, raw, wait=5)).data for raw in requests]
    finally:
        await bus.close()
