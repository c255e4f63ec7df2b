"""Signed orders and a running agent: obeyed once, answered once, and a lock empties the memory."""

import asyncio
import time
import uuid
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import pytest
from click.testing import CliRunner
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from bus_schemas.approval import sign_approval
from bus_schemas.codec import decode
from bus_schemas.event import Event
from bus_schemas.events import (
    ConfigDesired,
    CredentialSealed,
    CredentialStored,
    FingerprintObserved,
    HealthReported,
    OrderAnswered,
    PinsChanged,
    ServerUnlocked,
)
from bus_schemas.events.config import DesiredSlot, Order
from bus_schemas.fields import at_utc
from bus_schemas.finding import Grade
from bus_schemas.keys import owner_fingerprint
from bus_schemas.orders import Addressee, Instruction, OrderKind, Stamp, sign_order
from bus_schemas.sealed import SealedEnvelope
from bus_schemas.transport.connection import Bus
from bus_schemas.transport.fresh import fresh
from bus_schemas.transport.jetstream import read_batch, store
from platform_handlers.config.orders.lock import lock_server
from platform_handlers.config.service import ConfigHandler
from platform_handlers.process import server_cli
from platform_handlers.process.server_cli import server
from platform_handlers.settings import Settings
from tests.integration.vps.conftest import Fleet, desired, of
from tests.integration.vps.starts import eventually, send_approval
from tests.integration.vps.test_vps_memory import root_key_of
from tests.memory import count
from vps_runtime.connection.tokens import TokenStore
from vps_runtime.doctor import slot_findings
from vps_runtime.enrolment.pins import read_pins
from vps_runtime.state import StateFolder
from vps_runtime.status import read_status
from vps_runtime.vault.record import RecordName, open_record
from vps_runtime.vault.sealing_keys import SealingKeyRecord
from vps_runtime.vault.store import Vault

SERVER = "acme-1"
SECRET = "sk-ant-api03-canary-0123456789"


@dataclass
class Desk:
    """Gives orders to one server, as whoever holds the config writer's credentials could."""

    fleet: Fleet
    state: StateFolder
    slots: tuple[DesiredSlot, ...] = ()
    orders: list[Order] = field(default_factory=list)

    @property
    def to(self) -> Addressee:
        """The server, as it is enrolled."""
        return Addressee("acme", SERVER, self.state.read_identity().public_key)

    def signed(
        self,
        kind: OrderKind,
        *,
        by: Ed25519PrivateKey | None = None,
        n: int | None = None,
        to: Addressee | None = None,
        ends: float = 3600.0,
        **what: Any,  # noqa: ANN401 (as Instruction has it)
    ) -> Order:
        """Return the next order, by the owner unless another key is given, for *ends* seconds."""
        stamp = Stamp(
            str(uuid.uuid4()),
            n or len(self.orders) + 1,
            at_utc(time.time() + ends),
        )
        return sign_order(
            by or self.fleet.owner_key, to or self.to, Instruction(kind, **what), stamp
        )

    @property
    def platform_key(self) -> Ed25519PrivateKey:
        """The platform's order key."""
        return self.fleet.platform.installation.order_key()

    async def take(self, envelope: SealedEnvelope) -> None:
        """Send a sealing."""
        sealed = CredentialSealed(server_id=SERVER, slot_id=envelope.slot_id, envelope=envelope)
        await store(self.fleet.config, fresh(sealed))
        self.slots = (desired(envelope),)
        await self.write()

    async def write(self, *orders: Order) -> None:
        """Write the document with these orders besides all earlier ones."""
        self.orders += orders
        generation = self.fleet.generations.get(SERVER, 0) + 1
        self.fleet.generations[SERVER] = generation
        document = ConfigDesired(
            server_id=SERVER,
            owner_id="acme",
            generation=generation,
            slots=self.slots,
            orders=tuple(self.orders),
        )
        await store(self.fleet.config, fresh(document))

    async def give(self, kind: OrderKind, **more: Any) -> OrderAnswered:  # noqa: ANN401
        """Give an order and return its answer."""
        order = self.signed(kind, **more)
        await self.write(order)
        return await self.answer(order)

    async def answer(self, order: Order) -> OrderAnswered:
        """Wait for the answer to *order*."""
        events = await self.fleet.until(SERVER, lambda es: answers_to(es, order))
        [answer] = answers_to(events, order)
        return answer

    async def health(self) -> HealthReported:
        """Return the newest health report."""
        [last] = await read_batch(self.fleet.ops, "BYOK_HEALTH", 1, 10)
        report = decode(last.data, last.subject, strict=True).data
        assert isinstance(report, HealthReported)
        return report

    async def until_health(self, wanted: Callable[[HealthReported], bool]) -> None:
        """Wait for such a report."""
        async with asyncio.timeout(10):
            while not wanted(await self.health()):  # noqa: ASYNC110 (the fact lies on a server)
                await asyncio.sleep(0.05)

    async def incarnations(self) -> list[int]:
        """Return the unlocks the evaluator told of."""
        messages = await read_batch(self.fleet.ops, "BYOK_LEDGER", 1, 4096)
        events = [decode(m.data, m.subject).data for m in messages]
        return [e.incarnation for e in events if isinstance(e, ServerUnlocked)]


