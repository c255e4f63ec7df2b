"""A server's way onto the bus and off it again, against a real nats-server."""

import asyncio
import sqlite3
import time
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from nats.aio.msg import Msg
from pydantic import SecretStr

from bus_schemas.codec import decode
from bus_schemas.errors import Refused
from bus_schemas.event import Event
from bus_schemas.events import ServerProvisioned, ServerRevoked
from bus_schemas.flows import Role
from bus_schemas.join_token import JoinToken
from bus_schemas.nkeys import KeyType, public_nkey, seed_nkey
from bus_schemas.requests import ENROL, TOKEN, EnrolReply, EnrolRequest, RefusedReply, Tokens
from bus_schemas.secret_fields import reveal_json
from bus_schemas.streams import LEDGER
from bus_schemas.transport.connection import Bus
from bus_schemas.transport.credentials import Credentials
from bus_schemas.transport.jetstream import read_batch
from bus_schemas.transport.target import BusDenied, BusUnavailable
from platform_handlers.provisioning.join_token import issue_join_token
from platform_handlers.provisioning.records import ServerState
from platform_handlers.provisioning.registry import FILE_NAME, Registry
from platform_handlers.provisioning.revocation import Revoker
from platform_handlers.provisioning.service import run_provisioning, system_bus
from platform_handlers.provisioning.turn_away import turn_away
from tests.conftest import Platform
from vps_runtime.connection.rules import read_claims
from vps_runtime.enrolment.join import join
from vps_runtime.state import StateFolder


@dataclass
class Machine:
    """A new server's own keys."""

    nkey: Ed25519PrivateKey
    identity: Ed25519PrivateKey

    @classmethod
    def new(cls) -> "Machine":
        """Return fresh keys."""
        return cls(Ed25519PrivateKey.generate(), Ed25519PrivateKey.generate())

    @property
    def public_nkey(self) -> str:
        """The public half it signs in with."""
        return public_nkey(self.nkey, KeyType.USER)

    def request(self, token: JoinToken, *, secret: str | None = None) -> bytes:
        """Return the enrolment request."""
        request = EnrolRequest(
            server_id=token.server_id,
            secret=SecretStr(secret) if secret else token.secret,
            nkey=self.public_nkey,
            identity_key=self.identity.public_key().public_bytes_raw(),
        )
        return reveal_json(request)

    def credentials(self, jwt: str) -> Credentials:
        """Return what it signs in with."""
        return Credentials(jwt, seed_nkey(self.nkey, KeyType.USER))


@dataclass
class Running:
    """The provisioning handler at work."""

    platform: Platform
    registry: Registry

    async def token(self, owner: str = "acme", server: str = "acme-1") -> JoinToken:
        """Issue a join token."""
        if owner not in await self.registry.owners():
            await self.registry.add_owner(owner)
        return await issue_join_token(
            self.platform.installation,
            self.registry,
            self.platform.server.target.url,
            (owner, server),
        )

    async def ask(self, token: JoinToken, body: bytes) -> EnrolReply | RefusedReply:
        """Send an enrolment the way a new machine does."""
        credentials = Credentials(token.jwt, token.seed.get_secret_value())
        name = read_claims(token.jwt).name
        bus = await Bus(self.platform.server.target, name, lambda: credentials).open()
        try:
            reply = await bus.request(ENROL.pattern, body, wait=5)
        finally:
            await bus.close()
        if b'"refused"' in reply.data:
            return RefusedReply.model_validate_json(reply.data)
        return EnrolReply.model_validate_json(reply.data)

    async def join(self, machine: Machine, server: str = "acme-1") -> EnrolReply:
        """Enrol *machine*."""
        token = await self.token(server=server)
        reply = await self.ask(token, machine.request(token))
        assert isinstance(reply, EnrolReply)
        return reply

    async def open(self, machine: Machine, jwt: str, server: str = "acme-1") -> Bus:
        """Connect *machine* with a token."""
        credentials = machine.credentials(jwt)
        return await Bus(self.platform.server.target, server, lambda: credentials).open()

    async def ledger(self, count: int) -> list[Event]:
        """Return the ledger's facts once there are *count*."""
        ops = await self.platform.bus(Role.OPS)
        deadline = time.monotonic() + 10
        while len(found := await read_batch(ops, LEDGER.name, 1, 100)) < count:
            assert time.monotonic() < deadline, f"{len(found)} facts of {count}"
            await asyncio.sleep(0.02)
        return [decode(message.data, message.subject).data for message in found]


