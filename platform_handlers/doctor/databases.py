"""What the platform's own databases say, read beside the running handlers (SQLite, WAL, ro)."""

import json
from dataclasses import dataclass
from pathlib import Path

from bus_schemas.transport.database import read_beside
from bus_schemas.transport.ledger import Position
from bus_schemas.transport.position import POSITION_QUERY
from platform_handlers.authority.installation import Installation
from platform_handlers.fingerprint import store as fingerprint


@dataclass(frozen=True)
class Reader:
    """Somebody who folds the ledger into a store."""

    name: str
    path: Path
    command: str
    """What runs it."""
    query: str = POSITION_QUERY
    """What finds its place in the ledger."""


def readers(installation: Installation) -> list[Reader]:
    """Return all of them."""
    folder, run = installation.platform, "byok platform run"
    return [
        Reader("config", folder / "config.db", run),
        Reader("fingerprint", folder / "fingerprint.db", run, fingerprint.POSITION_QUERY),
        Reader("health", folder / "health.db", run),
        Reader("evaluator", installation.evaluator / "state.db", "byok evaluator run"),
    ]


def position(reader: Reader) -> Position | None:
    """Return where a reader stands; None if it never read. Raises sqlite3.Error."""
    rows = read_beside(reader.path, reader.query)
    return Position(*rows[0]) if rows else None


def pins(installation: Installation) -> dict[str, tuple[str, ...]]:
    """Return the pins that servers have told. Raises sqlite3.Error."""
    query = "SELECT server_id, body FROM announced WHERE what = 'pins' AND body <> ''"
    rows = read_beside(installation.platform / "config.db", query)
    return {str(server): tuple(json.loads(str(body))) for server, body in rows}


def revocations_confirmed(installation: Installation) -> bool:
    """Say whether all nats-servers have every revocation. Raises sqlite3.Error."""
    rows = read_beside(installation.platform / "registry.db", "SELECT wanted <= pushed FROM claims")
    return all(bool(confirmed) for (confirmed,) in rows)
