"""A server's way onto the bus, against a real nats-server."""

import asyncio
import sqlite3
import time
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from nats.aio.msg import Msg

from bus_schemas.errors import Refused
from bus_schemas.events import ServerProvisioned
from bus_schemas.flows import Role
from bus_schemas.join_token import JoinToken
from bus_schemas.requests import ENROL, EnrolReply, RefusedReply, Tokens
from bus_schemas.transport.connection import Bus
from bus_schemas.transport.credentials import Credentials
from bus_schemas.transport.target import BusUnavailable
from platform_handlers.provisioning.enrolment import KEPT_ATTEMPTS, Enrolment, Enrolments
from platform_handlers.provisioning.join_token import issue_join_token
from platform_handlers.provisioning.records import ServerState
from platform_handlers.provisioning.registry import FILE_NAME, Registry
from platform_handlers.provisioning.service import run_provisioning
from tests.conftest import Platform
from tests.enrolling import Machine, Running, provisioning, renew
from vps_runtime.connection.rules import read_claims
from vps_runtime.enrolment.join import join
from vps_runtime.state import StateFolder


@pytest.fixture
async def running(platform: Platform) -> AsyncIterator[Running]:
    """The provisioning handler, on a fresh installation."""
    async with provisioning(platform) as handler:
        yield handler


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


async def test_of_two_machines_with_one_token_one_is_the_server(running: Running) -> None:
    """Asked at the same moment, in two issuers: one is enrolled, the other told by whom."""
    token = await running.token()
    path = running.platform.installation.platform / FILE_NAME
    machines = [Machine.new() for _ in range(4)]

    def wish(machine: Machine, number: int) -> Enrolment:
        return Enrolment(
            "acme-1",
            token.secret.get_secret_value(),
            machine.public_nkey,
            machine.identity.public_key().public_bytes_raw(),
            f"192.0.2.{number}",
            read_claims(token.jwt).name,
        )

    async with await Registry.open(path) as second:
        issuers = [Enrolments(running.registry), Enrolments(second)]
        outcomes = await asyncio.gather(
            *(issuers[i % 2].enrol(wish(machine, i)) for i, machine in enumerate(machines)),
            return_exceptions=True,
        )
    [winner] = [i for i, found in enumerate(outcomes) if not isinstance(found, BaseException)]
    record = await running.registry.require_server("acme-1")
    assert record.nkey == machines[winner].public_nkey
    assert record.join.used_from == f"192.0.2.{winner}"
    refused = [str(found) for found in outcomes if isinstance(found, Refused)]
    assert len(refused) == 3
    assert all(f"was used from 192.0.2.{winner}" in found for found in refused)
    assert len(await running.ledger(1)) == 1
    attempts = await Enrolments(running.registry).attempts("acme-1")
    assert sorted(a.outcome for a in attempts) == ["enrolled", *["join_token_used"] * 3]


async def test_attempts_are_kept_and_bounded(running: Running) -> None:
    """Who repeats a refused token for an hour fills no disk and hides no enrolment."""
    token, machine = await running.token(), Machine.new()
    assert isinstance(await running.ask(token, machine.request(token)), EnrolReply)
    enrolments, joiner = Enrolments(running.registry), read_claims(token.jwt).name
    for number in range(KEPT_ATTEMPTS + 4):
        wish = Enrolment(
            "acme-1", "guessed", machine.public_nkey, b"\x01" * 32, f"h{number}", joiner
        )
        with pytest.raises(Refused, match="bad_join_secret"):
            await enrolments.enrol(wish)
    first, *rest = await enrolments.attempts("acme-1")
    assert (first.outcome, first.source) == ("enrolled", "127.0.0.1")
    assert [attempt.source for attempt in rest] == [f"h{n}" for n in range(4, KEPT_ATTEMPTS + 4)]
    unknown = Enrolment("nobody", "guessed", machine.public_nkey, b"\x01" * 32, "h", joiner)
    with pytest.raises(Refused, match="bad_join_secret"):
        await enrolments.enrol(unknown)
    assert await enrolments.attempts("nobody") == []


async def test_a_join_token_leaves_no_trace_at_another_server(running: Running) -> None:
    """Its holder could write what it likes into a neighbour's attempts, and push out the true."""
    victims, own = await running.token(), await running.token(server="acme-2")
    body = Machine.new().request(victims, secret="guessed")
    refused = await running.ask(own, body)
    assert isinstance(refused, RefusedReply)
    assert refused.refused == "bad_join_secret"
    assert await Enrolments(running.registry).attempts("acme-1") == []
    assert (await running.registry.require_server("acme-1")).join.tried_at is None
    await running.ask(victims, body)
    [attempt] = await Enrolments(running.registry).attempts("acme-1")
    assert attempt.outcome == "bad_join_secret"


async def test_a_flood_with_one_join_token_holds_up_no_other(running: Running) -> None:
    """Twenty thousand requests of one machine cost no work; an honest one is enrolled at once."""
    mallorys, honest = await running.token(server="acme-2"), await running.token()
    credentials = Credentials(mallorys.jwt, mallorys.seed.get_secret_value())
    name = read_claims(mallorys.jwt).name
    mallory = await Bus(running.platform.server.target, name, lambda: credentials).open()
    client = await mallory.client()
    body = Machine.new().request(mallorys, secret="guessed")
    for _ in range(20_000):
        await client.publish(ENROL.fill({"joiner": name}), body, reply=f"_INBOX.{name}.a")
    await client.flush()
    asked = time.monotonic()
    assert isinstance(await running.ask(honest, Machine.new().request(honest)), EnrolReply)
    assert time.monotonic() - asked < 3  # without a door it took more than ten seconds
    await mallory.close()