@pytest.fixture
async def running(platform: Platform) -> AsyncIterator[Running]:
    """The provisioning handler, on a fresh installation."""
    installation = platform.installation
    async with await Registry.open(installation.platform / FILE_NAME) as registry:
        ready = asyncio.Event()
        task = asyncio.create_task(
            run_provisioning(installation, platform.server.target, registry, ready.set)
        )
        try:
            await asyncio.wait_for(ready.wait(), 10)
            yield Running(platform, registry)
        finally:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)


async def renew(bus: Bus, server: str = "acme-1") -> bytes:
    """Ask for new tokens."""
    return (await bus.request(TOKEN.fill({"server_id": server}), b"{}", wait=5)).data


async def test_a_join_token_enrols_one_server(running: Running) -> None:
    """A new machine gets its tokens, the ledger hears of it, and both tokens sign in."""
    machine = Machine.new()
    token = JoinToken.decode((await running.token()).encode())
    reply = await running.ask(token, machine.request(token))
    assert isinstance(reply, EnrolReply)
    assert reply.owner_id == "acme"
    [provisioned] = await running.ledger(1)
    assert provisioned == ServerProvisioned(
        server_id="acme-1",
        owner_id="acme",
        nkey=machine.public_nkey,
        identity_key=machine.identity.public_key().public_bytes_raw(),
    )
    for jwt in (reply.tokens.working, reply.tokens.door):
        bus = await running.open(machine, jwt)
        Tokens.model_validate_json(await renew(bus))
        await bus.close()


async def test_a_join_token_is_used_once_and_says_by_whom(running: Running) -> None:
    """The same machine may ask again, another one may not, and both leave a trace."""
    machine, token = Machine.new(), await running.token()
    for _ in range(2):
        assert isinstance(await running.ask(token, machine.request(token)), EnrolReply)
    refused = await running.ask(token, Machine.new().request(token))
    assert isinstance(refused, RefusedReply)
    assert refused.refused == "join_token_used"
    record = await running.registry.require_server("acme-1")
    assert record.join.used_from == "127.0.0.1"
    assert record.join.tried_from == "127.0.0.1"
    assert record.nkey == machine.public_nkey


async def test_a_wrong_secret_enrols_nobody(running: Running) -> None:
    """The credentials of a join token alone are not enough."""
    token = await running.token()
    refused = await running.ask(token, Machine.new().request(token, secret="guessed"))
    assert isinstance(refused, RefusedReply)
    assert refused.refused == "bad_join_secret"
    malformed = await running.ask(token, b'{"server_id": "acme-1", "secret": "x"}')
    assert isinstance(malformed, RefusedReply)
    assert malformed.refused == "malformed"


async def test_an_enrolling_machine_reaches_the_enrolment_only(running: Running) -> None:
    """A join token must not be good for a renewal or a fact."""
    token = await running.token()
    credentials = Credentials(token.jwt, token.seed.get_secret_value())
    name = read_claims(token.jwt).name
    bus = await Bus(running.platform.server.target, name, lambda: credentials).open()
    for subject in ("byok.v1.token.acme-1", "byok.v1.fingerprint.acme-1"):
        with pytest.raises(BusUnavailable):
            await bus.request(subject, b"{}", wait=0.3)
    await bus.close()


async def test_a_join_token_does_not_open_the_servers_own_inboxes(running: Running) -> None:
    """Whoever finds a used one could hear, for an hour, every answer the server gets."""
    token = await running.token()
    credentials = Credentials(token.jwt, token.seed.get_secret_value())
    thief = await Bus(running.platform.server.target, "thief", lambda: credentials).open()
    heard: list[bytes] = []

    async def hear(message: Msg) -> None:
        heard.append(message.data)

    await thief.listen("_INBOX.acme-1.>", hear)
    await (await thief.client()).flush()
    machine = Machine.new()
    reply = await running.join(machine)
    bus = await running.open(machine, reply.tokens.working)
    await bus.request("byok.v1.token.acme-1", b"{}", wait=5)
    await (await thief.client()).flush()
    assert heard == []
    await bus.close()
    await thief.close()


async def test_a_server_cannot_ask_for_anothers_tokens(running: Running) -> None:
    """The subject is the authentication: NATS stops a request under a neighbour's name."""
    machine = Machine.new()
    reply = await running.join(machine)
    await running.join(Machine.new(), "acme-2")
    bus = await running.open(machine, reply.tokens.working)
    with pytest.raises(BusUnavailable):
        await bus.request("byok.v1.token.acme-2", b"{}", wait=0.3)
    await bus.close()


