"""The server stays signed in: renewal in time, the door when it was too late, and no way back.

Tokens are minted by a registry whose clock the test sets; nats-server goes by its own.
"""

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path

import pytest
from nats.aio.msg import Msg
from structlog.testing import capture_logs

from bus_schemas.errors import Refused
from bus_schemas.events.health import HealthReported
from bus_schemas.flows import Account
from bus_schemas.requests import Renewal, Tokens
from bus_schemas.transport.connection import Bus
from bus_schemas.transport.target import BusDenied, BusTarget
from platform_handlers.authority import tls
from platform_handlers.authority.accounts import account_plans
from platform_handlers.authority.claims import mint_account
from platform_handlers.doctor.databases import revocations_confirmed
from platform_handlers.provisioning.join_token import issue_join_token
from platform_handlers.provisioning.nats_servers import NatsServers
from platform_handlers.provisioning.records import ServerState
from platform_handlers.provisioning.registry import FILE_NAME, Registry
from platform_handlers.provisioning.service import run_provisioning, system_bus
from tests.conftest import Platform
from tests.outages import Outage, almighty
from vps_runtime.connection import link as link_module
from vps_runtime.connection.issuer import ask_for_tokens
from vps_runtime.connection.link import Clock, Link, Patience, by_the_door
from vps_runtime.connection.rules import read_claims
from vps_runtime.connection.standing import Standing, read_turned_away
from vps_runtime.connection.tokens import TokenStore
from vps_runtime.enrolment.join import join
from vps_runtime.state import NotEnrolled, StateFolder

SERVER = "acme-1"
HOURS = 3600
BRISK = Patience(
    look=0.02,
    lost=0.5,
    first=0.05,
    longest=0.2,
    first_turned_away=0.02,
    longest_turned_away=0.05,
)
"""The same link, for people in a hurry."""
_BOUND_SECONDS = 20.0


@dataclass
class Issuing:
    """A platform whose issuer goes by a clock of ours, and comes and goes."""

    platform: Platform
    registry: Registry
    folder: Path
    offset: list[float]
    _running: list[asyncio.Task[None]] = field(default_factory=list)

    async def start(self) -> None:
        """Start the issuer, and return once it answers."""
        ready = asyncio.Event()
        target = self.platform.server.target
        serving = run_provisioning(self.platform.installation, target, self.registry, ready.set)
        self._running.append(asyncio.create_task(serving))
        await asyncio.wait_for(ready.wait(), _BOUND_SECONDS)

    async def stop(self) -> None:
        """End it."""
        for task in self._running:
            task.cancel()
        await asyncio.gather(*self._running, return_exceptions=True)
        self._running.clear()

    async def enrol(self, server_id: str = SERVER) -> StateFolder:
        """Enrol a server, as its console would; the tokens are as old as the issuer's clock."""
        state = StateFolder(self.folder / server_id)
        installation, url = self.platform.installation, self.platform.server.target.url
        ahead, self.offset[0] = self.offset[0], 0.0  # the join token itself is used now
        token = await issue_join_token(installation, self.registry, url, ("acme", server_id))
        self.offset[0] = ahead
        await join(state, token, "A" * 20)
        return state

    async def push(self, revocations: dict[str, int], *, issued_at: int) -> None:
        """Put claims of our own making on the bus."""
        installation = self.platform.installation
        fleet = installation.account_id(Account.FLEET.value)
        plans = account_plans(installation, revocations)
        plan = next(plan for plan in plans if plan.name == Account.FLEET.value)
        jwt = mint_account(installation.operator_key(), fleet, plan, issued_at=issued_at)
        system = await system_bus(installation, self.platform.server.target).open()
        try:
            assert await NatsServers(system).update_claims(jwt, expected=1) == 1
        finally:
            await system.close()


