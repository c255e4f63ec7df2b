"""The blind evaluator against a real bus: unlock, commit, fingerprints, and who is turned away."""

import asyncio
import secrets
from collections.abc import AsyncIterator
from dataclasses import dataclass, field

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from bus_schemas.codec import decode
from bus_schemas.errors import Refused
from bus_schemas.evaluation import (
    ChallengeReply,
    ChallengeRequest,
    CommitReply,
    CommitRequest,
    EvaluationReply,
    EvaluatorReply,
    EvaluatorRequest,
    FingerprintRequest,
    KeysReply,
    KeysRequest,
    RefusalReply,
    UnlockReply,
    UnlockRequest,
    read_reply,
    seal_request,
)
from bus_schemas.evaluation_signatures import Question, check_keys, check_refusal
from bus_schemas.event import Event
from bus_schemas.events import (
    EpochOpened,
    RatchetAdvanced,
    ServerProvisioned,
    ServerReenrolled,
    ServerRevoked,
    ServerUnlocked,
    UnlockRefused,
)
from bus_schemas.flows import Role
from bus_schemas.nkeys import KeyType, public_nkey
from bus_schemas.oprf import blind
from bus_schemas.requests import EVALUATE
from bus_schemas.streams import LEDGER, RATCHET
from bus_schemas.transport.connection import Bus
from bus_schemas.transport.credentials import parse_credentials
from bus_schemas.transport.database import transaction
from bus_schemas.transport.fresh import fresh
from bus_schemas.transport.jetstream import StoredMessage, read_last, store
from bus_schemas.transport.target import BusUnavailable
from bus_schemas.unlock import unlock_check, unlock_input, unlock_key_info, unlock_preimage
from platform_handlers.authority.installation import read_evaluator_keys
from platform_handlers.evaluator import roster
from platform_handlers.evaluator.app import run_evaluator
from platform_handlers.evaluator.keys import EPOCH_FILE, KeyStore
from platform_handlers.evaluator.ratchet import Found, Ratchets
from platform_handlers.evaluator.rules import Circumstances
from platform_handlers.evaluator.servers import FILE_NAME, ServerStore
from tests.conftest import Platform
from tests.following import events_of, messages_once
from tests.integration.echo import Echo

SERVER = "acme-1"


@dataclass
class Machine:
    """A server as far as the evaluator sees it."""

    platform: Platform
    bus: Bus
    server_id: str = SERVER
    identity: Ed25519PrivateKey = field(default_factory=Ed25519PrivateKey.generate)

    async def enrol(self) -> None:
        """Have the ledger tell of it."""
        issuer = await self.platform.bus(Role.ISSUER)
        provisioned = ServerProvisioned(
            server_id=self.server_id,
            owner_id="acme",
            nkey=public_nkey(Ed25519PrivateKey.generate(), KeyType.USER),
            identity_key=self.identity.public_key().public_bytes_raw(),
        )
        await store(issuer, fresh(provisioned))

    def sealed(self, request: EvaluatorRequest, *, as_server: str | None = None) -> bytes:
        """Return *request* as it crosses the bus."""
        return seal_request(
            request,
            server_id=as_server or self.server_id,
            identity_key=self.identity,
            evaluator_public_key=read_evaluator_keys(self.platform.installation).sealing_key,
        )

    async def send(self, raw: bytes) -> EvaluatorReply:
        """Send bytes and return the reply; a refusal must be the evaluator's own word."""
        subject = EVALUATE.fill({"server_id": self.server_id})
        reply = read_reply((await self.bus.request(subject, raw, wait=5)).data)
        if isinstance(reply, RefusalReply):
            pinned = read_evaluator_keys(self.platform.installation).signing_key
            question = Question.asked(self.server_id, raw)
            check_refusal(reply, question, evaluator_public_key=pinned)
        return reply

    async def refused(self, asked: bytes | EvaluatorRequest) -> str:
        """Return the reason why a request, or raw bytes, are turned down."""
        reply = await self.send(asked if isinstance(asked, bytes) else self.sealed(asked))
        assert isinstance(reply, RefusalReply)
        return reply.reason

    async def ask(self, request: EvaluatorRequest) -> EvaluatorReply:
        """Send a request and return the reply."""
        return await self.send(self.sealed(request))

    async def nonce(self) -> bytes:
        """Get a nonce."""
        reply = await self.ask(ChallengeRequest())
        assert isinstance(reply, ChallengeReply)
        return reply.nonce

    async def keys(self) -> KeysReply:
        """Get the public keys, checked."""
        reply = await self.ask(KeysRequest())
        assert isinstance(reply, KeysReply)
        pinned = read_evaluator_keys(self.platform.installation).signing_key
        check_keys(reply, server_id=self.server_id, evaluator_public_key=pinned)
        return reply

    def x(self, g: int, share: bytes) -> bytes:
        """Return x_g."""
        return unlock_input(self.server_id, g, share)

    async def unlock(self, g: int, share: bytes, following: bytes) -> bytes | str:
        """Return y_g, or the reason of the refusal."""
        x, following_x = self.x(g, share), self.x(g + 1, following)
        blinding, blinded = blind([x, following_x])
        request = UnlockRequest(
            g=g,
            blinded=(blinded[0], blinded[1]),
            preimage=unlock_preimage(x),
            next_preimage=unlock_preimage(following_x),
            nonce=await self.nonce(),
        )
        reply = await self.ask(request)
        if isinstance(reply, RefusalReply):
            return reply.reason
        assert isinstance(reply, UnlockReply)
        return blinding.finalize_each(reply.evaluation, reply.public_keys)[0]

    async def commit(self, g: int, share: bytes, pins: tuple[str, ...] = ()) -> int | str:
        """Return the incarnation, or the reason of the refusal."""
        request = CommitRequest(
            g=g,
            preimage=unlock_preimage(self.x(g, share)),
            owner_pins=pins,
            nonce=await self.nonce(),
        )
        reply = await self.ask(request)
        if isinstance(reply, RefusalReply):
            return reply.reason
        assert isinstance(reply, CommitReply)
        return reply.incarnation

    async def tag_points(self, values: list[bytes], epoch: str = "e1") -> list[bytes] | str:
        """Return the evaluated outputs of *values*, or the reason of the refusal."""
        blinding, blinded = blind(values)
        request = FingerprintRequest(epoch=epoch, blinded=tuple(blinded), nonce=await self.nonce())
        reply = await self.ask(request)
        if isinstance(reply, RefusalReply):
            return reply.reason
        assert isinstance(reply, EvaluationReply)
        return blinding.finalize(
            reply.evaluation, (await self.keys()).fingerprint_public_keys[epoch]
        )


