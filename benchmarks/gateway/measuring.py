"""One way at a time, measured by a client in a process of its own."""

import asyncio
import contextlib
import json
import sys
from collections.abc import AsyncIterator, Mapping
from dataclasses import asdict, dataclass
from typing import Any, Final

from benchmarks.gateway.load import Job, Rate, Streamed
from benchmarks.gateway.processes import cpu_seconds, proportional
from benchmarks.gateway.proxies import Way

MANY: Final = 8
SECONDS: Final = 2.0
STREAMS: Final = 6
_WARM_SECONDS: Final = 0.5


@dataclass(frozen=True)
class Turn:
    """What one way did in one round."""

    one: Rate
    many: Rate
    stream: Streamed
    per_cpu: float
    """Requests of *many* a second of CPU, which its processes used meanwhile."""
    memory: float
    """MB (PSS) right after *many*."""


@dataclass(frozen=True)
class Client:
    """The client's process."""

    process: asyncio.subprocess.Process

    async def turn(self, way: Way) -> Turn:
        """Give *way* one turn: first warm, then with one connection, with many, with streams."""
        await self._rate(way, MANY, _WARM_SECONDS)
        one = await self._rate(way, 1, SECONDS)
        before = cpu_seconds(way.pid) if way.pid else 0.0
        many = await self._rate(way, MANY, SECONDS)
        used = cpu_seconds(way.pid) - before if way.pid else 0.0
        memory = proportional(way.pid) if way.pid else 0.0
        stream = Streamed(**await self._do(way, {"streams": STREAMS}))
        return Turn(one, many, stream, many.requests / used if used else 0.0, memory)

    async def _rate(self, way: Way, clients: int, seconds: float) -> Rate:
        return Rate(**await self._do(way, {"clients": clients, "seconds": seconds}))

    async def _do(self, way: Way, options: Mapping[str, Any]) -> dict[str, Any]:
        assert self.process.stdin
        assert self.process.stdout
        job = Job(way.port, way.path, way.token, **options)
        self.process.stdin.write(f"{json.dumps(asdict(job))}\n".encode())
        line = await self.process.stdout.readline()
        if not line:
            raise RuntimeError(f"{way.name} did not answer; the client's words are above")
        result: dict[str, Any] = json.loads(line)
        return result


@contextlib.asynccontextmanager
async def provider() -> AsyncIterator[int]:
    """Start the provider; give its port."""
    async with _module("provider") as process:
        assert process.stdout
        yield int(await process.stdout.readline())


@contextlib.asynccontextmanager
async def client() -> AsyncIterator[Client]:
    """Start the client."""
    async with _module("load") as process:
        yield Client(process)


@contextlib.asynccontextmanager
async def _module(name: str) -> AsyncIterator[asyncio.subprocess.Process]:
    pipe = asyncio.subprocess.PIPE
    command = (sys.executable, "-m", f"benchmarks.gateway.{name}")
    process = await asyncio.create_subprocess_exec(*command, stdin=pipe, stdout=pipe)
    try:
        yield process
    finally:
        with contextlib.suppress(ProcessLookupError):
            process.kill()
        await process.wait()
