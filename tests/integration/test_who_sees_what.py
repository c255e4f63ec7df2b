"""Two owners on one bus: what a subscriber and a server can reach, tried for real."""

import asyncio
import json

import pytest
from nats.aio.msg import Msg

from bus_schemas.codec import decode
from bus_schemas.events import BannerEvent
from bus_schemas.flows import Role
from bus_schemas.streams import BANNERS, CONFIG, HEALTH, LEDGER, PARKED
from bus_schemas.transport.connection import Bus
from bus_schemas.transport.fresh import new_id
from bus_schemas.transport.jetstream import api, read_last, store, store_raw
from bus_schemas.transport.target import BusUnavailable
from platform_handlers.banner.lifecycle import announcement
from platform_handlers.fingerprint.projection import Projection
from tests.conftest import Platform
from tests.facts import Ledger, fold

WAIT = 0.3
"""Seconds after which no answer is a refusal; on loopback an answer takes one millisecond."""


@pytest.fixture
async def shared(platform: Platform) -> Platform:
    """Banners of two owners are published, and each owner has a durable."""
    ledger = Ledger()
    for server_id in ("acme-1", "acme-2", "globex-1", "globex-2"):
        ledger.provisioned(server_id, server_id.split("-")[0])
        ledger.observed(server_id, "k1")
    writer, setup = await platform.bus(Role.FINGERPRINT), await platform.bus(Role.SETUP)
    for banner, cause in fold(Projection(), *ledger.facts):
        await store(writer, announcement(banner, cause))
    for owner_id in ("acme", "globex"):
        config = {
            "durable_name": f"{owner_id}-sub",
            "ack_policy": "explicit",
            "filter_subject": f"byok.v1.banner.{owner_id}.*",
        }
        verb = f"CONSUMER.CREATE.{BANNERS.name}.{owner_id}-sub"
        await api(setup, verb, {"stream_name": BANNERS.name, "config": config, "action": "create"})
    return platform


async def subscriber(platform: Platform, owner_id: str) -> Bus:
    """Connect as the subscriber of one owner."""
    return await platform.bus(Role.SUBSCRIBER, f"{owner_id}-sub", tags=(f"owner:{owner_id}",))


async def pulled(bus: Bus, durable: str) -> list[BannerEvent]:
    """Pull everything a durable holds and acknowledge it."""
    client, inbox = await bus.client(), asyncio.Queue[Msg]()

    async def collect(message: Msg) -> None:
        inbox.put_nowait(message)

    reply = client.new_inbox()
    await client.subscribe(reply, cb=collect)
    wanted = json.dumps({"batch": 50, "no_wait": True}).encode()
    await client.publish(f"{bus.api}.CONSUMER.MSG.NEXT.{BANNERS.name}.{durable}", wanted, reply)
    events: list[BannerEvent] = []
    async with asyncio.timeout(5):
        while not (message := await inbox.get()).headers or "Status" not in message.headers:
            event = decode(message.data, message.subject).data
            assert isinstance(event, BannerEvent)
            events.append(event)
            await bus.request(message.reply, b"+ACK", wait=WAIT)
    return events


@pytest.mark.parametrize(("mine", "theirs"), [("acme", "globex"), ("globex", "acme")])
async def test_a_subscriber_sees_exactly_its_own_owners_banners(
    shared: Platform, mine: str, theirs: str
) -> None:
    """Every one of them, once, and nothing that names the other owner's servers."""
    bus = await subscriber(shared, mine)
    events = await pulled(bus, f"{mine}-sub")
    assert {event.owner_id for event in events} == {mine}
    assert {event.server_id for event in events} == {f"{mine}-1", f"{mine}-2"}
    assert not any(theirs in event.model_dump_json() for event in events)
    newest = await read_last(bus, BANNERS.name, events[-1].subject)
    assert newest is not None
    assert decode(newest.data, newest.subject).data == events[-1]
    assert await pulled(bus, f"{mine}-sub") == []


async def answered(bus: Bus, *subjects: str) -> list[str]:
    """Ask on all *subjects* at once and return those on which somebody answered."""
    asking = (bus.request(subject, b'{"seq":1}', wait=WAIT) for subject in subjects)
    answers = await asyncio.gather(*asking, return_exceptions=True)
    both = zip(subjects, answers, strict=True)
    return [subject for subject, answer in both if not isinstance(answer, BusUnavailable)]