@pytest.fixture
async def serving(platform: Platform) -> AsyncIterator[asyncio.Task[None]]:
    """A running evaluator."""
    ready = asyncio.Event()
    running = run_evaluator(platform.installation, platform.server.target, ready.set)
    task = asyncio.create_task(running)
    await asyncio.wait_for(ready.wait(), 10)
    yield task
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)


@pytest.fixture
async def machine(platform: Platform, serving: asyncio.Task[None]) -> Machine:
    """An enrolled server."""
    found = Machine(platform, await platform.bus(Role.SERVER, SERVER))
    await found.enrol()
    return found


async def unlock_seed(platform: Platform, server_id: str = SERVER) -> bytes:
    """Return the seed of a server's unlock keys."""
    keys = await KeyStore.open(platform.installation.evaluator)
    try:
        found = await keys.find(server_id)
        assert found is not None
        return found.seed
    finally:
        await keys.close()


async def facts(platform: Platform, kind: type[Event], count: int) -> list[Event]:
    """Return the ledger's facts of one kind, once there are *count*."""
    ops = await platform.bus(Role.OPS)

    def of_kind(messages: list[StoredMessage]) -> list[Event]:
        return [event for event in events_of(messages) if isinstance(event, kind)]

    return of_kind(await messages_once(ops, LEDGER, lambda found: len(of_kind(found)) >= count))


async def test_each_start_opens_with_the_newest_share_only(machine: Machine) -> None:
    """The same output for the same share, a new generation at each start, old shares refused."""
    shares = [secrets.token_bytes(32) for _ in range(4)]
    assert not isinstance(await machine.unlock(0, shares[0], shares[1]), str)
    assert await machine.commit(1, shares[1]) == 1
    first = await machine.unlock(1, shares[1], shares[2])
    assert await machine.unlock(1, shares[1], shares[2]) == first
    assert await machine.commit(2, shares[2]) == 2
    assert await machine.commit(2, shares[2]) == 2
    assert await machine.unlock(1, shares[1], shares[3]) == "stale_generation"
    told = await facts(machine.platform, ServerUnlocked, 2)
    assert [fact.incarnation for fact in told if isinstance(fact, ServerUnlocked)] == [1, 2]
    [refused] = await facts(machine.platform, UnlockRefused, 1)
    assert refused == UnlockRefused(server_id=SERVER, reason="stale_generation")


async def test_a_lost_commit_is_made_up_for(machine: Machine) -> None:
    """A server that wrote generation 1 and could not say so still opens with it."""
    shares = [secrets.token_bytes(32) for _ in range(3)]
    await machine.unlock(0, shares[0], shares[1])
    assert not isinstance(await machine.unlock(1, shares[1], shares[2]), str)
    assert await machine.commit(2, shares[2]) == 2


