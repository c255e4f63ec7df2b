"""What the evaluator turns away, and that nobody else pays for it; against a real bus."""

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from bus_schemas.approval import ApprovalReply, sign_approval
from bus_schemas.evaluation import ChallengeRequest, FingerprintRequest, RefusalReply, UnlockRequest
from bus_schemas.events import ServerRevoked, ServerUnlocked, UnlockRefused
from bus_schemas.flows import Role
from bus_schemas.keys import owner_fingerprint
from bus_schemas.oprf import blind
from bus_schemas.requests import APPROVE
from bus_schemas.transport.fresh import fresh
from bus_schemas.transport.jetstream import store
from bus_schemas.unlock import unlock_preimage
from platform_handlers.evaluator import handler, roster
from platform_handlers.evaluator.app import run_evaluator
from platform_handlers.evaluator.keys import KeyStore
from tests.conftest import Platform
from tests.integration.test_evaluator import SERVER, Machine, facts

SHARES = [bytes([number]) * 32 for number in range(4)]


@pytest.fixture
def narrow(monkeypatch: pytest.MonkeyPatch) -> None:
    """Room for one request, and for one fact of a refusal an hour."""
    monkeypatch.setattr(handler, "_AT_ONCE", 1)
    monkeypatch.setattr(handler, "_TOLD_PER_HOUR", 1)
    monkeypatch.setattr(roster, "_NEWS_SECONDS", 4.0)


@pytest.fixture
async def enrolled(platform: Platform, narrow: None) -> AsyncIterator[Machine]:
    """A server, and an evaluator that serves it."""
    ready = asyncio.Event()
    running = run_evaluator(platform.installation, platform.server.target, ready.set)
    task = asyncio.create_task(running)
    await asyncio.wait_for(ready.wait(), 10)
    machine = Machine(platform, await platform.bus(Role.SERVER, SERVER))
    await machine.enrol()
    await machine.nonce()
    yield machine
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)


def reason(reply: object) -> str:
    """Return why *reply* says no."""
    assert isinstance(reply, RefusalReply)
    return reply.reason


async def test_a_badly_signed_request_keeps_nobody_out(enrolled: Machine) -> None:
    """It waits for news of another machine, outside: all others are served meanwhile."""
    hostile = Machine(enrolled.platform, await enrolled.platform.bus(Role.SERVER, "acme-9"))
    hostile.server_id = "acme-9"
    await hostile.enrol()
    await hostile.nonce()
    hostile.identity = Ed25519PrivateKey.generate()
    doubted = asyncio.create_task(hostile.ask(ChallengeRequest()))
    for _ in range(3):
        await enrolled.nonce()
    assert not doubted.done()
    assert reason(await doubted) == "bad_signature"
    await enrolled.nonce()


async def test_a_fingerprint_needs_the_newest_nonce(enrolled: Machine) -> None:
    """A recorded request is worth nothing, and takes nothing off the day's allowance."""
    blinded = tuple(blind([b"a"])[1])
    stale = FingerprintRequest(epoch="e1", blinded=blinded, nonce=bytes(32))
    assert reason(await enrolled.ask(stale)) == "stale_nonce"


async def test_a_bad_element_leaves_the_state_as_it_was(enrolled: Machine) -> None:
    """Else a start would count as begun that nobody can go on with."""
    nonce = await enrolled.nonce()
    bad = UnlockRequest(
        g=0,
        blinded=(b"\xff" * 32, b"\xff" * 32),
        preimage=unlock_preimage(enrolled.x(0, SHARES[0])),
        next_preimage=unlock_preimage(enrolled.x(1, SHARES[1])),
        nonce=nonce,
    )
    assert reason(await enrolled.ask(bad)) == "bad_element"
    assert await enrolled.nonce() == nonce  # it names the state


async def test_refusals_do_not_flood_the_ledger(enrolled: Machine) -> None:
    """A number an hour becomes facts; who asks gets an answer all the same."""
    await enrolled.unlock(0, SHARES[0], SHARES[1])
    await enrolled.commit(1, SHARES[1])
    for _ in range(3):
        assert await enrolled.unlock(1, SHARES[3], SHARES[2]) == "stale_generation"
    await enrolled.unlock(1, SHARES[1], SHARES[2])
    await enrolled.commit(2, SHARES[2])
    await facts(enrolled.platform, ServerUnlocked, 2)  # told after the refusals
    assert len(await facts(enrolled.platform, UnlockRefused, 1)) == 1


async def test_no_owner_lets_a_revoked_server_in(enrolled: Machine) -> None:
    """What the platform took out comes back by enrolment, not by an approval."""
    owner = Ed25519PrivateKey.generate()
    pin = owner_fingerprint(owner.public_key().public_bytes_raw())
    await enrolled.unlock(0, SHARES[0], SHARES[1])
    await enrolled.commit(1, SHARES[1], (pin,))
    revoked = ServerRevoked(server_id=SERVER, owner_id="acme", reason="stolen")
    await store(await enrolled.platform.bus(Role.ISSUER), fresh(revoked))
    async with asyncio.timeout(10):
        while True:
            if isinstance(await enrolled.ask(ChallengeRequest()), RefusalReply):
                break
            await asyncio.sleep(0.02)
    word = sign_approval(owner, server_id=SERVER, code="A" * 20, issued_at=int(time.time()))
    api = await enrolled.platform.bus(Role.API)
    subject = APPROVE.fill({"server_id": SERVER})
    answer = await api.request(subject, word.model_dump_json().encode(), wait=5)
    assert ApprovalReply.model_validate_json(answer.data).refused == "server_not_active"


async def test_a_start_empties_the_log_of_destroyed_keys(
    platform: Platform, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whoever destroyed the key was killed before it could; nothing else tells that it must be."""
    folder = platform.installation.evaluator
    keys = await KeyStore.open(folder)
    try:
        seed = (await keys.unlock_key(SERVER)).seed

        async def killed(_: KeyStore) -> None:
            raise KeyboardInterrupt

        with monkeypatch.context() as patch, contextlib.suppress(KeyboardInterrupt):
            patch.setattr(KeyStore, "empty_log", killed)
            await keys.renew(SERVER, 2)
        assert any(seed in path.read_bytes() for path in folder.glob("unlock-keys.db*"))
        ready = asyncio.Event()
        running = run_evaluator(platform.installation, platform.server.target, ready.set)
        task = asyncio.create_task(running)
        await asyncio.wait_for(ready.wait(), 10)
        assert not any(seed in path.read_bytes() for path in folder.glob("unlock-keys.db*"))
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
    finally:
        await keys.close()
