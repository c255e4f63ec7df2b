"""A report against the server's other facts: its number says which of them it knows."""

import asyncio
from collections.abc import AsyncIterator
from functools import partial
from pathlib import Path

import pytest

from bus_schemas.event import ServerFact
from bus_schemas.events import CredentialVerified, HealthReported
from bus_schemas.fields import CredentialKind
from tests.facts import ROTATION
from vps_runtime.facts.store import Draft, Facts
from vps_runtime.facts.told import StoredNote
from vps_runtime.health import reporter as reporting
from vps_runtime.health.reporter import Reporter
from vps_runtime.rotation.rules import SlotRotation, rotation_key

ROUNDS = 30


@pytest.fixture
async def facts(tmp_path: Path) -> AsyncIterator[Facts]:
    """A server's facts, on a real disk."""
    opened = await Facts.open(tmp_path / "outbox.db", "acme-1", 1)
    yield opened
    await opened.close()


def in_use(revision: int) -> dict[str, str]:
    """What is kept in mind when *revision* of `main` comes into use."""
    note = StoredNote(
        slot_id="main",
        revision=revision,
        provider="openai",
        kind=CredentialKind.API_KEY,
        rotation_id=ROTATION,
        stored_at=0,
    )
    rotation = SlotRotation(current=revision, newest=revision)
    return {
        f"held/main/{revision}": note.model_dump_json(),
        rotation_key("main"): rotation.model_dump_json(),
    }


async def test_a_report_knows_the_facts_below_its_number_and_no_others(
    facts: Facts, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whoever hears that another key is used drops older reports of the one before, by number."""
    promoted: dict[int, int] = {}
    reports: list[HealthReported] = []

    def promotion(revision: int, *, server_id: str, incarnation: int, n: int) -> ServerFact:
        promoted[n] = revision
        return CredentialVerified(
            server_id=server_id,
            incarnation=incarnation,
            n=n,
            slot_id="main",
            revision=revision,
            rotation_id=ROTATION,
            observed_generation=1,
            verdict="valid",
            promoted=True,
        )

    async def rotate() -> None:
        for revision in range(1, ROUNDS + 1):
            draft: Draft = partial(promotion, revision)
            await facts.tell(draft, remember=in_use(revision))

    async def report() -> None:
        reporter = Reporter(None, facts, 60)  # type: ignore[arg-type] # nothing is sent
        for _ in range(ROUNDS):
            await reporter.report()

    async def kept(_bus: object, envelope: object) -> None:
        data = getattr(envelope, "data", None)
        assert isinstance(data, HealthReported)
        reports.append(data)

    monkeypatch.setattr(reporting, "store", kept)
    await asyncio.gather(rotate(), report(), report())
    assert len(reports) == 2 * ROUNDS
    assert len({each.slots[0].revision for each in reports if each.slots}) > 1
    for each in reports:
        known = [revision for n, revision in sorted(promoted.items()) if n < each.n]
        assert [slot.revision for slot in each.slots] == known[-1:]
