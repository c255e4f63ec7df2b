"""What servers answered to orders: kept in the config handler's database, with its offset."""

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime
from typing import Final

import aiosqlite

from bus_schemas.api import OrderState, OrderView
from bus_schemas.events import OrderAnswered
from bus_schemas.transport.database import fetch_all, transaction
from bus_schemas.transport.ledger import Fact

KEPT_ANSWERS: Final = 64
"""Of each server, the newest: one that invents answers must not fill the disk."""

ORDERS_SCHEMA: Final = """
CREATE TABLE IF NOT EXISTS order_answers (
    server_id TEXT NOT NULL,
    order_id TEXT NOT NULL,
    incarnation INTEGER NOT NULL,
    n INTEGER NOT NULL,
    last_n INTEGER NOT NULL,
    body TEXT NOT NULL,
    PRIMARY KEY (server_id, order_id)
) STRICT;
CREATE INDEX IF NOT EXISTS order_answers_by_age ON order_answers (server_id, incarnation, n);
CREATE TABLE IF NOT EXISTS withdrawals ( -- servers whose document holds answered orders
    server_id TEXT PRIMARY KEY,
    incarnation INTEGER NOT NULL,
    n INTEGER NOT NULL
) STRICT;
"""


@dataclass(frozen=True)
class Withdrawal:
    """A server that has answered, up to its fact (*incarnation*, *n*)."""

    server_id: str
    incarnation: int
    n: int


async def fold_answers(database: aiosqlite.Connection, facts: Iterable[Fact]) -> None:
    """Keep the answers among *facts*, inside the caller's transaction.

    The first answer to an order stays: what a server says when somebody shows it an old order
    once more does not change what became of it.
    """
    answers = [
        (event, fact.stored_at)
        for fact in facts
        if isinstance(event := fact.envelope.data, OrderAnswered)
    ]
    if not answers:
        return
    await database.executemany(
        "INSERT OR IGNORE INTO order_answers VALUES (?, ?, ?, ?, ?, ?)",
        [
            (a.server_id, a.order_id, a.incarnation, a.n, a.last_n, _view(a, at).model_dump_json())
            for a, at in answers
        ],
    )
    await database.executemany(
        "INSERT INTO withdrawals VALUES (?, ?, ?) ON CONFLICT (server_id) DO UPDATE"
        " SET incarnation = excluded.incarnation, n = excluded.n",
        [(a.server_id, a.incarnation, a.n) for a, _ in answers],
    )
    await database.executemany(
        "DELETE FROM order_answers WHERE server_id = ?1 AND order_id IN (SELECT order_id"
        " FROM order_answers WHERE server_id = ?1 ORDER BY incarnation DESC, n DESC"
        " LIMIT -1 OFFSET ?2)",
        [(server_id, KEPT_ANSWERS) for server_id in {a.server_id for a, _ in answers}],
    )


async def answers_of(
    database: aiosqlite.Connection, server_id: str
) -> tuple[int, tuple[OrderView, ...]]:
    """Return the server's last number in its newest word, and its answers, by number."""
    query = (
        "SELECT last_n, body FROM order_answers WHERE server_id = ?"
        " ORDER BY incarnation DESC, n DESC"
    )
    rows = await fetch_all(database, query, (server_id,))
    views = sorted((OrderView.model_validate_json(row[1]) for row in rows), key=lambda v: v.n)
    return (rows[0][0] if rows else 0), tuple(views)


async def withdrawals(database: aiosqlite.Connection) -> list[Withdrawal]:
    """Return whose documents may hold answered orders."""
    rows = await fetch_all(database, "SELECT * FROM withdrawals LIMIT 256")
    return [Withdrawal(*row) for row in rows]


async def withdrawn(database: aiosqlite.Connection, done: Withdrawal) -> None:
    """Forget *done*, unless the server has answered again meanwhile. Raises StorageFull."""
    async with transaction(database):
        await database.execute(
            "DELETE FROM withdrawals WHERE server_id = ? AND (incarnation, n) <= (?, ?)",
            (done.server_id, done.incarnation, done.n),
        )


def _view(answer: OrderAnswered, at: datetime) -> OrderView:
    return OrderView(
        order_id=answer.order_id,
        n=answer.order_n,
        kind=answer.kind,
        slot_id=answer.slot_id,
        state=OrderState(answer.outcome),
        reason=answer.reason,
        at=at,
    )
