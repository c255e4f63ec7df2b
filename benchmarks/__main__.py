"""`make bench`: measure, print a table, write `benchmarks/results.json`."""

import asyncio
import json
import logging
from pathlib import Path

import structlog
from rich.console import Console
from rich.table import Table

from benchmarks import codec, custody, demo, ledger, trust
from benchmarks.figure import Figure
from benchmarks.gateway import contest

RESULTS = Path(__file__).parent / "results.json"


def main() -> None:
    """Measure everything; a missed target is shown, not an error: machines differ."""
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.ERROR))
    console = Console()
    figures: list[Figure] = []
    for name, measure in (
        ("codec", codec.measure),
        ("custody", custody.measure),
        ("ledger", lambda: asyncio.run(ledger.measure())),
        ("trust", lambda: asyncio.run(trust.measure())),
        ("demo", demo.measure),
        ("gateway", lambda: asyncio.run(contest.measure())),
    ):
        with console.status(f"measuring {name} …"):
            figures += measure()
    console.print(_table(figures))
    content = json.dumps([figure.as_json() for figure in figures], indent=2)
    RESULTS.write_text(f"{content}\n", encoding="utf-8")
    console.print(f"written to benchmarks/{RESULTS.name}")


def _table(figures: list[Figure]) -> Table:
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0))
    for heading in ("", "figure", "value", "target", "baseline in the same run"):
        table.add_column(heading, overflow="fold")
    for figure in figures:
        sign = "≥" if figure.better == "higher" else "≤"
        table.add_row(
            "[green]✓[/green]" if figure.met else "[red]✗[/red]",
            figure.name,
            f"{figure.value} {figure.unit}",
            f"{sign} {figure.target}",
            figure.baseline,
        )
    return table


main()
