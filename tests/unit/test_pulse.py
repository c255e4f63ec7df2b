"""The watchdog's ping, with a clock of our own and a service manager that counts."""

import asyncio
from dataclasses import dataclass, field

import pytest
from structlog.testing import capture_logs

from bus_schemas.transport.pulse import Pulse, tell_ready, tell_status, watched
from bus_schemas.transport.service_manager import ServiceManager


@dataclass
class Told(ServiceManager):
    """A service manager that keeps what it is told."""

    watchdog_seconds: float | None = 40.0
    heard: list[str] = field(default_factory=list)

    def ping(self) -> None:
        """Count a ping."""
        self.heard.append("ping")

    def ready(self, status: str) -> None:
        """Keep a status."""
        self.heard.append(f"ready {status}")

    def status(self, status: str) -> None:
        """Keep a status."""
        self.heard.append(status)


@dataclass
class Clock:
    """Seconds that pass when the test says so."""

    now: float = 0.0

    def __call__(self) -> float:
        """Return the time."""
        return self.now


@dataclass
class Line:
    """A connection that is up or down."""

    connected: bool = True


@dataclass
class Loop:
    """Work that takes one step whenever it is allowed one."""

    may: asyncio.Semaphore = field(default_factory=lambda: asyncio.Semaphore(0))
    stepped: asyncio.Event = field(default_factory=asyncio.Event)

    async def run(self) -> None:
        """Step for ever."""
        while True:
            await self.may.acquire()
            self.stepped.set()

    async def step(self) -> None:
        """Let it take a step and wait until it has."""
        self.stepped.clear()
        self.may.release()
        await self.stepped.wait()


@pytest.fixture
def told() -> Told:
    """A service manager that wants a ping every 40 s, so one is sent every 10 s at most."""
    return Told()


@pytest.fixture
def clock() -> Clock:
    """A clock at zero."""
    return Clock()


@pytest.fixture
def pulse(told: Told, clock: Clock) -> Pulse:
    """A pulse that tells *told* and reads *clock*."""
    return Pulse(told, clock)


async def test_work_that_goes_on_pings_a_few_times_a_period(
    pulse: Pulse, told: Told, clock: Clock
) -> None:
    """A step sends the ping, but not more than four in a watchdog's period."""
    loop = Loop()
    with pulse.watching():
        task = asyncio.create_task(watched("beat", loop.run(), within=60))
    for clock.now in range(0, 41, 2):
        await loop.step()
    task.cancel()
    assert len(told.heard) == 5  # at 0, 10, 20, 30 and 40 s


async def test_the_ping_stops_when_one_task_is_stuck(
    pulse: Pulse, told: Told, clock: Clock
) -> None:
    """One task that takes no step is enough, however busy the others are; a step heals it."""
    busy, stuck = Loop(), Loop()
    with pulse.watching():
        tasks = [
            asyncio.create_task(watched("busy", busy.run(), within=60)),
            asyncio.create_task(watched("stuck", stuck.run(), within=60)),
        ]
    await busy.step()
    await stuck.step()
    for clock.now in range(0, 200, 5):
        await busy.step()
    assert pulse.stuck() == ("stuck",)
    assert len(told.heard) == 7  # the last one at 60 s
    await stuck.step()
    assert pulse.stuck() == ()
    assert len(told.heard) == 8
    for task in tasks:
        task.cancel()


async def test_without_any_step_there_is_no_ping(pulse: Pulse, told: Told, clock: Clock) -> None:
    """Nothing but work pings: a process whose work stands still is silent by itself."""
    loop = Loop()
    with pulse.watching():
        task = asyncio.create_task(watched("beat", loop.run(), within=60))
    await loop.step()
    told.heard.clear()
    clock.now = 1000.0
    for _ in range(100):
        await asyncio.sleep(0)
    assert told.heard == []
    task.cancel()


