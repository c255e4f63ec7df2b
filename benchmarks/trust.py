"""A cold start with its unlock, and enrolments a minute, against the platform's own processes.

nats-server, evaluator and platform run as programs of their own, as they would; the servers are
this process. Baselines on the same bus: the round trips alone, and the connections alone.
"""

import asyncio
import statistics
import tempfile
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from itertools import count
from pathlib import Path

from benchmarks.figure import Figure
from bus_schemas.join_token import JoinToken
from bus_schemas.transport.connection import Bus
from bus_schemas.transport.target import BusTarget
from platform_handlers.demo.stage import Stage
from platform_handlers.demo.story import Story
from platform_handlers.provisioning.join_token import issue_join_token
from platform_handlers.provisioning.registry import FILE_NAME, Registry
from vps_runtime.connection.tokens import TokenStore
from vps_runtime.enrolment.join import join
from vps_runtime.state import Identity, StateFolder
from vps_runtime.unlock.boot import unlock
from vps_runtime.unlock.evaluator import Evaluator

_STARTS = 25
"""The evaluator serves a server 30 an hour."""
_SERVERS = 200
_AT_ONCE = 8
_FINGERPRINT = "A" * 20
_ROUND_TRIPS = 3
"""Requests of one start; the baseline sends as many small ones to the same process."""


@dataclass
class World:
    """A running platform and its registry."""

    folder: Path
    story: Story
    registry: Registry

    @property
    def target(self) -> BusTarget:
        """Where the bus is."""
        installation = self.story.installation
        return BusTarget(installation.bus_url.read_text().strip(), installation.ca)

    async def token(self, server_id: str) -> JoinToken:
        """Issue *server_id*."""
        ids = ("bench", server_id)
        return await issue_join_token(self.story.installation, self.registry, self.target.url, ids)


@asynccontextmanager
async def world() -> AsyncIterator[World]:
    """Start everything."""
    with tempfile.TemporaryDirectory(prefix="byok-bench-") as name:
        story = Story(Stage(Path(name)), lambda _text: None)
        try:
            await story.open_platform()
            async with await Registry.open(story.installation.platform / FILE_NAME) as registry:
                await registry.add_owner("bench")
                yield World(Path(name), story, registry)
        finally:
            await story.close()


async def measure() -> list[Figure]:
    """Return both figures."""
    async with world() as running:
        return [await _cold_starts(running), await _enrolments(running)]


async def _cold_starts(running: World) -> Figure:
    state = StateFolder(running.folder / "cold")
    identity = await join(state, await running.token("cold"), _FINGERPRINT)
    tokens = TokenStore(state)
    bus = await Bus(state.target(), identity.server_id, tokens.working).open()
    try:
        evaluator = Evaluator(bus, identity, state.read_evaluator())
        starts = [await _seconds(lambda: unlock(state, "cold", evaluator)) for _ in range(_STARTS)]
        trips = [await _seconds(lambda: _round_trips(evaluator)) for _ in range(_STARTS)]
    finally:
        await bus.close()
    p50, p95 = statistics.median(starts), sorted(starts)[int(0.95 * len(starts))]
    return Figure(
        "cold start with unlock, beyond connect, p50",
        round(p50 * 1000, 1),
        "ms",
        50.0,
        "lower",
        f"p95 {p95 * 1000:.1f} ms; {_ROUND_TRIPS} signed and sealed requests alone: "
        f"{statistics.median(trips) * 1000:.1f} ms",
    )


async def _round_trips(evaluator: Evaluator) -> None:
    for _ in range(_ROUND_TRIPS):
        await evaluator.challenge()


async def _enrolments(running: World) -> Figure:
    names = (f"bench-{number}" for number in count())
    joined = await _rate(lambda: _enrol(running, next(names)))
    connected = await _rate(lambda: _connect(running))
    return Figure(
        "enrolments, each with its own token, keys and connection",
        round(joined * 60),
        "a minute",
        1000,
        "higher",
        f"TLS connections to the bus alone: {connected * 60:,.0f} a minute",
    )


async def _enrol(running: World, server_id: str) -> Identity:
    token = await running.token(server_id)
    return await join(StateFolder(running.folder / "servers" / server_id), token, _FINGERPRINT)


async def _connect(running: World) -> None:
    state = StateFolder(running.folder / "cold")
    bus = await Bus(running.target, "cold", TokenStore(state).working).open()
    await bus.close()


async def _rate(work: Callable[[], Awaitable[object]]) -> float:
    """Return how many a second, several at once."""
    left = iter(range(_SERVERS))

    async def hand() -> None:
        for _ in left:
            await work()

    seconds = await _seconds(lambda: asyncio.gather(*(hand() for _ in range(_AT_ONCE))))
    return _SERVERS / seconds


async def _seconds(work: Callable[[], Awaitable[object]]) -> float:
    began = time.perf_counter()
    await work()
    return time.perf_counter() - began