def answers_to(events: Sequence[Event], order: Order) -> list[OrderAnswered]:
    """Return the answers to *order*."""
    return [e for e in of(events, OrderAnswered) if e.order_id == order.order_id]


@pytest.fixture
async def desk(fleet: Fleet) -> Desk:
    """A server that holds one credential, and its running agent."""
    desk = Desk(fleet, await fleet.enrol(SERVER))
    await fleet.start(desk.state)
    desk.slots = (await fleet.send(await fleet.seal(SERVER)),)
    await fleet.until(SERVER, lambda es: of(es, FingerprintObserved))
    return desk


async def test_a_lock_empties_the_memory_and_holds_over_restarts_until_the_owner_lifts_it(
    fleet: Fleet, desk: Desk
) -> None:
    """The receipt comes when no key is left; a restart changes nothing; unlock opens the vault."""
    [agent] = fleet.agents
    secrets = secrets_of(desk)
    before = count(agent.process.pid, secrets)
    assert before["sealing"] > 0  # the search sees what is there
    assert (await desk.give(OrderKind.LOCK)).outcome == "applied"
    assert agent.process.returncode is None  # to whoever supervises it, it has not ended
    assert count(agent.process.pid, secrets) == dict.fromkeys(secrets, 0)
    assert (await read_status(desk.state)).locked
    await desk.until_health(lambda report: report.locked is True)
    assert await agent.stop() == 0
    agent = await fleet.start(desk.state)
    by_platform = await desk.give(OrderKind.LOCK, by=desk.platform_key)  # heard: it is connected
    assert by_platform.outcome == "applied"
    assert (await desk.give(OrderKind.UNLOCK, by=desk.platform_key, n=3)).outcome == "refused"
    assert await desk.incarnations() == [1]
    assert count(agent.process.pid, secrets) == dict.fromkeys(secrets, 0)
    assert (await desk.give(OrderKind.UNLOCK, n=3)).outcome == "applied"
    assert (await agent.ready())["incarnation"] == 2
    assert not (await read_status(desk.state)).locked


def secrets_of(desk: Desk) -> dict[str, bytes]:
    """Return what is open in the unlocked server's memory."""
    root = root_key_of(desk.state, desk.fleet.platform.installation.evaluator)
    name = RecordName(SERVER, "_sealing", 1)
    _, text = open_record(root, Vault(desk.state.vault, SERVER).read(name), name)
    sealing = SealingKeyRecord.model_validate_json(text).private_key
    return {"root": root, "sealing": sealing, "credential": SECRET.encode()}


async def test_a_stopped_slot_says_so_everywhere_until_its_owner_resumes_it(
    fleet: Fleet, desk: Desk
) -> None:
    """The platform may stop, only the owner resumes; the credential stays in the vault."""
    slot: dict[str, Any] = {"slot_id": "anthropic"}
    assert (await desk.give(OrderKind.STOP_SLOT, by=desk.platform_key, **slot)).outcome == "applied"
    status = await read_status(desk.state)
    assert (sorted(status.stopped), status.as_json()["stopped"]) == (["anthropic"], ["anthropic"])
    [warning] = [f for f in slot_findings(status) if f.grade is Grade.WARN]
    assert "byok key resume acme-1 anthropic" in warning.detail
    assert [note.slot_id for note in status.slots] == ["anthropic"]
    await desk.until_health(lambda report: [s.stopped for s in report.slots] == [True])
    refused = await desk.give(OrderKind.RESUME_SLOT, by=desk.platform_key, n=2, **slot)
    assert refused.reason == "not_for_the_platform"
    assert (await desk.give(OrderKind.RESUME_SLOT, n=2, **slot)).outcome == "applied"
    assert (await read_status(desk.state)).stopped == frozenset()
    await desk.until_health(lambda report: [s.stopped for s in report.slots] == [None])