@pytest.fixture
async def issuing(platform: Platform, tmp_path: Path) -> AsyncIterator[Issuing]:
    """The issuer at work, its clock right, and owner acme."""
    offset = [0.0]
    path = platform.installation.platform / FILE_NAME
    registry = await Registry.open(path, clock=lambda: time.time() + offset[0])
    await registry.add_owner("acme")
    running = Issuing(platform, registry, tmp_path / "servers", offset)
    try:
        await running.start()
        yield running
    finally:
        await running.stop()
        await registry.close()


def life_left(state: StateFolder) -> float:
    """Return the seconds that the working token on the disk is still good for."""
    tokens = Tokens.model_validate_json(state.tokens.read_bytes())
    return (read_claims(tokens.working).expires_at or 0) - time.time()


class Hours:
    """A machine's time, which passes as fast as it is slept away, and only when it is let."""

    def __init__(self, began: float) -> None:
        self.at = self._until = began
        self._arrived, self._on = asyncio.Event(), asyncio.Event()

    def clock(self) -> Clock:
        """Return it as the link takes it."""
        return Clock(lambda: self.at, lambda: self.at, self._sleep)

    async def _sleep(self, seconds: float) -> None:
        while self.at + seconds > self._until:
            self._on.clear()
            self._arrived.set()
            await self._on.wait()
        self.at += seconds
        await asyncio.sleep(0)

    async def let_pass(self, seconds: float) -> None:
        """Let so much of it pass."""
        self._until += seconds
        self._arrived.clear()
        self._on.set()
        await asyncio.wait_for(self._arrived.wait(), 2 * _BOUND_SECONDS)


@asynccontextmanager
async def kept(
    state: StateFolder, *, patience: Patience = BRISK, clock: Clock | None = None
) -> AsyncIterator[Link]:
    """Yield a link that begins to connect and whose tokens are kept fresh."""
    link = Link(
        state.target(),
        SERVER,
        TokenStore(state),
        standing=Standing(state.turned_away),
        patience=patience,
        clock=clock,
    )
    link.begin()
    keeping = asyncio.create_task(link.keep())
    try:
        yield link
    finally:
        keeping.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await keeping
        await link.close()


async def until(fact: Callable[[], object]) -> None:
    """Wait until *fact* is so."""
    async with asyncio.timeout(_BOUND_SECONDS):
        while not fact():  # noqa: ASYNC110 (no bell)
            await asyncio.sleep(0.01)


async def test_a_token_is_renewed_before_it_ends(issuing: Issuing) -> None:
    """Past 80 % of its life: a new one is stored, and the same link goes on with it."""
    issuing.offset[0] = -0.95 * HOURS
    state = await issuing.enrol()
    assert life_left(state) < 200
    issuing.offset[0] = 0
    async with kept(state) as link:
        await until(lambda: life_left(state) > 3000)
        assert isinstance(await ask_for_tokens(link.bus, SERVER), Renewal)


async def test_a_server_off_for_three_hours_comes_back_without_a_person(issuing: Issuing) -> None:
    """Its working token is two hours dead; the door still opens."""
    issuing.offset[0] = -3 * HOURS
    state = await issuing.enrol()
    assert life_left(state) < -1.9 * HOURS
    issuing.offset[0] = 0
    async with kept(state) as link:
        async with asyncio.timeout(_BOUND_SECONDS):
            await link.bus.client()
        assert isinstance(await ask_for_tokens(link.bus, SERVER), Renewal)
    assert life_left(state) > 3000
    assert not state.turned_away.exists()


