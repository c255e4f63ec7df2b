"""What the platform's own databases say, read beside the running handlers (SQLite, WAL, ro)."""

import json
from dataclasses import dataclass
from pathlib import Path

from bus_schemas.transport.database import read_beside
from bus_schemas.transport.ledger import Position
from platform_handlers.authority.installation import Installation


@dataclass(frozen=True)
class Reader:
    """Somebody who folds the ledger into a store."""

    name: str
    path: Path
    command: str
    """What runs it."""


def readers(installation: Installation) -> list[Reader]:
    """Return all of them."""
    names = ("config", "fingerprint", "health")
    found = [Reader(n, installation.platform / f"{n}.db", "byok platform run") for n in names]
    evaluator = Reader("evaluator", installation.evaluator / "state.db", "byok evaluator run")
    return [*found, evaluator]


def position(path: Path) -> Position | None:
    """Return where a store stands; None if it never read. Raises sqlite3.Error."""
    rows = read_beside(path, "SELECT created, sequence, digest FROM ledger_position")
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