async def test_a_second_device_is_trusted_by_the_first_and_a_lost_one_distrusted(
    fleet: Fleet, desk: Desk
) -> None:
    """Nobody needs the console for that; each change is told; the last key stays."""
    second = Ed25519PrivateKey.generate()
    name: dict[str, Any] = {"argument": owner_fingerprint(second.public_key().public_bytes_raw())}
    assert (await desk.give(OrderKind.TRUST, by=second, n=1, **name)).reason == (
        "owner_key_not_pinned"
    )
    assert (await desk.give(OrderKind.TRUST, n=1, **name)).outcome == "applied"
    await desk.take(await fleet.seal(SERVER, revision=2, by=second))
    await fleet.until(SERVER, lambda es: [e for e in of(es, CredentialStored) if e.revision == 2])
    lost: dict[str, Any] = {"argument": fleet.fingerprint}
    assert (await desk.give(OrderKind.DISTRUST, by=second, n=2, **lost)).outcome == "applied"
    assert (await desk.give(OrderKind.TRUST, n=3, **lost)).reason == "owner_key_not_pinned"
    last = await desk.give(OrderKind.DISTRUST, by=second, n=3, **name)
    assert last.reason == "last_pin"
    told = [set(e.pinned) for e in of(await fleet.told(SERVER), PinsChanged)]
    both = {fleet.fingerprint, name["argument"]}
    assert told == [{fleet.fingerprint}, both, {name["argument"]}]
    assert read_pins(desk.state.pins).pinned == (name["argument"],)


async def test_a_key_given_up_while_locked_approves_no_copy(fleet: Fleet, desk: Desk) -> None:
    """The locked server can commit nothing; the evaluator hears of it all the same."""
    left = Ed25519PrivateKey.generate()
    name: dict[str, Any] = {"argument": owner_fingerprint(left.public_key().public_bytes_raw())}
    assert (await desk.give(OrderKind.TRUST, **name)).outcome == "applied"

    async def refusal() -> str | None:
        word = sign_approval(left, server_id=SERVER, code="A" * 20, issued_at=int(time.time()))
        return await send_approval(fleet, word)

    async def may() -> bool:
        return await refusal() == "unknown_copy"  # who may not approve is not told so

    async def may_not() -> bool:
        return await refusal() == "not_an_owner_key"

    await eventually(may)
    lock, distrust = desk.signed(OrderKind.LOCK), desk.signed(OrderKind.DISTRUST, n=3, **name)
    await desk.write(lock, distrust)
    assert (await desk.answer(distrust)).outcome == "applied"
    assert (await read_status(desk.state)).locked
    await eventually(may_not)


async def test_whoever_writes_the_document_can_order_nothing_of_their_own(
    fleet: Fleet, desk: Desk
) -> None:
    """Each is answered with its reason, and nothing has changed."""
    stranger = Ed25519PrivateKey.generate()
    slot: dict[str, Any] = {"slot_id": "anthropic"}
    ours = desk.signed(OrderKind.STOP_SLOT, **slot)
    elsewhere = replace(desk.to, server_id="acme-2")
    before = replace(desk.to, identity_key=bytes(32))
    key: dict[str, Any] = {"argument": owner_fingerprint(stranger.public_key().public_bytes_raw())}
    wanted = {
        "owner_key_not_pinned": desk.signed(OrderKind.LOCK, by=stranger),
        "not_for_the_platform": desk.signed(OrderKind.TRUST, by=desk.platform_key, **key),
        "bad_signature": desk.signed(OrderKind.LOCK, to=elsewhere),
        "bad_signature ": desk.signed(OrderKind.LOCK, to=before),
        " bad_signature": ours.model_copy(update={"n": 2, "order_id": str(uuid.uuid4())}),
        "n_jump": desk.signed(OrderKind.LOCK, n=2000),
        "bad_order": ours.model_copy(update={"slot_id": None, "order_id": str(uuid.uuid4())}),
        "unknown_slot": desk.signed(OrderKind.STOP_SLOT, n=1, slot_id="openai"),
        "replayed": desk.signed(OrderKind.LOCK, n=1),
        "expired": desk.signed(OrderKind.LOCK, n=2, ends=-1.0),
    }
    await desk.write(*wanted.values())
    for reason, order in wanted.items():
        answer = await desk.answer(order)
        assert (answer.outcome, answer.reason) == ("refused", reason.strip())
    status = await read_status(desk.state)
    assert (status.locked, status.stopped) == (False, frozenset())
    assert read_pins(desk.state.pins).pinned == (fleet.fingerprint,)
    assert answer.last_n == 2