async def test_a_revoked_server_is_out_at_once(running: Running) -> None:
    """Its connection ends, neither token opens again, the fact is told, others stay."""
    machine, other = Machine.new(), Machine.new()
    reply, others = await running.join(machine), await running.join(other, "acme-2")
    bus = await running.open(machine, reply.tokens.working)
    neighbour = await running.open(other, others.tokens.working, "acme-2")
    installation, target = running.platform.installation, running.platform.server.target
    system = await system_bus(installation, target).open()
    revoker = Revoker(system, running.registry, installation)
    assert await revoker.connections(machine.public_nkey) == 1
    await running.registry.set_state("acme-1", ServerState.REVOKED, "stolen")
    lines = await turn_away(installation, target, running.registry, "acme-1")
    assert "none of its connections is open" in lines
    for jwt in (reply.tokens.working, reply.tokens.door):
        with pytest.raises(BusDenied):
            await running.open(machine, jwt)
    await bus.close()
    assert await revoker.connections(other.public_nkey) == 1
    await system.close()
    Tokens.model_validate_json(await renew(neighbour, "acme-2"))
    await neighbour.close()
    facts = await running.ledger(3)
    assert ServerRevoked(server_id="acme-1", owner_id="acme", reason="stolen") in facts


async def test_the_running_issuer_pushes_what_a_command_recorded(running: Running) -> None:
    """A revocation recorded while nobody pushed it is pushed by the issuer, by itself."""
    machine = Machine.new()
    reply = await running.join(machine)
    bus = await running.open(machine, reply.tokens.working)
    path = running.platform.installation.platform / FILE_NAME
    async with await Registry.open(path) as command:
        await command.set_state("acme-1", ServerState.REVOKED, "stolen")
    deadline = time.monotonic() + 10
    while bus.connected:
        assert time.monotonic() < deadline
        await asyncio.sleep(0.02)
    await bus.close()


async def test_a_server_that_is_not_active_gets_no_tokens(running: Running) -> None:
    """Tokens are for active servers; the refusal says why."""
    token = await running.token()
    door = await running.platform.bus(Role.DOOR, "acme-1")
    assert RefusedReply.model_validate_json(await renew(door)).refused == "server_pending"
    await running.registry.set_state("acme-1", ServerState.DEPROVISIONED, "gone")
    refused = RefusedReply.model_validate_json(await renew(door))
    assert refused.refused == "server_deprovisioned"
    enrolment = await running.ask(token, Machine.new().request(token))
    assert isinstance(enrolment, RefusedReply)
    assert enrolment.refused == "server_deprovisioned"


async def test_no_secret_is_kept(running: Running) -> None:
    """The registry's files hold hashes only, whatever was issued."""
    api_token = await running.registry.add_owner("globex")
    token = await running.token("globex", "globex-1")
    folder = running.platform.installation.platform
    stored = b"".join(path.read_bytes() for path in folder.glob("registry.db*"))
    for secret in (api_token, token.secret.get_secret_value(), token.seed.get_secret_value()):
        assert secret.encode() not in stored


async def test_ids_are_never_issued_twice(running: Running) -> None:
    """A deprovisioned server's id stays taken, for its own and for any other owner."""
    await running.join(Machine.new())
    await running.registry.set_state("acme-1", ServerState.DEPROVISIONED, "gone")
    await running.registry.add_owner("globex")
    for owner in ("acme", "globex"):
        with pytest.raises(Refused, match="never issued twice"):
            await running.registry.add_server(owner, "acme-1")
    with pytest.raises(sqlite3.IntegrityError):
        await running.registry.database.execute(
            "INSERT INTO servers SELECT * FROM servers WHERE server_id = 'acme-1'"
        )


async def test_a_machine_that_asks_before_the_issuer_is_there_is_enrolled(
    platform: Platform, tmp_path: Path
) -> None:
    """Both may start at the same moment; the person at the console need not type it again."""
    installation, target = platform.installation, platform.server.target
    async with await Registry.open(installation.platform / FILE_NAME) as registry:
        await registry.add_owner("acme")
        token = await issue_join_token(installation, registry, target.url, ("acme", "acme-1"))
        joining = asyncio.create_task(join(StateFolder(tmp_path / "vps"), token, "A" * 20))
        ops = await platform.bus(Role.OPS)  # while this one connects, the other asks in vain
        assert not joining.done()
        issuing = asyncio.create_task(run_provisioning(installation, target, registry))
        try:
            assert (await asyncio.wait_for(joining, 15)).server_id == "acme-1"
        finally:
            issuing.cancel()
            await asyncio.gather(issuing, return_exceptions=True)
            await ops.close()
