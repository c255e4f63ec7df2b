"""Turning a server away: on one nats-server, on two, on one that hangs, and to be replaced."""

import asyncio
import json
import re
import shutil
import signal
import socket
import time
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from nats.aio.msg import Msg

from bus_schemas.encoding import from_base64url
from bus_schemas.errors import Refused
from bus_schemas.events import ServerReenrolled, ServerRevoked
from bus_schemas.flows import Account
from bus_schemas.requests import EnrolReply, RefusedReply, Tokens
from bus_schemas.transport.connection import Bus
from bus_schemas.transport.target import BusTarget, TokenRefused
from platform_handlers.authority.claims import issued_at
from platform_handlers.authority.installation import Installation
from platform_handlers.authority.nats_process import NatsServer, start_nats_server
from platform_handlers.doctor.databases import revocations_confirmed
from platform_handlers.provisioning.enrolment import Enrolment, Enrolments
from platform_handlers.provisioning.nats_servers import NatsServers
from platform_handlers.provisioning.records import ServerState
from platform_handlers.provisioning.registry import FILE_NAME, Registry
from platform_handlers.provisioning.revocation import Revoker
from platform_handlers.provisioning.service import system_bus
from platform_handlers.provisioning.tokens import TokenMint
from platform_handlers.provisioning.turn_away import turn_away
from tests.conftest import Platform
from tests.enrolling import Machine, Running, provisioning, renew

_BOUND_SECONDS = 10.0


@pytest.fixture
async def running(platform: Platform) -> AsyncIterator[Running]:
    """The provisioning handler, on a fresh installation."""
    async with provisioning(platform) as handler:
        yield handler


async def until_lost(bus: Bus) -> float:
    """Wait until *bus* has no connection; return when that was, by the monotonic clock."""
    async with asyncio.timeout(_BOUND_SECONDS):
        while bus.connected:  # noqa: ASYNC110 (there is no bell for it)
            await asyncio.sleep(0.002)
    return time.monotonic()


async def test_a_revoked_server_is_out_at_once(running: Running) -> None:
    """Its connection ends, neither token opens again, the fact is told, others stay."""
    machine, other = Machine.new(), Machine.new()
    reply, others = await running.join(machine), await running.join(other, "acme-2")
    bus = await running.open(machine, reply.tokens.working)
    neighbour = await running.open(other, others.tokens.working, "acme-2")
    installation, target = running.platform.installation, running.platform.server.target
    losing = asyncio.create_task(until_lost(bus))
    begun = time.monotonic()
    await running.registry.set_state("acme-1", ServerState.REVOKED, "stolen")
    seen = await turn_away(installation, target, running.registry, "acme-1")
    assert seen.verified
    assert (seen.pushed.servers, seen.pushed.updated, seen.left) == (1, 1, 0)
    assert seen.found <= 1  # none if the issuer was faster than the command
    assert await losing - begun < 5  # some 20 ms here; the bound has room for a busy machine
    for jwt in (reply.tokens.working, reply.tokens.door):
        with pytest.raises(TokenRefused):
            await running.open(machine, jwt)
    await bus.close()
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
    await until_lost(bus)
    await bus.close()


async def test_a_replaced_machine_is_out_before_the_new_one_comes(running: Running) -> None:
    """The thief's machine does not go on; the id goes on with the new one's keys alone."""
    old, new, thief = Machine.new(), Machine.new(), Machine.new()
    before = await running.join(old)
    bus = await running.open(old, before.tokens.working)
    token = await running.replacement()
    installation, target = running.platform.installation, running.platform.server.target
    seen = await turn_away(installation, target, running.registry, "acme-1")
    assert (seen.verified, seen.left) == (True, 0)
    await bus.close()
    for jwt in (before.tokens.working, before.tokens.door):
        with pytest.raises(TokenRefused):
            await running.open(old, jwt)
    again = await running.ask(token, old.request(token))
    assert isinstance(again, RefusedReply)
    assert again.refused == "key_in_use"  # its nkey is void on the bus: tokens for it open nothing
    reply = await running.ask(token, new.request(token))
    assert isinstance(reply, EnrolReply)
    late = await running.ask(token, thief.request(token))
    assert isinstance(late, RefusedReply)
    assert late.refused == "join_token_used"
    at_work = await running.open(new, reply.tokens.working)
    Tokens.model_validate_json(await renew(at_work))
    await at_work.close()
    facts = await running.ledger(2)
    assert facts[1] == ServerReenrolled(
        server_id="acme-1",
        owner_id="acme",
        nkey=new.public_nkey,
        identity_key=new.identity.public_key().public_bytes_raw(),
    )
    attempts = await Enrolments(running.registry).attempts("acme-1")
    outcomes = ["enrolled", "key_in_use", "enrolled", "join_token_used"]
    assert [attempt.outcome for attempt in attempts] == outcomes


