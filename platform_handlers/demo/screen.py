"""How the demo looks: steps with their times, then the banners in their colours."""

import time
from collections.abc import Mapping, Sequence

from rich.console import Console
from rich.status import Status
from rich.table import Table

_STYLES = {"amber": "bold #9A6700", "blue": "bold #0969DA"}
_MARKS = {"amber": "▲ amber", "blue": "● blue"}


class Screen:
    """Steps go to standard error, so that `--json` leaves standard output to one object."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._started = time.monotonic()
        self._status: Status | None = None

    @property
    def seconds(self) -> float:
        """Time since the demo began."""
        return time.monotonic() - self._started

    def chapter(self, title: str) -> None:
        """Begin a part of the story."""
        self.end()
        self._console.print(f"\n[bold]{title}[/bold]")
        self._status = self._console.status("working …")
        self._status.start()

    def step(self, text: str) -> None:
        """Say what has just been done."""
        line = f"  [green]✓[/green] [dim]{self.seconds:4.1f} s[/dim]  {text}"
        self._console.print(line, soft_wrap=True)

    def banners(self, rows: Sequence[dict[str, object]]) -> None:
        """Show banners as a table."""
        self.end()
        table = Table(box=None, pad_edge=False, padding=(0, 1), header_style="dim")
        for heading in ("severity", "code", "owner", "server", "shared with", "state"):
            table.add_column(heading)
        for row in rows:
            colour = str(row["colour"])
            style = "dim" if row["state"] == "cleared" else _STYLES[colour]
            cells = (
                f"{_MARKS[colour]} ({row['severity']})",
                str(row["code"]),
                str(row["owner"]),
                str(row["server"]),
                _shared(row),
                str(row["state"]),
            )
            table.add_row(*cells, style=style)
        self._console.print(table)

    def links(self, links: Mapping[str, str], notes: Sequence[str]) -> None:
        """Show the pages' addresses, each whole on a line of its own, to be clicked or copied."""
        self.end()
        self._console.print("\n[bold]Look for yourself[/bold] (each address signs in once)")
        for owner_id, url in links.items():
            self._console.print(f"  {owner_id:<8} {url}", soft_wrap=True)
        for note in notes:
            self._console.print(f"  [dim]{note}[/dim]", soft_wrap=True)

    def end(self) -> None:
        """Stop the spinner."""
        if self._status:
            self._status.stop()
            self._status = None


def _shared(row: dict[str, object]) -> str:
    if row["state"] == "cleared":
        return "nobody now"
    own = row["own_servers"]
    parts = [", ".join(own)] if isinstance(own, list) and own else []
    if row["other_owners"]:
        parts.append("another owner")
    return " and ".join(parts) or "nobody"