async def test_the_platform_locks_a_server_and_hears_that_it_obeyed(
    fleet: Fleet, desk: Desk
) -> None:
    """Even if it counts behind the server at first; `byok server revoke` begins like this."""
    await desk.give(OrderKind.STOP_SLOT, slot_id="anthropic")
    desk.orders.clear()  # answered and withdrawn, by a platform that has lost its own memory
    await desk.write()
    installation, target = fleet.platform.installation, fleet.platform.server.target
    locking = asyncio.create_task(lock_server(installation, target, desk.to))
    await fleet.until(SERVER, lambda es: [e for e in of(es, OrderAnswered) if e.reason])
    config = await ConfigHandler.open(installation, target, fleet.registry)
    reading = asyncio.create_task(config.run())
    receipt = await locking
    assert (receipt.locked, receipt.reason) == (True, None)
    assert "keys have left its memory" in receipt.line()
    assert (await read_status(desk.state)).locked
    reading.cancel()
    await asyncio.gather(reading, return_exceptions=True)
    await config.close()
    settings = Settings(installation.root, target.url)
    words = ["revoke", SERVER]
    done = await asyncio.to_thread(CliRunner().invoke, server, words, obj=settings)
    first, second, *_ = done.output.splitlines()
    assert (first, done.exit_code) == (receipt.line(), 0)
    assert "acme-1 is revoked" in second
    again = await asyncio.to_thread(CliRunner().invoke, server, words, obj=settings)
    assert "there is nobody to lock" in again.output


@pytest.mark.parametrize("bus_answers", [True, False])
async def test_a_silent_thief_is_out_within_a_second(
    fleet: Fleet, monkeypatch: pytest.MonkeyPatch, bus_answers: bool
) -> None:
    """No lock order is worth more of his time, also if it cannot be written; and that is told."""
    state = await fleet.enrol(SERVER)
    installation, target = fleet.platform.installation, fleet.platform.server.target
    thief = await Bus(target, SERVER, TokenStore(state).working).open()
    if not bus_answers:

        async def hang(*_: object, **__: object) -> None:
            await asyncio.Event().wait()

        monkeypatch.setattr(server_cli, "lock_server", hang)
    begun, settings = time.monotonic(), Settings(installation.root, target.url)
    revoking = asyncio.create_task(
        asyncio.to_thread(CliRunner().invoke, server, ["revoke", SERVER], obj=settings)
    )
    async with asyncio.timeout(20):
        while thief.connected:  # noqa: ASYNC110 (there is no bell for it)
            await asyncio.sleep(0.005)
    assert time.monotonic() - begun < 1.0
    done = await revoking
    assert done.exit_code == 0, done.output
    lines = done.output.splitlines()
    assert "acme-1 is revoked" in lines[0]
    if bus_answers:
        assert "has not answered the lock order" in lines[-1]
    else:
        assert "was not known to be ordered" in lines[-1]
    assert "take it as not locked" in lines[-1]
    await thief.close()


async def test_a_server_that_is_off_finds_the_lock_when_it_comes_back(fleet: Fleet) -> None:
    """The platform says that it has heard nothing, and the order stays."""
    desk = Desk(fleet, await fleet.enrol(SERVER))
    installation, target = fleet.platform.installation, fleet.platform.server.target
    receipt = await lock_server(installation, target, desk.to, wait_seconds=0.2)
    assert (receipt.locked, receipt.state) == (False, "silent")
    assert "has not answered" in receipt.line()
    await fleet.start(desk.state)
    [answer] = of(await fleet.until(SERVER, lambda es: of(es, OrderAnswered)), OrderAnswered)
    assert answer.outcome == "applied"
    assert (await read_status(desk.state)).locked
    desk.state.orders_key.unlink()  # as of a server that joined before there was such a key
    await fleet.agents[0].stop()
    await fleet.start(desk.state)
    refused = await lock_server(installation, target, desk.to)
    assert (refused.state, refused.reason) == ("refused", "owner_key_not_pinned")
    assert "refused to lock itself" in refused.line()