async def test_an_issuer_down_for_three_hours_is_waited_for_without_a_person(
    issuing: Issuing, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The token ends meanwhile, the link with it; both are back soon after the issuer is.

    The three hours pass on the machine's clock and the issuer's, with the patience of production.
    nats-server has its own clock, by which the token ends three seconds after it was issued.
    """
    issuing.offset[0] = 3 - HOURS
    state = await issuing.enrol()
    await issuing.stop()
    knocks = list[float]()
    hours = Hours(time.time() + issuing.offset[0])

    async def counted(target: BusTarget, server_id: str, tokens: TokenStore) -> Renewal:
        knocks.append(hours.at)
        return await by_the_door(target, server_id, tokens)

    monkeypatch.setattr(link_module, "by_the_door", counted)
    with capture_logs() as logs:
        async with kept(state, patience=Patience(), clock=hours.clock()) as link:
            async with asyncio.timeout(_BOUND_SECONDS):
                await link.bus.client()
            await hours.let_pass(HOURS - 60)
            await until(lambda: life_left(state) < 0 and not link.bus.connected)
            knocks.clear()
            await hours.let_pass(2 * HOURS + 60)
            assert not link.bus.connected
            issuing.offset[0] = hours.at - time.time()
            await issuing.start()
            await hours.let_pass(2 * Patience().longest)
            await until(lambda: link.bus.connected)
            assert isinstance(await ask_for_tokens(link.bus, SERVER), Renewal)
    left = read_claims(Tokens.model_validate_json(state.tokens.read_bytes()).working).expires_at
    assert left is not None
    assert left - hours.at > HOURS - 2 * Patience().longest - 5
    assert not state.turned_away.exists()
    assert 2 * HOURS / 95 < len(knocks) < 2 * HOURS / 30 + 10  # once a minute, give or take a half
    said = [line for line in logs if line["event"] in {"token_not_renewed", "bus_rebuild"}]
    assert 1 <= len(said) < 6


async def test_a_revoked_server_does_not_come_back_and_says_so_once(
    issuing: Issuing, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Off for three hours and revoked meanwhile: it knocks seldom, quietly, and in vain."""
    issuing.offset[0] = -3 * HOURS
    state = await issuing.enrol()
    before = state.tokens.read_bytes()
    issuing.offset[0] = 0
    await issuing.registry.set_state(SERVER, ServerState.REVOKED, "stolen")
    await until(lambda: revocations_confirmed(issuing.platform.installation))
    attempts = 0

    async def counted(target: BusTarget, server_id: str, tokens: TokenStore) -> Renewal:
        nonlocal attempts
        attempts += 1
        return await by_the_door(target, server_id, tokens)

    monkeypatch.setattr(link_module, "by_the_door", counted)
    with capture_logs() as logs:
        async with kept(state) as link:
            await until(lambda: attempts >= 8)
            assert not link.bus.connected
    said = [line for line in logs if line["log_level"] in {"warning", "error"}]
    assert [line["event"] for line in said if line["event"] != "renewal_refused"] == ["turned_away"]
    known = read_turned_away(state.turned_away)
    assert known is not None
    assert "revoked" in known.why
    assert state.tokens.read_bytes() == before


async def test_who_was_revoked_by_mistake_comes_back_when_that_is_mended(issuing: Issuing) -> None:
    """Wrong claims on the bus put it out; right ones let it in again, without a person there."""
    state, other = await issuing.enrol(), await issuing.enrol("acme-2")
    nkey = read_claims(TokenStore(state).working().jwt).nkey
    neighbour = TokenStore(other)
    bystander = await Bus(other.target(), "acme-2", neighbour.working).open()
    now = int(time.time())
    with capture_logs() as logs:
        async with kept(state) as link:
            async with asyncio.timeout(_BOUND_SECONDS):
                await link.bus.client()
            await issuing.push({nkey: now + 60}, issued_at=now + 1)
            await until(state.turned_away.exists)
            assert not link.bus.connected
            assert bystander.connected  # nobody else noticed
            await issuing.push({}, issued_at=now + 2)
            await until(lambda: link.bus.connected and not state.turned_away.exists())
    events = [line["event"] for line in logs]
    assert (events.count("turned_away"), events.count("let_in_again")) == (1, 1)
    await bystander.close()


async def test_tokens_are_renewed_without_losing_a_message(issuing: Issuing) -> None:
    """Ten under load: what is sent arrives once, what comes is heard, questions are answered."""
    state = await issuing.enrol()
    store = TokenStore(state)
    bus = await Bus(state.target(), SERVER, store.working).open()
    there, here = list[int](), list[int]()
    done = asyncio.Event()

    async def arrived(message: Msg) -> None:
        there.append(int(message.data))

    async def heard(message: Msg) -> None:
        here.append(int(message.data))

    report = HealthReported.template.fill({"server_id": SERVER})
    nudge = f"byok.v1.config.{SERVER}"

    async def send(client_of: Bus, subject: str) -> int:
        sent = 0
        while not done.is_set():
            await (await client_of.client()).publish(subject, b"%d" % sent)
            sent += 1
            await asyncio.sleep(0)
        return sent

    async def ask() -> int:
        asked = 0
        while not done.is_set():
            await ask_for_tokens(bus, SERVER)
            asked += 1
            await asyncio.sleep(0.02)  # so that the issuer does not turn it away as a flood
        return asked

    async with almighty(issuing.platform) as core:
        await core.listen(report, arrived)
        await bus.listen(nudge, heard)
        async with asyncio.TaskGroup() as tasks:
            out = tasks.create_task(send(bus, report))
            into = tasks.create_task(send(core, nudge))
            asking = tasks.create_task(ask())
            for _ in range(10):
                store.replace(await ask_for_tokens(bus, SERVER))
                await bus.renew()
                await asyncio.sleep(0.05)
            done.set()
        await until(lambda: len(there) >= out.result() and len(set(here)) >= into.result())
        await bus.close()
    assert sorted(there) == list(range(out.result()))  # none lost, none twice
    assert set(here) == set(range(into.result()))
    assert asking.result() > 10


async def test_a_bus_that_comes_back_with_another_certificate_is_known(issuing: Issuing) -> None:
    """Killed, and back with a certificate of the same CA: the link needs nobody."""
    state, outage = await issuing.enrol(), Outage(issuing.platform)
    installation = issuing.platform.installation
    async with kept(state) as link:
        async with asyncio.timeout(_BOUND_SECONDS):
            await link.bus.client()
        await outage.begin(kill=True)
        await until(lambda: not link.bus.connected)
        ca = tls.Pair(
            installation.ca.read_bytes(), (installation.authority / "ca.key").read_bytes()
        )
        hosts = ("localhost", "127.0.0.1")
        pair = tls.make_server_certificate(ca, "another", hosts, now=datetime.now(UTC))
        (installation.nats / "tls" / "server.pem").write_bytes(pair.certificate)
        (installation.nats / "tls" / "server.key").write_bytes(pair.key)
        await outage.end()
        await until(lambda: link.bus.connected)
    assert not state.turned_away.exists()


async def test_a_revoked_server_does_not_get_in(issuing: Issuing) -> None:
    """Neither the door nor the issuer lets a revoked server in, and both say so."""
    state = await issuing.enrol()
    store = TokenStore(state)
    await by_the_door(state.target(), SERVER, store)
    await issuing.registry.set_state(SERVER, ServerState.REVOKED, "stolen")
    with pytest.raises((Refused, BusDenied), match="revoked"):
        await by_the_door(state.target(), SERVER, store)


async def test_foreign_tokens_never_replace_our_own(issuing: Issuing) -> None:
    """Tokens for another key would lock the server out; damage is said to be damage."""
    state, other = await issuing.enrol(), await issuing.enrol("acme-2")
    store = TokenStore(state)
    before = store.working()
    with pytest.raises(Refused, match="wrong_token"):
        store.replace(Tokens.model_validate_json(other.tokens.read_bytes()))
    assert TokenStore(state).working() == store.working() == before
    assert before.seed not in repr(before)
    state.nkey_seed.write_text("x")
    with pytest.raises(NotEnrolled):
        TokenStore(state)
