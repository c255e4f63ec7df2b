"""What both doctors say when something is wrong: one sentence, with what to do about it."""

import asyncio
import contextlib
import shutil
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass

import pytest

from bus_schemas.authorities import authority_id, read_authorities
from bus_schemas.envelope import wrap
from bus_schemas.events import HealthReported, PinsChanged
from bus_schemas.fields import at_utc
from bus_schemas.finding import Finding, Grade
from bus_schemas.flows import Role
from bus_schemas.streams import HEALTH, STREAMS
from bus_schemas.transport.fresh import new_id
from bus_schemas.transport.jetstream import api, store
from platform_handlers.authority.initialise import InitPlan, initialise
from platform_handlers.authority.nats_process import start_nats_server
from platform_handlers.authority.server_conf import BusAddress, jetstream_key_configuration
from platform_handlers.authority.store import check_store
from platform_handlers.authority.streams import make_streams
from platform_handlers.config.service import ConfigHandler
from platform_handlers.doctor import databases
from platform_handlers.doctor.databases import revocations_confirmed
from platform_handlers.doctor.examine import examine as examine_platform
from platform_handlers.fingerprint.handler import FingerprintHandler
from platform_handlers.health.handler import HealthHandler
from platform_handlers.provisioning.records import ServerState
from tests.expired import expire
from tests.integration.vps.conftest import Fleet
from tests.telling import Teller
from vps_runtime.doctor import examine as examine_server
from vps_runtime.enrolment.pins import Pins, write_pins
from vps_runtime.state import StateFolder

SERVER = "acme-1"
HOUR = 3600
NAMES = ", ".join(stream.name for stream in STREAMS)


def bad(findings: list[Finding]) -> list[str]:
    """Return what is bad, as people read it."""
    return [f"{f.check}: {f.detail}" for f in findings if f.grade is Grade.BAD]


@dataclass
class Case:
    """A platform with its handlers, and one server of it."""

    fleet: Fleet
    state: StateFolder
    off: float = 0.0
    """How far both machines' clocks are ahead, in seconds."""

    async def platform(self) -> list[str]:
        """Return what `byok doctor` finds bad."""
        running = self.fleet.platform
        target = running.server.target
        return bad(await examine_platform(running.installation, target, now=self.now))

    async def server(self) -> list[str]:
        """Return what `byok-vps doctor` finds bad."""
        return bad(await examine_server(self.state, now=self.now))

    def now(self) -> float:
        """Return the time that both machines believe in."""
        return time.time() + self.off


@pytest.fixture
async def case(fleet: Fleet) -> AsyncIterator[Case]:
    """A platform on which all is well, with the handlers that a server needs."""
    installation, target = fleet.platform.installation, fleet.platform.server.target
    state = await fleet.enrol(SERVER)
    handler = await ConfigHandler.open(installation, target, fleet.registry)
    running = asyncio.create_task(handler.run())
    await asyncio.wait_for(handler.reader.caught_up(), 20)
    yield Case(fleet, state)
    running.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await running
    await handler.close()


async def clock_ahead(case: Case) -> None:
    """Both machines believe that it is an hour later."""
    case.off = HOUR


async def clock_behind(case: Case) -> None:
    """Both machines believe that it is an hour earlier."""
    case.off = -HOUR


async def ca_expired(case: Case) -> None:
    """The CA's life has ended; certificates that it signed would be good for months."""
    case.state.ca.write_bytes(expire(case.fleet.platform.installation))


async def no_pin(case: Case) -> None:
    """Its console has removed the last owner key, and the platform was told."""
    write_pins(case.state.pins, Pins())
    told = PinsChanged(server_id=SERVER, incarnation=1, n=1, pinned=())
    await Teller(case.fleet.platform)(told)
    await folded(case, ())


async def folded(case: Case, pinned: tuple[str, ...]) -> None:
    """Wait until the platform knows that the server obeys *pinned*."""
    async with asyncio.timeout(20):
        while True:
            if databases.pins(case.fleet.platform.installation) == {SERVER: pinned}:
                return
            await asyncio.sleep(0.02)


async def revoked(case: Case) -> None:
    """Operators have turned it away, and the bus has heard."""
    await case.fleet.registry.set_state(SERVER, ServerState.REVOKED, "stolen")
    async with asyncio.timeout(20):
        while not revocations_confirmed(case.fleet.platform.installation):  # noqa: ASYNC110 (no bell)
            await asyncio.sleep(0.02)


