"""The clock that handlers share, and a replay compared with what was published."""

import asyncio
from contextlib import suppress
from pathlib import Path

import pytest

from bus_schemas.event import Event
from bus_schemas.events import FingerprintObserved, FingerprintRetired, ServerProvisioned
from bus_schemas.fields import Basis, Strength
from bus_schemas.flows import Role
from bus_schemas.streams import BANNERS, LEDGER
from bus_schemas.transport.fresh import fresh
from bus_schemas.transport.jetstream import Conflict, read_batch, store, store_raw, stream_state
from platform_handlers.fingerprint.handler import FingerprintHandler
from platform_handlers.process.clock import run_clock, tick
from platform_handlers.replay.fold import Comparison, compare, replayed_banners
from platform_handlers.replay.plan import ReplayPlan, plan_replay
from tests.conftest import Platform
from tests.facts import NKEY, tag
from tests.following import messages_once


async def test_each_minute_is_told_once_whoever_tells_it(platform: Platform) -> None:
    """Handlers race for it; a minute that is not above the last is not told."""
    one, other = await platform.bus(Role.FINGERPRINT), await platform.bus(Role.HEALTH)

    async def attempt(minute: int) -> list[bool]:
        tries = (tick(bus, minute) for bus in (one, other, one, other))
        told = await asyncio.gather(*tries, return_exceptions=True)
        assert all(isinstance(result, bool | Conflict) for result in told)
        return [result for result in told if result is True]

    for minute, times in ((100, 1), (101, 1), (101, 0), (90, 0), (102, 1)):
        assert len(await attempt(minute)) == times
    messages = await read_batch(one, LEDGER.name, 1, 50)
    assert [m.subject for m in messages] == ["byok.v1.clock"] * 3


async def test_an_unreadable_minute_does_not_stop_the_clock(platform: Platform) -> None:
    """Nobody could have written it but us; time goes on from here."""
    bus = await platform.bus(Role.FINGERPRINT)
    await store_raw(bus, "byok.v1.clock", "rubbish", b"{")
    assert await tick(bus, 7)
    assert not await tick(bus, 7)


async def test_the_clock_ticks_at_once_and_goes_on(platform: Platform) -> None:
    """A handler that starts tells the minute it starts in."""
    bus = await platform.bus(Role.FINGERPRINT)
    running = asyncio.create_task(run_clock(bus))
    await messages_once(bus, LEDGER, bool)
    assert not running.done()
    running.cancel()
    with suppress(asyncio.CancelledError):
        await running


def provisioned(server_id: str) -> Event:
    """A server of acme has enrolled."""
    return ServerProvisioned(
        server_id=server_id, owner_id="acme", nkey=NKEY, identity_key=bytes(32)
    )


def observed(server_id: str, n: int, revision: int) -> Event:
    """A server holds the key of this revision."""
    return FingerprintObserved(
        server_id=server_id,
        incarnation=1,
        n=n,
        slot_id="main",
        revision=revision,
        provider="anthropic",
        basis=Basis.API_KEY,
        strength=Strength.SECRET,
        epoch="e1",
        tag=tag(f"k{revision}"),
    )


@pytest.fixture
async def told(platform: Platform, tmp_path: Path) -> Platform:
    """A handler has folded a small story, and all of it is published."""
    issuer = await platform.bus(Role.ISSUER)
    for server_id in ("acme-1", "acme-2"):
        await store(issuer, fresh(provisioned(server_id)))
        server = await platform.bus(Role.SERVER, server_id)
        for n in (1, 2):
            await store(server, fresh(observed(server_id, n, n)))
    gone = FingerprintRetired(server_id="acme-2", incarnation=1, n=3, slot_id="main", revision=2)
    await store(await platform.bus(Role.SERVER, "acme-2"), fresh(gone))
    handler = await FingerprintHandler.open(tmp_path, await platform.bus(Role.FINGERPRINT))
    running, ops = asyncio.create_task(handler.run()), await platform.bus(Role.OPS)
    await messages_once(ops, BANNERS, lambda found: len(found) >= 4)
    running.cancel()
    with suppress(asyncio.CancelledError):
        await running
    return platform


async def compared(platform: Platform, plan: ReplayPlan) -> Comparison:
    """Compare a replay with everything published."""
    bus = await platform.bus(Role.OPS)
    return await compare(bus, plan, (await stream_state(bus, BANNERS.name)).last)


async def test_a_replay_of_everything_agrees_byte_for_byte(told: Platform) -> None:
    """And says which events it compared."""
    bus = await told.bus(Role.OPS)
    plan = plan_replay(await stream_state(bus, LEDGER.name), None, None)
    result = await compared(told, plan)
    assert (result.same, result.agrees) == (4, True)
    half = await compared(told, ReplayPlan(1, 6))
    assert (half.same, half.agrees) == (2, True)


async def test_a_replay_finds_what_it_cannot_explain(told: Platform) -> None:
    """Something on the stream that no fact caused, and something that is missing there."""
    writer, bus = await told.bus(Role.FINGERPRINT), await told.bus(Role.OPS)
    await store_raw(writer, "byok.v1.banner.acme.x_y_z", "rubbish", b"{")
    before = await compared(told, plan_replay(await stream_state(bus, LEDGER.name), None, None))
    assert (before.agrees, before.unexplained) == (False, ["unreadable message 5"])
    await store(await told.bus(Role.SERVER, "acme-2"), fresh(observed("acme-2", 4, 2)))
    plan = plan_replay(await stream_state(bus, LEDGER.name), None, None)
    after = await compared(told, plan)
    assert len(after.unpublished) == 2
    assert [event.id async for event in replayed_banners(bus, plan)][-2:] == after.unpublished
