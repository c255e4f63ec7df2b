"""All ways to the provider in turn, and what is to be said of them."""

import asyncio
import statistics
import tempfile
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from benchmarks.figure import Figure
from benchmarks.gateway.byok import byok
from benchmarks.gateway.measuring import MANY, STREAMS, Turn, client, provider
from benchmarks.gateway.processes import proportional, resident
from benchmarks.gateway.proxies import Way, litellm, nginx, versions

_ROUNDS: Final = 3
_IDLE_SECONDS: Final = 3.0
_DIRECT: Final = "direct"
_OURS: Final = "byok"


async def measure() -> list[Figure]:
    """Return the figures of the gateway."""
    with tempfile.TemporaryDirectory(prefix="byok-bench-") as name:
        async with provider() as port, client() as asking, _ways(Path(name), port) as (ways, idle):
            turns: dict[str, list[Turn]] = {way.name: [] for way in ways}
            for _ in range(_ROUNDS):  # in turn: a machine that slows down slows all
                for way in ways:
                    turns[way.name].append(await asking.turn(way))
    return [*_Contest(turns, await asyncio.to_thread(versions)).figures(), idle]


@asynccontextmanager
async def _ways(folder: Path, port: int) -> AsyncIterator[tuple[tuple[Way, ...], Figure]]:
    """Start everybody; the idle memory is taken before anybody is asked for anything."""
    async with byok(folder / _OURS) as running:
        fingerprint = await running.enrol()
        await running.unlocked()
        ours = await running.give_key(fingerprint, port)
        await asyncio.sleep(_IDLE_SECONDS)
        figure = Figure(
            "memory of an idle byok-vps run, with its gateway, a slot and the bus",
            round(resident(running.pid), 1),
            "MB resident",
            80,
            "lower",
            f"{proportional(running.pid):.1f} MB without what it shares with other processes",
        )
        async with nginx(folder, port) as bare, litellm(folder, port) as (routed, passing_on):
            yield (Way(_DIRECT, port), bare, ours, passing_on, routed), figure


@dataclass(frozen=True)
class _Contest:
    """Medians over all rounds."""

    turns: Mapping[str, Sequence[Turn]]
    versions: Mapping[str, str]

    def figures(self) -> list[Figure]:
        """Return what is promised, each beside what the others did."""
        return [
            self._times(
                f"gateway: requests a second of its CPU, {MANY} clients, against LiteLLM's proxy",
                lambda turn: turn.per_cpu,
            ),
            self._times(
                f"gateway: requests a second, {MANY} clients, against LiteLLM's proxy",
                lambda turn: turn.many.requests / turn.many.seconds,
                also=_DIRECT,
            ),
            self._added("gateway: added to a call, 1 client, p50", 2.0, lambda turn: turn.one.p50),
            self._added("gateway: added to a call, 1 client, p99", 10.0, lambda turn: turn.one.p99),
            self._added(
                f"gateway: added to a call, {MANY} clients, p50", 10.0, lambda turn: turn.many.p50
            ),
            self._added(
                f"gateway: added to a call, {MANY} clients, p99", 20.0, lambda turn: turn.many.p99
            ),
            self._added(
                "gateway: added to the first event of a stream", 2.0, lambda turn: turn.stream.first
            ),
            self._held_back(),
            self._memory(),
        ]

    def _median(self, name: str, of: Callable[[Turn], float]) -> float:
        return statistics.median(of(turn) for turn in self.turns[name])

    @property
    def _others(self) -> list[str]:
        return [name for name in self.turns if name not in {_DIRECT, _OURS}]

    def _times(self, what: str, of: Callable[[Turn], float], also: str = "") -> Figure:
        """Compare with the faster of LiteLLM's two ways, round by round."""
        rivals = [name for name in self._others if name.startswith("LiteLLM")]
        best = max(rivals, key=lambda name: self._median(name, of))
        rounds = zip(self.turns[_OURS], self.turns[best], strict=True)
        ratio = statistics.median(of(ours) / of(theirs) for ours, theirs in rounds)
        listed = [_OURS, *self._others, *filter(None, [also])]
        said = ", ".join(f"{self._full(name)} {self._median(name, of):,.0f}" for name in listed)
        return Figure(what, round(ratio, 1), "times", 3.0, "higher", said)

    def _added(self, what: str, target: float, of: Callable[[Turn], float]) -> Figure:
        direct = self._median(_DIRECT, of)

        def added(name: str) -> float:
            return self._median(name, of) - direct

        said = [f"{name} {added(name):.2f}" for name in self._others]
        said.append(f"direct alone takes {direct:.2f}")
        return Figure(what, round(added(_OURS), 2), "ms", target, "lower", ", ".join(said))

    def _held_back(self) -> Figure:
        def late(name: str) -> str:
            turns = [turn.stream for turn in self.turns[name]]
            first = sum(turn.first_held_back for turn in turns)
            return f"{name} {first} ({sum(turn.held_back for turn in turns)})"

        def delay(name: str) -> str:
            return f"{name} {self._median(name, lambda turn: turn.stream.delay):.2f}"

        names = [_OURS, _DIRECT, *self._others]
        return Figure(
            f"gateway: first events of {STREAMS * _ROUNDS} streams that came after the second left",
            sum(turn.stream.first_held_back for turn in self.turns[_OURS]),
            "events",
            0,
            "lower",
            f"first (any): {', '.join(map(late, names))}; median ms from the provider's sending of "
            f"an event to its arrival: {', '.join(map(delay, names))}",
        )

    def _memory(self) -> Figure:
        def memory(name: str) -> float:
            return self._median(name, lambda turn: turn.memory)

        said = ", ".join(f"{name} {memory(name):.0f}" for name in self._others[:2])
        return Figure(
            f"gateway: memory of the whole runtime after {MANY} clients",
            round(memory(_OURS), 1),
            "MB proportional",
            100,
            "lower",
            said,
        )

    def _full(self, name: str) -> str:
        version = self.versions.get(name)
        return f"{name} {version}:" if version else f"{name}:"