async def test_a_nonce_is_good_once(machine: Machine) -> None:
    """A recorded request is worth nothing."""
    share = secrets.token_bytes(32)
    _, blinded = blind([b"a", b"b"])
    request = UnlockRequest(
        g=0,
        blinded=(blinded[0], blinded[1]),
        preimage=unlock_preimage(machine.x(0, share)),
        next_preimage=secrets.token_bytes(32),
        nonce=await machine.nonce(),
    )
    recorded = machine.sealed(request)
    assert isinstance(await machine.send(recorded), UnlockReply)
    assert await machine.refused(recorded) == "stale_nonce"


async def test_only_the_server_itself_is_served(
    machine: Machine, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Neither another identity key nor another name, nor one the ledger does not know."""
    monkeypatch.setattr(roster, "_NEWS_SECONDS", 0.1)
    thief = Machine(machine.platform, machine.bus)
    assert await thief.refused(ChallengeRequest()) == "bad_signature"
    borrowed = machine.sealed(ChallengeRequest(), as_server="acme-2")
    assert await machine.refused(borrowed) == "wrong_server"
    assert await machine.refused(b"{}") == "bad_request"
    stranger = Machine(
        machine.platform, await machine.platform.bus(Role.SERVER, "nobody"), "nobody"
    )
    assert await stranger.refused(ChallengeRequest()) == "unknown_server"


async def test_another_machine_may_be_faster_than_the_news_of_it(
    machine: Machine, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One of its requests is kept for a moment; from the news on the old machine is out."""
    assert not isinstance(await machine.unlock(0, bytes(32), bytes(32)), str)
    before = await unlock_seed(machine.platform)
    new = Machine(machine.platform, machine.bus)
    asked = {asyncio.create_task(new.ask(ChallengeRequest())) for _ in range(2)}
    [refused], [kept] = await asyncio.wait(asked, return_when=asyncio.FIRST_COMPLETED)
    turned_down = await refused
    assert isinstance(turned_down, RefusalReply)
    assert turned_down.reason == "bad_signature"
    issuer = await machine.platform.bus(Role.ISSUER)
    reenrolled = ServerReenrolled(
        server_id=SERVER,
        owner_id="acme",
        nkey=public_nkey(Ed25519PrivateKey.generate(), KeyType.USER),
        identity_key=new.identity.public_key().public_bytes_raw(),
    )
    await store(issuer, fresh(reenrolled))
    assert isinstance(await kept, ChallengeReply)
    monkeypatch.setattr(roster, "_NEWS_SECONDS", 0.1)
    assert await machine.refused(ChallengeRequest()) == "bad_signature"
    assert not isinstance(await new.unlock(0, bytes(32), bytes(32)), str)
    assert await unlock_seed(machine.platform) != before


async def test_a_revoked_server_is_not_served(machine: Machine) -> None:
    """The evaluator follows the ledger, so a revoked server cannot unlock."""
    await machine.nonce()
    issuer = await machine.platform.bus(Role.ISSUER)
    revoked = ServerRevoked(server_id=SERVER, owner_id="acme", reason="stolen")
    await store(issuer, fresh(revoked))
    async with asyncio.timeout(10):
        reply = await machine.ask(ChallengeRequest())
        while isinstance(reply, ChallengeReply):
            reply = await machine.ask(ChallengeRequest())
            await asyncio.sleep(0.02)
    assert await machine.refused(KeysRequest()) == "server_not_active"


async def test_fingerprints_agree_between_servers_and_not_with_unlocks(machine: Machine) -> None:
    """One credential gives one output on every server; unlock keys are each server's own."""
    other = Machine(machine.platform, await machine.platform.bus(Role.SERVER, "acme-2"), "acme-2")
    await other.enrol()
    value = [secrets.token_bytes(32)]
    assert await machine.tag_points(value) == await other.tag_points(value)
    assert await machine.tag_points(value, "e9") == "unknown_epoch"
    for each in (machine, other):
        assert not isinstance(await each.unlock(0, bytes(32), bytes(32)), str)
    assert await unlock_seed(machine.platform) != await unlock_seed(machine.platform, "acme-2")
    mine = await machine.keys()
    [opened] = await facts(machine.platform, EpochOpened, 1)
    assert opened == EpochOpened(epoch="e1", public_key=mine.fingerprint_public_keys["e1"])


async def test_evaluations_are_capped(machine: Machine) -> None:
    """A server gets 400 evaluations a day; whole requests are refused, not halves."""
    values = [secrets.token_bytes(32) for _ in range(64)]
    for _ in range(6):
        assert not isinstance(await machine.tag_points(values), str)
    assert await machine.tag_points(values) == "too_many_evaluations"
    assert not isinstance(await machine.tag_points(values[:16]), str)
    assert await machine.tag_points(values[:1]) == "too_many_evaluations"


async def test_the_bus_learns_no_preimage(machine: Machine) -> None:
    """What the ratchet keeps are checks: hashes of what a disk can show."""
    shares = [secrets.token_bytes(32) for _ in range(2)]
    await machine.unlock(0, shares[0], shares[1])
    await machine.commit(1, shares[1])
    evaluator = await machine.platform.bus(Role.EVALUATOR)
    state = await read_last(evaluator, RATCHET.name, f"byok.v1.ratchet.{SERVER}")
    assert state is not None
    event = decode(state.data, state.subject).data
    preimage = unlock_preimage(machine.x(1, shares[1]))
    assert dict(event)["committed_check"] == unlock_check(preimage)
    assert preimage not in bytes(str(dict(event)), "ascii", "replace")
    direct = f"$JS.API.DIRECT.GET.{RATCHET.name}.byok.v1.ratchet.{SERVER}"
    with pytest.raises(BusUnavailable):
        await machine.bus.request(direct, b"", wait=0.3)


async def test_a_lost_acknowledgement_is_recognised(platform: Platform) -> None:
    """A state that was written although its acknowledgement got lost counts as written."""
    credentials = parse_credentials(platform.installation.credentials(Role.EVALUATOR).read_text())
    bus = await Echo(platform.server.target, "evaluator", lambda: credentials).open()
    servers = await ServerStore.open(platform.installation.evaluator / FILE_NAME)

    def one_on(found: Found) -> RatchetAdvanced:
        return found.state.model_copy(update={"committed": found.state.committed + 1})

    try:
        ratchets, about = Ratchets(bus, bytes(32), servers), Circumstances(now=0)
        assert (await ratchets.advance(SERVER, about, one_on)).state.committed == 1
        same = await ratchets.advance(SERVER, about, lambda found: found.state)
        assert same.state.committed == 1
        assert await servers.remembered(SERVER) == same.state
    finally:
        await servers.close()
        await bus.close()


async def test_keys_survive_a_restart(platform: Platform, machine: Machine) -> None:
    """A second evaluator process on the same folder answers with the same keys."""
    before = await machine.keys()
    first = await machine.unlock(0, bytes(32), bytes(32))
    store_ = await KeyStore.open(platform.installation.evaluator)
    try:
        x = machine.x(0, bytes(32))
        info = unlock_key_info(SERVER, 0, unlock_check(unlock_preimage(x)))
        assert (await store_.unlock_key(SERVER)).under(info).evaluate_known(x) == first
        assert (await store_.first_epoch()).key.public_key == before.fingerprint_public_keys["e1"]
    finally:
        await store_.close()


async def test_a_damaged_memory_of_its_own_is_no_refusal(machine: Machine) -> None:
    """The server is not told to give up for what is broken at the evaluator: it asks again."""
    await machine.unlock(0, bytes(32), bytes(32))
    servers = await ServerStore.open(machine.platform.installation.evaluator / FILE_NAME)
    try:
        state = await servers.remembered(SERVER)
        assert state is not None
        async with transaction(servers.database):
            await servers.database.execute("UPDATE ratchets SET state = '{}'")
        with pytest.raises(BusUnavailable):
            await machine.bus.request(
                EVALUATE.fill({"server_id": SERVER}), machine.sealed(ChallengeRequest()), wait=0.3
            )
        await servers.remember(state)
    finally:
        await servers.close()
    assert isinstance(await machine.ask(ChallengeRequest()), ChallengeReply)


async def test_a_lost_epoch_key_is_noticed(platform: Platform, serving: asyncio.Task[None]) -> None:
    """Starting with a new epoch key under the old name would silently end all matches."""
    serving.cancel()
    await asyncio.gather(serving, return_exceptions=True)
    for path in platform.installation.evaluator.glob(f"{EPOCH_FILE}*"):
        path.unlink()
    with pytest.raises(Refused, match="foreign_epoch"):
        await run_evaluator(platform.installation, platform.server.target)


async def test_a_shredded_key_is_gone_from_the_disk(platform: Platform) -> None:
    """Destroying an unlock key leaves no trace in its file, and it is never made anew."""
    folder = platform.installation.evaluator
    keys = await KeyStore.open(folder)
    try:
        seed = (await keys.unlock_key(SERVER)).seed
        await keys.shred(SERVER)
        assert all(seed not in path.read_bytes() for path in folder.glob("unlock-keys.db*"))
        with pytest.raises(Refused, match="unlock_key_shredded"):
            await keys.unlock_key(SERVER)
    finally:
        await keys.close()