async def test_a_revoked_server_comes_back_by_a_reenrolment_only(running: Running) -> None:
    """Revoked by mistake: an explicit command and a new machine's keys, no other way."""
    await running.join(Machine.new())
    await running.registry.set_state("acme-1", ServerState.REVOKED, "by_mistake")
    with pytest.raises(Refused, match="server_exists"):
        await running.token()
    token = await running.replacement()
    with pytest.raises(Refused, match="server_exists"):
        await running.token()  # `server add` has no say in it
    newer = await running.replacement()
    stale = await running.ask(token, Machine.new().request(token))
    assert isinstance(stale, RefusedReply)
    assert stale.refused == "bad_join_secret"
    assert isinstance(await running.ask(newer, Machine.new().request(newer)), EnrolReply)
    record = await running.registry.require_server("acme-1")
    assert (record.active, record.ended_at, record.reason) == (True, None, None)
    await running.registry.set_state("acme-1", ServerState.DEPROVISIONED, "gone")
    with pytest.raises(Refused, match="server_deprovisioned"):
        await running.replacement()


async def test_claims_have_one_writer_and_a_growing_iat(platform: Platform) -> None:
    """Two revokers at once, one with a clock an hour behind: no `iat` twice, none goes back."""
    installation = platform.installation
    path, fleet = installation.platform / FILE_NAME, installation.account_id(Account.FLEET.value)
    now = time.time()
    system = await system_bus(installation, platform.server.target).open()
    pushed: list[tuple[int, int]] = []

    async def hear(message: Msg) -> None:
        body = json.loads(from_base64url(message.data.decode().split(".")[1]))
        pushed.append((int(body["iat"]), len(body["nats"]["revocations"])))

    await system.listen("$SYS.REQ.CLAIMS.UPDATE", hear)
    ahead = await Registry.open(path, clock=lambda: now + 60)
    behind = await Registry.open(path, clock=lambda: now - 3600)
    try:
        await ahead.add_owner("acme")
        revokers = [Revoker(system, registry, installation) for registry in (ahead, behind)]
        for turn in range(3):
            for registry in (ahead, behind):
                await enrolled(registry, f"acme-{len(pushed)}-{turn}-{registry is ahead}".lower())
            for record in await ahead.servers():
                if record.active:
                    await behind.set_state(record.server_id, ServerState.REVOKED, "test")
            done = await asyncio.gather(*(r.push(again=True) for r in revokers))
            assert all(one is not None and one.complete for one in done)
    finally:
        await ahead.close()
        await behind.close()
        await system.close()
    iats = [iat for iat, _ in pushed]
    assert len(iats) == 6
    assert iats == sorted(set(iats))
    assert [count for _, count in pushed] == [2, 2, 4, 4, 6, 6]
    kept = (installation.nats / "accounts" / f"{fleet}.jwt").read_text()
    assert issued_at(kept) == iats[-1]


async def enrolled(registry: Registry, server_id: str) -> Machine:
    """Enrol a machine straight in the registry."""
    machine = Machine.new()
    secret = await registry.add_server("acme", server_id)
    key = machine.identity.public_key().public_bytes_raw()
    wish = Enrolment(server_id, secret, machine.public_nkey, key, "192.0.2.1", "join-x")
    await Enrolments(registry).enrol(wish)
    return machine


@dataclass
class Pair:
    """Two nats-servers of one installation, joined by a route; no JetStream on either."""

    installation: Installation
    first: NatsServer
    second: NatsServer
    system: Bus
    registry: Registry

    async def server_on(self, node: NatsServer) -> tuple[Bus, Machine]:
        """Enrol acme-1 and connect it to *node*."""
        await self.registry.add_owner("acme")
        machine = await enrolled(self.registry, "acme-1")
        mint = TokenMint.of(self.installation)
        tokens = mint.tokens("acme-1", machine.public_nkey, now=int(time.time()))
        credentials = machine.credentials(tokens.working)
        bus = await Bus(node.target, "acme-1", lambda: credentials).open()
        return bus, machine

    async def revoke(self) -> "Revoker":
        """Record the revocation of acme-1 and return who tells the bus."""
        await self.registry.set_state("acme-1", ServerState.REVOKED, "stolen")
        return Revoker(self.system, self.registry, self.installation)


