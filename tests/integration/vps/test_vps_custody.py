"""Vault, reconciler and announcer together, in this process, on the real bus."""

import asyncio
import json
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

from bus_schemas.codec import encode
from bus_schemas.event import Event
from bus_schemas.events.config import CredentialSealed
from bus_schemas.events.fingerprint import (
    FingerprintObserved,
    FingerprintRenewed,
    FingerprintRetired,
)
from bus_schemas.events.health import Validity
from bus_schemas.events.reported import (
    CredentialNeedsKey,
    CredentialRejected,
    CredentialRetired,
    CredentialStored,
    SealingKeyPublished,
)
from bus_schemas.sealed import SealedEnvelope
from bus_schemas.transport.connection import Bus
from bus_schemas.transport.fresh import fresh
from bus_schemas.transport.jetstream import store_raw
from bus_schemas.transport.target import BusUnavailable
from tests.integration.vps.conftest import Fleet, desired
from tests.judges import Says
from vps_runtime.announcer import Announcer
from vps_runtime.config.reconciler import Reconciler
from vps_runtime.connection.tokens import TokenStore
from vps_runtime.fingerprint.tags import Tags
from vps_runtime.keys.calls import Calls
from vps_runtime.keys.keyring import Keyring
from vps_runtime.keys.rotator import Rotator
from vps_runtime.state import StateFolder
from vps_runtime.unlock.boot import unlock
from vps_runtime.unlock.evaluator import Evaluator
from vps_runtime.unlocked import UnlockedServer
from vps_runtime.vault.credentials import CredentialStore
from vps_runtime.vault.sealing_keys import DAY, LIFE_SECONDS

SERVER = "acme-1"


@dataclass
class Running:
    """An unlocked server whose tasks are taken step by step."""

    server: UnlockedServer
    announcer: Announcer
    reconciler: Reconciler
    rotator: Rotator
    judge: Says
    bus: Bus

    async def rotate(self) -> None:
        """Tell what is new, bring it into use, and tell what follows."""
        await self.announcer.catch_up()
        await self.rotator.catch_up()
        await self.announcer.catch_up()

    async def send(self) -> None:
        """Send all facts that wait."""
        pumping = asyncio.create_task(self.server.facts.pump(self.bus))
        await eventually(self._nothing_waits)
        pumping.cancel()
        with pytest.raises(asyncio.CancelledError):
            await pumping

    async def _nothing_waits(self) -> bool:
        return await self.server.facts.depth() == 0

    async def holds_something(self) -> bool:
        """Whether any slot has a credential."""
        return bool(self.server.credentials.held)


async def eventually(holds: Callable[[], Awaitable[bool]]) -> None:
    """Wait until *holds*, ten seconds at most."""
    async with asyncio.timeout(10):
        while True:
            if await holds():
                return
            await asyncio.sleep(0.01)


class Killed(BaseException):
    """Stands for the kill: nothing may catch it."""


async def die(*_: object) -> None:
    """Be the step at which the kill comes."""
    raise Killed


async def away(*_: object) -> None:
    """Be the evaluator that does not answer."""
    raise BusUnavailable("no answer")


@asynccontextmanager
async def running(state: StateFolder) -> AsyncIterator[Running]:
    """Unlock *state* and yield its parts; leaving is like a kill: nothing is finished."""
    bus = await Bus(state.target(), SERVER, TokenStore(state).working).open()
    evaluator = Evaluator(bus, state.read_identity(), state.read_evaluator())
    server = await UnlockedServer.open(state, await unlock(state, SERVER, evaluator))
    announcer = Announcer(server, Tags(evaluator, server.credentials, server.facts))
    judge = Says()
    rotator = Rotator(server, Keyring(server), Calls(), judge)
    try:
        yield Running(server, announcer, Reconciler(bus, server, announcer), rotator, judge, bus)
    finally:
        await server.facts.close()
        await bus.close()


@pytest.fixture
async def state(fleet: Fleet) -> StateFolder:
    """A server that has told its sealing key and holds nothing."""
    folder: StateFolder = await fleet.enrol(SERVER)
    async with running(folder) as agent:
        await agent.announcer.catch_up()
        await agent.send()
    return folder


def names(events: Sequence[Event]) -> list[str]:
    """Return the facts about credentials, shortened, in order."""
    wanted = CredentialStored | CredentialRetired | FingerprintObserved | FingerprintRetired
    return [f"{type(e).__name__} {e.revision}" for e in events if isinstance(e, wanted)]