async def test_a_subscriber_reaches_nothing_of_another_owner(shared: Platform) -> None:
    """Neither their durable nor their banners, and no stream as a whole."""
    bus = await subscriber(shared, "acme")
    next_of, info_of = "CONSUMER.MSG.NEXT", "CONSUMER.INFO"
    banner = "byok.v1.banner.globex.globex-1_main_api-key-reuse"
    verbs = (
        f"{next_of}.{BANNERS.name}.globex-sub",
        f"{info_of}.{BANNERS.name}.globex-sub",
        f"DIRECT.GET.{BANNERS.name}.{banner}",
        f"DIRECT.GET.{BANNERS.name}",
        f"STREAM.MSG.GET.{BANNERS.name}",
        f"STREAM.INFO.{BANNERS.name}",
        f"CONSUMER.CREATE.{BANNERS.name}.mine",
        f"DIRECT.GET.{LEDGER.name}",
    )
    assert await answered(bus, *(f"{bus.api}.{verb}" for verb in verbs)) == []
    assert await answered(bus, *(f"$JS.API.{verb}" for verb in verbs)) == []


async def test_a_server_reads_its_own_document_only(shared: Platform) -> None:
    """Not its neighbour's, not even one of the same owner's, and no stream as a whole."""
    config = await shared.bus(Role.CONFIG)
    for server_id in ("acme-1", "acme-2"):
        await store_raw(config, f"byok.v1.config.{server_id}", new_id(), b"{}")
        await store_raw(config, f"byok.v1.sealed.{server_id}.main", new_id(), b"{}")
    bus = await shared.bus(Role.SERVER, "acme-1")
    assert await read_last(bus, CONFIG.name, "byok.v1.config.acme-1")
    assert await read_last(bus, CONFIG.name, "byok.v1.sealed.acme-1.main")
    verbs = (
        f"DIRECT.GET.{CONFIG.name}.byok.v1.config.acme-2",
        f"DIRECT.GET.{CONFIG.name}.byok.v1.sealed.acme-2.main",
        *(f"DIRECT.GET.{stream.name}" for stream in (CONFIG, LEDGER, BANNERS, HEALTH, PARKED)),
        f"STREAM.INFO.{CONFIG.name}",
    )
    assert await answered(bus, *(f"{bus.api}.{verb}" for verb in verbs)) == []


async def test_a_server_speaks_for_itself_only(shared: Platform) -> None:
    """Nothing of a neighbour's, and nothing of the platform's, is stored for it."""
    bus = await shared.bus(Role.SERVER, "acme-1")
    subjects = (
        "byok.v1.fingerprint.acme-2",
        "byok.v1.reported.globex-1",
        "byok.v1.health.globex-1",
        "byok.v1.provisioning.acme-1",
        "byok.v1.clock",
        "byok.v1.dismissal.acme",
        "byok.v1.banner.acme.acme-1_main_api-key-reuse",
        "byok.v1.config.acme-1",
    )
    assert await answered(bus, *subjects) == []
    assert await answered(bus, "byok.v1.fingerprint.acme-1") == ["byok.v1.fingerprint.acme-1"]


async def test_nobody_hears_what_is_not_theirs(shared: Platform) -> None:
    """Subscribing to everything brings nothing, while the rightful reader hears that it is."""
    heard: dict[str, list[str]] = {"server": [], "subscriber": [], "rightful": []}
    arrived = asyncio.Event()
    server = await shared.bus(Role.SERVER, "acme-1")
    listeners = {
        "server": server,
        "subscriber": await subscriber(shared, "acme"),
        "rightful": await shared.bus(Role.DASHBOARD),
    }
    for name, bus in listeners.items():

        async def hear(message: Msg, name: str = name) -> None:
            heard[name].append(f"{message.subject} {message.data!r}")
            if name == "rightful":
                arrived.set()

        everything = [">", "byok.>", "byok.v1.config.*", "byok.v1.banner.*.*", "_INBOX.>"]
        everything += ["byok.v1.stored.>", *BANNERS.nudges]
        for subject in everything if name != "rightful" else BANNERS.nudges:
            await bus.listen(subject, hear)
        await (await bus.client()).flush()
        await (await bus.client()).flush()
    writer, config = await shared.bus(Role.FINGERPRINT), await shared.bus(Role.CONFIG)
    await store_raw(config, "byok.v1.config.globex-1", new_id(), b"{}")
    await store_raw(config, "byok.v1.sealed.globex-1.main", new_id(), b"{}")
    await store_raw(writer, "byok.v1.banner.globex.x_y_z", new_id(), b"{}")
    async with asyncio.timeout(5):
        await arrived.wait()
    await (await server.client()).flush()
    await (await listeners["subscriber"].client()).flush()
    assert heard == {
        "server": [],
        "subscriber": [],
        "rightful": ["byok.v1.stored.byok-banners.banner.globex.x_y_z b''"],
    }