async def another_ca(case: Case) -> None:
    """The server was left out of a change of the CA."""
    installation = case.fleet.platform.installation
    other = initialise(
        installation.root / "other", InitPlan(BusAddress("127.0.0.1", -1)), now=int(time.time())
    )
    case.state.ca.write_bytes(other.ca.read_bytes())


CLOCK = "set it: timedatectl set-ntp true"
CASES = [
    (
        clock_ahead,
        [f"clock: this clock is 1 h 0 min ahead of nats-server; {CLOCK}"],
        [f"clock: this clock is 1 h 0 min ahead of the platform; {CLOCK}"],
    ),
    (
        clock_behind,
        [f"clock: this clock is 1 h 0 min behind nats-server; {CLOCK}"],
        [f"clock: this clock is 1 h 0 min behind the platform; {CLOCK}"],
    ),
    (
        ca_expired,
        [
            (
                "ca: the CA {ca} has expired; every client refuses the bus; run `byok ca add`,"
                " then `byok ca use --cut-off`, and give servers and owners the new public/ca.pem"
                " by hand"
            )
        ],
        [
            (
                "ca: the CA of the platform has expired; ask the platform's operators for their"
                " new public/ca.pem and put it at {state}/ca.pem"
            )
        ],
    ),
    (
        no_pin,
        [
            (
                "pins: acme-1 obeys no owner key and takes no credential; on the server's console,"
                " type what `byok owner fingerprint` shows its owner: byok-vps trust FINGERPRINT"
            )
        ],
        [
            (
                "pins: no owner key is obeyed, so no credential is taken; type what its owner's"
                " `byok owner fingerprint` shows: byok-vps trust FINGERPRINT"
            )
        ],
    ),
    (
        revoked,
        [],
        [
            (
                "link: the platform no longer lets acme-1 in: it was revoked or enrolled anew; ask"
                " the platform's operators what `byok server show acme-1` says"
            )
        ],
    ),
    (
        another_ca,
        [],
        [
            (
                "link: the platform shows a certificate of a CA that is not trusted here; if its"
                " operators confirm that they changed it, put their public/ca.pem at"
                " {state}/ca.pem"
            )
        ],
    ),
]


@pytest.mark.parametrize(
    ("cause", "on_platform", "on_server"), CASES, ids=[cause.__name__ for cause, *_ in CASES]
)
async def test_each_cause_gives_one_sentence(
    case: Case,
    cause: Callable[[Case], Awaitable[None]],
    on_platform: list[str],
    on_server: list[str],
) -> None:
    """Nothing is bad before; after, each side that it concerns has one sentence for it."""
    assert (await case.platform(), await case.server()) == ([], [])
    await cause(case)
    [ca] = read_authorities(case.fleet.platform.installation.ca.read_bytes())
    words = {"ca": authority_id(ca), "state": str(case.state.root)}
    assert await case.platform() == [sentence.format(**words) for sentence in on_platform]
    assert await case.server() == [sentence.format(**words) for sentence in on_server]


async def test_readers_that_have_read_are_well(case: Case) -> None:
    """Each is looked up in its own database, wherever that keeps its place."""
    running = case.fleet.platform
    folder = running.installation.platform
    fingerprint = await FingerprintHandler.open(folder, await running.bus(Role.FINGERPRINT))
    health = await HealthHandler.open(folder, await running.bus(Role.HEALTH))
    tasks = [asyncio.create_task(fingerprint.run()), asyncio.create_task(health.run())]
    async with asyncio.timeout(20):
        while None in (await fingerprint.position(), await health.position()):  # noqa: ASYNC110 (no bell)
            await asyncio.sleep(0.02)
    found = await examine_platform(running.installation, running.server.target)
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
    assert [(f.grade, f.detail) for f in found if f.check == "readers"] == [
        (Grade.OK, f"{name} is up to date")
        for name in ("config", "fingerprint", "health", "evaluator")
    ]