async def test_a_kill_after_the_vaults_write_is_made_good(fleet: Fleet, state: StateFolder) -> None:
    """Stored but not told: the next start tells it, once, and takes nothing in again."""
    await fleet.send(await fleet.seal(SERVER))
    async with running(state) as agent:
        await agent.reconciler.reconcile()
    for _ in range(2):
        async with running(state) as agent:
            await agent.reconciler.reconcile()
            await agent.announcer.catch_up()
            await agent.send()
    assert names(await fleet.told(SERVER)) == ["CredentialStored 1", "FingerprintObserved 1"]


async def test_a_kill_between_the_facts_of_a_rotation_is_made_good(
    fleet: Fleet, state: StateFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Killed at each step of a rotation in turn, the facts come out whole and in order."""
    await fleet.send(await fleet.seal(SERVER))
    async with running(state) as agent:
        await agent.reconciler.reconcile()
        await agent.rotate()
    await fleet.send(await fleet.seal(SERVER, revision=2))
    for cls, step in (
        (Announcer, "_tell_stored"),
        (Announcer, "_clear_out"),
        (Keyring, "open"),
        (Rotator, "_move"),
        (CredentialStore, "remove"),
        (Announcer, "_tell_gone"),
    ):
        async with running(state) as agent:
            await agent.reconciler.reconcile()
            with monkeypatch.context() as patch:
                patch.setattr(cls, step, die)
                with pytest.raises((Killed, BaseExceptionGroup)):
                    await agent.rotate()
    async with running(state) as agent:
        await agent.rotate()
        await agent.send()
    assert names(await fleet.told(SERVER)) == [
        "CredentialStored 1",
        "FingerprintObserved 1",
        "CredentialStored 2",
        "FingerprintObserved 2",
        "CredentialRetired 1",
        "FingerprintRetired 1",
    ]


async def test_while_the_evaluator_is_away_the_older_key_is_not_told_as_gone(
    fleet: Fleet, state: StateFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Stored is told at once; tags and the retirement wait, and come when it is back."""
    for revision in (1, 2):
        await fleet.send(await fleet.seal(SERVER, revision=revision))
        async with running(state) as agent:
            await agent.reconciler.reconcile()
            with monkeypatch.context() as patch:
                patch.setattr(Evaluator, "fingerprint", away)
                with pytest.raises(BusUnavailable):
                    await agent.announcer.catch_up()
            await agent.rotator.catch_up()
            assert agent.server.usable["anthropic"].revision == revision
            await agent.send()
    assert names(await fleet.told(SERVER)) == ["CredentialStored 1", "CredentialStored 2"]
    async with running(state) as agent:
        await agent.rotate()
        await agent.send()
    assert names(await fleet.told(SERVER))[2:] == [
        "FingerprintObserved 1",
        "FingerprintObserved 2",
        "CredentialRetired 1",
        "FingerprintRetired 1",
    ]


async def test_not_found_and_unreadable_are_no_news(fleet: Fleet, state: StateFolder) -> None:
    """Neither an empty stream nor nonsense in it takes a credential away."""
    async with running(state) as agent:
        await agent.reconciler.reconcile(expect_news=True)
        await fleet.send(await fleet.seal(SERVER))
        await agent.reconciler.reconcile()
        await store_raw(fleet.config, f"byok.v1.config.{SERVER}", "nonsense", b"{}")
        await agent.reconciler.reconcile()
        assert list(agent.server.credentials.held) == [("anthropic", 1)]


async def test_an_older_document_is_ignored(fleet: Fleet, state: StateFolder) -> None:
    """A document below the known generation, such as a lagging replica's, changes nothing."""
    async with running(state) as agent:
        await fleet.send(await fleet.seal(SERVER))
        await fleet.document(SERVER)
        fleet.generations[SERVER] = 0
        await agent.reconciler.reconcile()
        assert agent.server.generation == 2
        await fleet.send(await fleet.seal(SERVER))
        await agent.reconciler.reconcile()
        assert not agent.server.credentials.held


async def test_an_empty_document_takes_the_slot_away(fleet: Fleet, state: StateFolder) -> None:
    """The document is the whole of what should be held."""
    await fleet.send(await fleet.seal(SERVER))
    async with running(state) as agent:
        await agent.reconciler.reconcile()
        await agent.announcer.catch_up()
        await fleet.document(SERVER)
        await agent.reconciler.reconcile()
        await agent.announcer.catch_up()
        await agent.send()
    assert names(await fleet.told(SERVER))[-2:] == ["CredentialRetired 1", "FingerprintRetired 1"]


async def test_a_retired_revision_never_comes_back(fleet: Fleet, state: StateFolder) -> None:
    """Its sealing is still good and served again: it is left there, and a key is asked for."""
    sealed = await fleet.seal(SERVER)
    slot = await fleet.send(sealed)
    async with running(state) as agent:
        await agent.reconciler.reconcile()
        await agent.rotate()
        await fleet.document(SERVER)
        await agent.reconciler.reconcile()
        await fleet.document(SERVER, slot)
        await agent.reconciler.reconcile()
        await agent.rotate()
        await agent.send()
        assert not agent.server.credentials.held
        assert not agent.server.usable
    events = await fleet.told(SERVER)
    assert not [e for e in events if isinstance(e, CredentialRejected)]  # it is not even fetched
    assert [e.reason for e in events if isinstance(e, CredentialNeedsKey)] == ["retired"]


async def test_a_document_retires_the_key_in_use_and_the_next_one_takes_over(
    fleet: Fleet, state: StateFolder
) -> None:
    """At once, before anything newer is there; told why there is none; then the new one is used."""
    slot = await fleet.send(await fleet.seal(SERVER))
    async with running(state) as agent:
        await agent.reconciler.reconcile()
        await agent.rotate()
        assert agent.server.usable
        await fleet.document(SERVER, slot.model_copy(update={"min_revision": 2}))
        await agent.reconciler.reconcile()
        assert not agent.server.usable
        await agent.rotate()
        new = await fleet.seal(SERVER, revision=2)
        await fleet.send(new)
        await fleet.document(SERVER, desired(new).model_copy(update={"min_revision": 2}))
        await agent.reconciler.reconcile()
        await agent.rotate()
        assert agent.server.usable["anthropic"].revision == 2
        await agent.send()
    events = await fleet.told(SERVER)
    assert [e.reason for e in events if isinstance(e, CredentialNeedsKey)] == ["retired"]
    assert [e.revision for e in events if isinstance(e, CredentialRetired)] == [1]


async def test_a_key_that_nobody_can_judge_waits_and_is_fingerprinted(
    fleet: Fleet, state: StateFolder
) -> None:
    """Its provider is away: it is not used, but reuse shows from the moment it is stored."""
    await fleet.send(await fleet.seal(SERVER))
    async with running(state) as agent:
        agent.judge.usually = Validity.UNKNOWN
        await agent.reconciler.reconcile()
        await agent.rotate()
        await agent.send()
        assert not agent.server.usable
    events = await fleet.told(SERVER)
    assert names(events) == ["CredentialStored 1", "FingerprintObserved 1"]
    assert not [e for e in events if isinstance(e, CredentialNeedsKey)]


async def test_a_rejected_key_is_not_fetched_again(fleet: Fleet, state: StateFolder) -> None:
    """Its sealing may lie there for a day; nobody is asked about it twice, and it is said why."""
    await fleet.send(await fleet.seal(SERVER))
    async with running(state) as agent:
        agent.judge.usually = Validity.INVALID
        for _ in range(2):
            await agent.reconciler.reconcile()
            await agent.rotate()
        await agent.send()
        assert agent.judge.asked == [("anthropic", 1)]
    events = await fleet.told(SERVER)
    assert [e.reason for e in events if isinstance(e, CredentialRejected)] == [
        "refused_by_provider"
    ]
    assert [e.reason for e in events if isinstance(e, CredentialNeedsKey)] == ["rejected"]


async def test_whichever_field_is_changed_on_the_way_the_current_key_stays(
    fleet: Fleet, state: StateFolder
) -> None:
    """The platform changes one field of a sealing after another: each is refused, and told why."""
    await fleet.send(await fleet.seal(SERVER))
    async with running(state) as agent:
        await agent.reconciler.reconcile()
        record = (state.vault / "anthropic.1.vault").read_bytes()
        for revision, name in enumerate(SealedEnvelope.model_fields, 2):
            good = await fleet.seal(SERVER, revision=revision)
            sealed = CredentialSealed(server_id=SERVER, slot_id="anthropic", envelope=good)
            message = json.loads(encode(fresh(sealed)))
            fields = message["data"]["envelope"]
            fields[name] = changed(fields[name])
            await store_raw(
                fleet.config, sealed.subject, message["id"], json.dumps(message).encode()
            )
            await fleet.document(SERVER, desired(good))
            await agent.reconciler.reconcile()
            assert list(agent.server.credentials.held) == [("anthropic", 1)], name
            assert (state.vault / "anthropic.1.vault").read_bytes() == record, name
        await agent.send()
    events = await fleet.told(SERVER)
    reasons = [e.reason for e in events if isinstance(e, CredentialRejected)]
    assert len(reasons) == len(SealedEnvelope.model_fields), reasons
    assert not [e for e in events if isinstance(e, CredentialRetired)]


def changed(value: str | int) -> str | int:
    """Return another value that has the same shape."""
    if isinstance(value, int):
        return value + 1
    if value == "api_key":
        return "oauth"
    if len(value) > 40:  # base64url: the last character may hold bits that do not count
        return ("B" if value[0] == "A" else "A") + value[1:]
    return value[:-1] + ("1" if value.endswith("0") else "0")


async def _two_revisions(
    fleet: Fleet, state: StateFolder, monkeypatch: pytest.MonkeyPatch, *, second: Validity
) -> None:
    """Leave revision 1, which was in use, and 2, of which the provider says *second*."""
    for revision, validity in ((1, Validity.VALID), (2, second)):
        await fleet.send(await fleet.seal(SERVER, revision=revision))
        async with running(state) as agent:
            agent.judge.of[revision] = validity
            await agent.reconciler.reconcile()
            with monkeypatch.context() as patch:
                patch.setattr(Evaluator, "fingerprint", away)  # so no older one leaves the vault
                with pytest.raises(BusUnavailable):
                    await agent.announcer.catch_up()
            await agent.rotator.catch_up()
    assert {path.name for path in state.vault.glob("anthropic*")} == {
        "anthropic.1.vault",
        "anthropic.2.vault",
    }


def _damage(record: Path) -> None:
    record.write_bytes(record.read_bytes()[:-1] + b"\x00\x00")


async def test_a_damaged_record_never_brings_an_older_key_back(
    fleet: Fleet, state: StateFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The record in use is unreadable: the slot is empty, the superseded key is not used."""
    await _two_revisions(fleet, state, monkeypatch, second=Validity.VALID)
    _damage(state.vault / "anthropic.2.vault")
    async with running(state) as agent:
        assert not agent.server.usable
        await agent.rotate()
        await agent.send()
        assert not agent.server.usable
        assert not agent.judge.asked
    assert not (state.vault / "anthropic.1.vault").exists()
    assert names(await fleet.told(SERVER))[-1] == "FingerprintRetired 2"


async def test_without_the_memory_a_damaged_record_brings_no_older_key_back(
    fleet: Fleet, state: StateFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nothing is left that says which one was in use: the newest one is meant."""
    await _two_revisions(fleet, state, monkeypatch, second=Validity.VALID)
    _damage(state.vault / "anthropic.2.vault")
    for path in state.root.glob(f"{state.outbox.name}*"):
        path.unlink()
    async with running(state) as agent:
        await agent.rotate()
        assert not agent.server.usable
        assert not agent.judge.asked
    assert not (state.vault / "anthropic.1.vault").exists()


async def test_a_damaged_pending_record_leaves_the_key_in_use(
    fleet: Fleet, state: StateFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The owner is told to seal again, and the agent works on."""
    await _two_revisions(fleet, state, monkeypatch, second=Validity.UNKNOWN)
    _damage(state.vault / "anthropic.2.vault")
    async with running(state) as agent:
        await agent.rotate()
        await agent.send()
        assert agent.server.usable["anthropic"].revision == 1
        assert [held.revision for held in agent.server.credentials.held.values()] == [1]
    events = await fleet.told(SERVER)
    [rejected] = [e for e in events if isinstance(e, CredentialRejected)]
    assert (rejected.revision, rejected.reason) == (2, "vault_record_damaged")
    assert not [e for e in events if isinstance(e, FingerprintRetired)]
    [renewed] = [e for e in events if isinstance(e, FingerprintRenewed) and len(e.held) == 1][-1:]
    assert renewed.held[0].revision == 1


async def test_a_forged_nudge_changes_nothing(fleet: Fleet, state: StateFolder) -> None:
    """What arrives on the subject is never believed, only taken as a hint to read."""
    async with running(state) as agent:
        task = asyncio.create_task(agent.reconciler.run())
        try:
            await fleet.send(await fleet.seal(SERVER))
            await eventually(agent.holds_something)
        finally:
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task


async def test_the_sealing_key_is_replaced_before_its_end(fleet: Fleet, state: StateFolder) -> None:
    """A day before its end there is a successor; a day after it the old half is gone."""
    async with running(state) as agent:
        keys, now = agent.server.sealing_keys, time.time()
        first = await keys.turn(now)
        assert (await keys.turn(now + LIFE_SECONDS - DAY - 60)).key_id == first.key_id
        later = now + LIFE_SECONDS - DAY + 60
        second = await keys.turn(later)
        assert set(keys.by_id) == {first.key_id, second.key_id}
        await keys.turn(first.not_after + DAY)
        assert set(keys.by_id) == {second.key_id}
        assert second.key_id not in repr(first)
    async with running(state) as agent:
        assert set(agent.server.sealing_keys.by_id) == {second.key_id}
        await agent.announcer.catch_up()
        await agent.send()
    told = [e for e in await fleet.told(SERVER) if isinstance(e, SealingKeyPublished)]
    assert [e.signed_key.key_id for e in told] == [first.key_id, second.key_id]
