"""How long the demo takes from its first line to its last, against its processes' bare start."""

import json
import subprocess
import sys
import time

from benchmarks.figure import Figure

_PROCESSES = 27
"""Programs the demo starts: 6 that stay, and 21 commands of owners and consoles."""


def measure() -> list[Figure]:
    """Return the demo's figure."""
    began = time.perf_counter()
    for _ in range(5):
        subprocess.run([sys.executable, "-c", "import click"], check=True)
    bare = (time.perf_counter() - began) / 5 * _PROCESSES
    command = [sys.executable, "-m", "platform_handlers", "demo", "--once", "--json"]
    run = subprocess.run(command, check=True, capture_output=True)
    seconds = json.loads(run.stdout)["seconds"]
    return [
        Figure(
            "byok demo --once",
            seconds,
            "s",
            60.0,
            "lower",
            f"starting {_PROCESSES} bare interpreters one by one: {bare:.1f} s",
        )
    ]