async def test_a_wrong_jetstream_key_gives_one_sentence(case: Case) -> None:
    """nats-server starts as if all were well; with the right key every message is there again."""
    running = case.fleet.platform
    installation, target = running.installation, running.server.target
    configuration = installation.nats / "nats-server.conf"
    port = target.url.rpartition(":")[2]
    configuration.write_text(configuration.read_text().replace(':-1"', f':{port}"'))
    key = installation.nats / "jetstream-key.conf"
    right = key.read_text()
    await no_pin(case)
    write_pins(case.state.pins, Pins(pinned=(case.fleet.fingerprint,)))
    pinned = PinsChanged(server_id=SERVER, incarnation=1, n=2, pinned=(case.fleet.fingerprint,))
    await Teller(running)(pinned)
    await folded(case, (case.fleet.fingerprint,))
    before = len(await case.fleet.told(SERVER))
    for text in (jetstream_key_configuration("another key"), right):
        running.server.stop()
        key.write_text(text)
        running.server = await start_nats_server(installation, log=installation.root / "log")
        async with asyncio.timeout(30):
            found = await case.platform()
            while any("does not answer" in sentence for sentence in found):
                found = await case.platform()  # the handlers are on their way back
        if text != right:
            assert found == [
                (
                    f"streams: nats-server cannot open {NAMES}: {key} is not the JetStream key they"
                    " were written with; stop nats-server, put the right key back from its back-up,"
                    " start it"
                )
            ]
    assert found == []
    assert len(await case.fleet.told(SERVER)) == before == 2


async def test_a_ledger_that_began_anew_is_told_from_its_readers(case: Case) -> None:
    """Somebody lost the store and made empty streams: no reader may go on as if nothing were."""
    running = case.fleet.platform
    installation = running.installation
    await no_pin(case)
    running.server.stop()
    shutil.rmtree(installation.nats / "store" / "jetstream")
    running.server = await start_nats_server(installation, log=installation.root / "log")
    setup = await running.bus(Role.SETUP)
    await check_store(installation, setup)
    await make_streams(setup)
    stopped = [line for line in await case.platform() if line.startswith("readers: ")]
    assert [line.partition(" is stopped at ledger sequence")[0] for line in stopped] == [
        "readers: config",
        "readers: evaluator",
    ]
    for line in stopped:
        assert "(ledger_replaced): rebuild the " in line


async def test_a_bus_that_is_away_gives_one_sentence(case: Case) -> None:
    """What hangs on it is left out."""
    case.fleet.platform.server.stop()
    [line] = await case.platform()
    assert line.endswith(" (it says why if it does not stay), or open the way to it")
    [line] = await case.server()
    assert line.endswith("; is the platform up, and this machine's way to it open?")


async def test_foreign_credentials_are_named_with_their_role(case: Case) -> None:
    """roles/ came from another back-up than nats/."""
    installation = case.fleet.platform.installation
    plan = InitPlan(BusAddress("127.0.0.1", -1))
    other = initialise(installation.root / "other", plan, now=int(time.time()))
    shutil.copy(other.credentials(Role.HEALTH), installation.credentials(Role.HEALTH))
    [line] = await case.platform()
    assert line.startswith("bus: role health cannot sign in: tls://")
    assert line.endswith("; restore roles/ and nats/ from the same back-up")


async def test_a_servers_clock_and_a_changed_stream_are_seen_from_the_platform(case: Case) -> None:
    """The one by the times in its reports, the other by comparing it with what is declared."""
    running = case.fleet.platform
    report = HealthReported(
        server_id=SERVER,
        incarnation=1,
        n=1,
        observed_generation=0,
        runtime_version="1",
        outbox_depth=0,
        slots=(),
    )
    late = wrap(report, id_=new_id(), at=at_utc(time.time() - HOUR))
    await store(await running.bus(Role.SERVER, SERVER), late)
    setup = await running.bus(Role.SETUP)
    changed = {**HEALTH.configuration(), "max_age": 600_000_000_000, "max_msgs_per_subject": 5}
    await api(setup, f"STREAM.UPDATE.{HEALTH.name}", changed)
    found = await examine_platform(running.installation, running.server.target)
    assert bad(found) == [
        (
            "streams: BYOK_HEALTH differs in max_age, max_msgs_per_subject; run `byok nats run`,"
            " which mends it"
        )
    ]
    assert [f.detail for f in found if (f.check, f.grade) == ("clock", Grade.WARN)] == [
        "the clock of acme-1 is off by up to 1 h 0 min; there: timedatectl set-ntp true"
    ]
