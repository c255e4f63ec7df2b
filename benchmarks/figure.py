"""One measured figure, and how a run of something is timed. No project code in here."""

import statistics
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass

ROUNDS = 5


@dataclass(frozen=True)
class Figure:
    """What was measured, what it should be, and what it was measured against."""

    name: str
    value: float
    unit: str
    target: float
    better: str
    """`higher` or `lower`."""
    baseline: str
    """The baseline and its own figure in this very run."""

    @property
    def met(self) -> bool:
        """Whether the target is reached."""
        return self.value >= self.target if self.better == "higher" else self.value <= self.target

    def as_json(self) -> dict[str, object]:
        """Return the figure as `results.json` lists it."""
        return asdict(self)


def rate(work: Callable[[], int]) -> float:
    """Return how many items a second *work* does: it returns how many one call did."""
    began = time.perf_counter()
    done = work()
    return done / (time.perf_counter() - began)


def paired(ours: Callable[[], int], theirs: Callable[[], int]) -> tuple[float, float, float]:
    """Return our rate, theirs, and the median of the ratios of runs taken in turn.

    Turn by turn, so that a machine that slows down slows both.
    """
    ours(), theirs()  # warm up
    pairs = [(rate(ours), rate(theirs)) for _ in range(ROUNDS)]
    ratio = statistics.median(a / b for a, b in pairs)
    return statistics.median(a for a, _ in pairs), statistics.median(b for _, b in pairs), ratio