async def test_who_waits_for_the_bus_is_not_stuck(pulse: Pulse, clock: Clock) -> None:
    """While the bus is away its users are excused, and their time begins anew when it is back."""
    line, beat, user = Line(), Loop(), Loop()
    with pulse.watching():
        tasks = [
            asyncio.create_task(watched("beat", beat.run(), within=60)),
            asyncio.create_task(watched("user", user.run(), within=60, needs=line)),
        ]
    await beat.step()
    await user.step()
    line.connected = False
    for clock.now in range(0, 1001, 10):
        await beat.step()
        assert pulse.stuck() == ()
    line.connected = True
    clock.now += 59
    await beat.step()
    assert pulse.stuck() == ()
    clock.now += 2
    await beat.step()
    assert pulse.stuck() == ("user",)
    for task in tasks:
        task.cancel()


async def test_a_task_that_may_end_is_not_missed(pulse: Pulse, clock: Clock) -> None:
    """Who is done, or failed, owes no more steps; its result and its error come through."""

    async def seven() -> int:
        await asyncio.sleep(0)
        return 7

    async def bad() -> None:
        await asyncio.sleep(0)
        raise KeyError("gone")

    with pulse.watching():
        assert await watched("seven", seven(), within=1, ends=True) == 7
        with pytest.raises(KeyError, match="gone"):
            await watched("bad", bad(), within=1)
    clock.now = 100.0
    assert pulse.stuck() == ()


async def test_work_for_ever_that_returns_is_missed(pulse: Pulse, told: Told, clock: Clock) -> None:
    """A loop that has quietly ended does its work no more than one that is stuck."""
    busy = Loop()

    async def over() -> None:
        await asyncio.sleep(0)

    with pulse.watching():
        task = asyncio.create_task(watched("busy", busy.run(), within=60))
        await watched("over", over(), within=60)
    told.heard.clear()
    clock.now = 20.0
    with capture_logs() as logs:
        await busy.step()
    assert pulse.stuck() == ("over",)
    assert told.heard == []
    assert [line["event"] for line in logs] == ["work_stands_still"]
    task.cancel()
    await asyncio.wait({task})
    assert pulse.stuck() == ("over",)  # who is cancelled is not missed


async def test_cancellation_and_timeouts_reach_the_work(pulse: Pulse) -> None:
    """Being watched changes nothing for the work: it is cancelled, times out and cleans up."""
    seen: list[str] = []
    timed_out = asyncio.Event()

    async def work() -> None:
        try:
            async with asyncio.timeout(0.001):
                await asyncio.Event().wait()
        except TimeoutError:
            seen.append("timeout")
            timed_out.set()
        try:
            await asyncio.Event().wait()
        finally:
            seen.append("cleaned")

    with pulse.watching():
        task = asyncio.create_task(watched("work", work(), within=1))
    await timed_out.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert seen == ["timeout", "cleaned"]


async def test_outside_a_pulse_work_is_just_work() -> None:
    """Handlers run in tests and programs that no service manager minds."""
    loop = Loop()
    work = loop.run()
    assert watched("beat", work, within=1) is work
    work.close()
    tell_ready("nobody hears")
    tell_status("nobody hears")


async def test_words_go_to_the_service_manager(pulse: Pulse, told: Told) -> None:
    """What is told inside a pulse, in tasks too, is sent on."""

    async def speak() -> None:
        tell_status("starting")
        tell_ready("3 slots")

    with pulse.watching():
        task = asyncio.create_task(speak())
    await task
    assert told.heard == ["starting", "ready 3 slots"]


async def test_no_watchdog_no_ping(clock: Clock) -> None:
    """A unit without WatchdogSec= hears nothing of our steps."""
    told, loop = Told(watchdog_seconds=None), Loop()
    with Pulse(told, clock).watching():
        task = asyncio.create_task(watched("beat", loop.run(), within=1))
    await loop.step()
    assert told.heard == []
    task.cancel()


async def test_work_that_is_never_awaited_to_its_end_is_closed(pulse: Pulse) -> None:
    """A coroutine that is dropped half-way still runs its `finally`."""
    seen: list[str] = []

    async def work() -> None:
        try:
            await asyncio.sleep(0)
        finally:
            seen.append("closed")

    with pulse.watching():
        dropped = watched("work", work(), within=1)
        dropped.send(None)
        dropped.close()
    assert seen == ["closed"]
    assert pulse.stuck() == ()