def free_port() -> int:
    """Return a port that nobody listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@pytest.fixture(params=["full"])
async def pair(
    installation: Installation, tmp_path: Path, request: pytest.FixtureRequest
) -> AsyncIterator[Pair]:
    """Two joined nats-servers; with `memory` the second one's resolver takes no updates."""
    port = free_port()
    conf = installation.nats / "nats-server.conf"
    plain = re.sub(r"jetstream \{.*?\n\}\n", "", conf.read_text(), flags=re.DOTALL)
    conf.write_text(f'{plain}cluster {{ name: byok, listen: "127.0.0.1:{port}" }}\n')
    other = Installation(shutil.copytree(installation.root, tmp_path / "second"))
    text = plain.replace(str(installation.root), str(other.root)).replace("byok-1", "byok-2")
    if request.param == "memory":
        jwts = "\n".join(
            f"  {file.stem}: {file.read_text()}" for file in (other.nats / "accounts").glob("*.jwt")
        )
        text = re.sub(r"resolver \{.*?\n\}\n", "", text, flags=re.DOTALL)
        text += f"resolver: MEMORY\nresolver_preload: {{\n{jwts}\n}}\n"
    route = f'routes: ["nats://127.0.0.1:{port}"]'
    text += f'cluster {{ name: byok, listen: "127.0.0.1:-1", {route} }}\n'
    (other.nats / "nats-server.conf").write_text(text)
    first = await start_nats_server(installation, log=tmp_path / "first.log")
    second = await start_nats_server(other, log=tmp_path / "second.log")
    system = await system_bus(installation, first.target).open()
    registry = await Registry.open(installation.platform / FILE_NAME)
    try:
        async with asyncio.timeout(_BOUND_SECONDS):
            while (await NatsServers(system).present()).answering < 2:  # noqa: ASYNC110 (no bell)
                await asyncio.sleep(0.02)
        yield Pair(installation, first, second, system, registry)
    finally:
        await registry.close()
        await system.close()
        second.process.send_signal(signal.SIGCONT)
        second.stop()
        first.stop()


async def test_all_nats_servers_confirm(pair: Pair) -> None:
    """The push by one reaches the connection on the other, and both answers are counted."""
    bus, machine = await pair.server_on(pair.second)
    seen = await (await pair.revoke()).shut_out([machine.public_nkey])
    assert seen.verified
    assert (seen.pushed.servers, seen.pushed.updated, seen.found, seen.left) == (2, 2, 1, 0)
    assert revocations_confirmed(pair.installation)
    await until_lost(bus)
    await bus.close()
    assert "2 of 2" in seen.lines()[0]


@pytest.mark.parametrize("pair", ["memory"], indirect=True)
async def test_a_server_that_missed_the_push_is_kicked_there_and_said(pair: Pair) -> None:
    """One nats-server takes no claims: its connection is ended by hand, and nothing is claimed."""
    bus, machine = await pair.server_on(pair.second)
    lost = asyncio.create_task(until_lost(bus))
    seen = await (await pair.revoke()).shut_out([machine.public_nkey])
    await lost
    await bus.close()
    assert not seen.verified
    assert (seen.pushed.servers, seen.pushed.updated, seen.found, seen.kicked) == (2, 1, 1, 1)


async def test_a_hanging_nats_server_counts_as_one_that_did_not_confirm(pair: Pair) -> None:
    """It may go on serving the thief: that its answer is missing must be seen."""
    bus, machine = await pair.server_on(pair.first)
    pair.second.process.send_signal(signal.SIGSTOP)
    seen = await (await pair.revoke()).shut_out([machine.public_nkey])
    await until_lost(bus)
    await bus.close()
    assert not seen.verified
    assert (seen.pushed.servers, seen.pushed.updated, seen.left) == (2, 1, 0)
    assert not revocations_confirmed(pair.installation)


async def test_a_kicked_server_with_good_tokens_comes_back_by_itself(running: Running) -> None:
    """A kick alone turns nobody away, and its owner need do nothing."""
    machine = Machine.new()
    reply = await running.join(machine)
    bus = await running.open(machine, reply.tokens.working)
    target: BusTarget = running.platform.server.target
    system = await system_bus(running.platform.installation, target).open()
    revoker = Revoker(system, running.registry, running.platform.installation)
    [connection] = await revoker.connections([machine.public_nkey])
    back = asyncio.Event()
    bus.on_ready(back.set)
    servers = NatsServers(system)
    assert await servers.kick(connection)
    assert not await servers.kick(connection)
    async with asyncio.timeout(_BOUND_SECONDS):
        await back.wait()
    Tokens.model_validate_json(await renew(bus))
    await bus.close()
    await system.close()
