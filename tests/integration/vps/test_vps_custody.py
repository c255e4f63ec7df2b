"""Vault, reconciler and announcer together, in this process, on the real bus."""

import asyncio
import json
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass

import pytest

from bus_schemas.codec import encode
from bus_schemas.event import Event
from bus_schemas.events.config import CredentialSealed
from bus_schemas.events.fingerprint import FingerprintObserved, FingerprintRetired
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
from vps_runtime.announcer import Announcer
from vps_runtime.config.reconciler import Reconciler
from vps_runtime.connection.tokens import TokenStore
from vps_runtime.fingerprint.tags import Tags
from vps_runtime.state import StateFolder
from vps_runtime.unlock.boot import unlock
from vps_runtime.unlock.evaluator import Evaluator
from vps_runtime.unlocked import UnlockedServer
from vps_runtime.vault.sealing_keys import DAY, LIFE_SECONDS

SERVER = "acme-1"


@dataclass
class Running:
    """An unlocked server whose tasks are taken step by step."""

    server: UnlockedServer
    announcer: Announcer
    reconciler: Reconciler
    bus: Bus

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
        return bool(self.server.credentials.current)


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
    try:
        yield Running(server, announcer, Reconciler(bus, server, announcer), bus)
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
        await agent.announcer.catch_up()
    await fleet.send(await fleet.seal(SERVER, revision=2))
    steps = ["_tell_stored", "_tell_retired", "_renew"]
    for step in steps:
        async with running(state) as agent:
            await agent.reconciler.reconcile()
            with monkeypatch.context() as patch:
                patch.setattr(Announcer, step, die)
                with pytest.raises(Killed):
                    await agent.announcer.catch_up()
    async with running(state) as agent:
        with monkeypatch.context() as patch:
            patch.setattr(type(agent.server.credentials), "remove", die)
            with pytest.raises(Killed):
                await agent.announcer.catch_up()
    async with running(state) as agent:
        await agent.announcer.catch_up()
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
            assert agent.server.credentials.current["anthropic"].revision == revision
            await agent.send()
    assert names(await fleet.told(SERVER)) == ["CredentialStored 1", "CredentialStored 2"]
    async with running(state) as agent:
        await agent.announcer.catch_up()
        await agent.send()
    assert names(await fleet.told(SERVER))[2:] == [
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
        assert list(agent.server.credentials.current) == ["anthropic"]


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
        assert not agent.server.credentials.current


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
    """Its sealing is still good and served again: refused, and told."""
    sealed = await fleet.seal(SERVER)
    slot = await fleet.send(sealed)
    async with running(state) as agent:
        await agent.reconciler.reconcile()
        await agent.announcer.catch_up()
        await fleet.document(SERVER)
        await agent.reconciler.reconcile()
        await fleet.document(SERVER, slot)
        await agent.reconciler.reconcile()
        await agent.announcer.catch_up()
        await agent.send()
        assert not agent.server.credentials.current
    events = await fleet.told(SERVER)
    assert [e.reason for e in events if isinstance(e, CredentialRejected)] == ["stale_revision"]
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
            assert agent.server.credentials.current["anthropic"].revision == 1, name
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


async def test_a_damaged_record_never_brings_an_older_key_back(
    fleet: Fleet, state: StateFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The newest record is unreadable: the slot is empty, the superseded key is not used."""
    for revision in (1, 2):
        await fleet.send(await fleet.seal(SERVER, revision=revision))
        async with running(state) as agent:
            await agent.reconciler.reconcile()
            with monkeypatch.context() as patch:
                patch.setattr(Evaluator, "fingerprint", away)
                with pytest.raises(BusUnavailable):
                    await agent.announcer.catch_up()
    record = state.vault / "anthropic.2.vault"
    record.write_bytes(record.read_bytes()[:-1] + b"\x00\x00")
    async with running(state) as agent:
        assert not agent.server.credentials.held
        await agent.announcer.catch_up()
        await agent.send()
    assert not (state.vault / "anthropic.1.vault").exists()
    assert names(await fleet.told(SERVER))[-1] == "FingerprintRetired 2"


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
