"""The server's facts on a real disk: numbered without gaps, told once, nothing half."""

from functools import partial
from pathlib import Path

import pytest

from bus_schemas.event import ServerFact
from bus_schemas.events.reported import PinsChanged
from vps_runtime.facts.store import Facts

DRAFT = partial(PinsChanged, pinned=())


def failing(**_stamp: object) -> ServerFact:
    """Stand for a fact that cannot be made."""
    raise ValueError("not made")


async def waiting(facts: Facts) -> list[tuple[str, ...]]:
    """Return the outbox's rows."""
    rows = await facts._database.execute_fetchall("SELECT body FROM outbox ORDER BY position")  # noqa: SLF001
    return [tuple(map(str, row)) for row in rows]


async def test_numbers_go_on_over_restarts(tmp_path: Path) -> None:
    """The counter is stored with the facts: no number is ever given twice."""
    path = tmp_path / "outbox.db"
    first = await Facts.open(path, "acme-1", 1)
    await first.tell(DRAFT, DRAFT, remember={"pins": ""})
    assert (await first.numbered(DRAFT)).n == 3
    await first.close()
    second = await Facts.open(path, "acme-1", 2)
    fact = await second.numbered(DRAFT)
    assert (fact.incarnation, fact.n) == (2, 4)
    assert (second.told, await second.depth()) == ({"pins": ""}, 2)
    await second.close()


async def test_a_fact_that_fails_takes_nothing_with_it(tmp_path: Path) -> None:
    """Facts, numbers and memory change together or not at all."""
    facts = await Facts.open(tmp_path / "outbox.db", "acme-1", 1)
    with pytest.raises(ValueError, match="not made"):
        await facts.tell(DRAFT, failing, remember={"x": "1"})
    assert (facts.told, await waiting(facts)) == ({}, [])
    assert (await facts.numbered(DRAFT)).n == 1
    await facts.close()


async def test_memory_can_be_forgotten(tmp_path: Path) -> None:
    """What is forgotten stays so after a restart."""
    path = tmp_path / "outbox.db"
    facts = await Facts.open(path, "acme-1", 1)
    await facts.tell(remember={"a": "1", "b": "2"})
    await facts.tell(forget=["a", "never"])
    await facts.close()
    again = await Facts.open(path, "acme-1", 1)
    assert again.told == {"b": "2"}
    await again.close()
    assert path.stat().st_mode & 0o077 == 0
