"""The health handler: from reports to the few facts that matter, over restarts and outages."""

import asyncio
import itertools
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from functools import partial
from pathlib import Path

import pytest

from bus_schemas.event import Event
from bus_schemas.events import HealthReported, ServerProvisioned, StatusChanged, UnlockAnswered
from bus_schemas.events.health import SlotHealth, Transition, Validity
from bus_schemas.flows import Role
from bus_schemas.streams import LEDGER
from bus_schemas.transport.connection import Bus
from bus_schemas.transport.database import StorageFull
from bus_schemas.transport.fresh import fresh
from bus_schemas.transport.jetstream import StoredMessage, read_batch, store, store_raw
from bus_schemas.transport.ledger import Batch, Position
from platform_handlers.doors.rules import Allowance
from platform_handlers.health import handler as handling
from platform_handlers.health import rules
from platform_handlers.health.handler import HealthHandler
from platform_handlers.health.store import HealthStore
from tests.conftest import Platform
from tests.facts import NKEY, Ledger
from tests.following import events_of, messages_once

REJECTED, ACCEPTED = Transition.REJECTED, Transition.ACCEPTED
SILENT, RETURNED = Transition.SILENT, Transition.RETURNED


def report(
    n: int, validity: Validity = Validity.VALID, *, server_id: str = "acme-1"
) -> HealthReported:
    """What a server reports of its one slot."""
    slot = SlotHealth(
        slot_id="main", provider="anthropic", revision=1, validity=validity, age_seconds=1
    )
    return HealthReported(
        server_id=server_id,
        incarnation=1,
        n=n,
        observed_generation=1,
        runtime_version="0.1.0",
        outbox_depth=0,
        slots=(slot,),
    )


@asynccontextmanager
async def running(platform: Platform, folder: Path) -> AsyncIterator[None]:
    """Run a health handler with its store in *folder*."""
    handler = await HealthHandler.open(folder, await platform.bus(Role.HEALTH))
    task = asyncio.create_task(handler.run())
    try:
        yield
    finally:
        task.cancel()
        with suppress(asyncio.CancelledError):
            await task


async def status_until(
    platform: Platform, enough: Callable[[list[Transition]], bool], *, server_id: str = "acme-1"
) -> list[Transition]:
    """Return a server's transitions on the ledger once *enough* holds, at most ten seconds."""
    bus = await platform.bus(Role.OPS)
    found = await messages_once(bus, LEDGER, lambda told: enough(transitions(told, server_id)))
    return transitions(found, server_id)


async def statuses(bus: Bus) -> list[Transition]:
    """Return acme-1's transitions on the ledger."""
    return transitions(await read_batch(bus, LEDGER.name, 1, 500), "acme-1")


def transitions(messages: list[StoredMessage], server_id: str) -> list[Transition]:
    """Return what *messages* tell of one server."""
    told = [event for event in events_of(messages) if isinstance(event, StatusChanged)]
    return [event.transition for event in told if event.server_id == server_id]


async def provision(platform: Platform, server_id: str = "acme-1") -> Bus:
    """Enrol a server and connect as it."""
    event = ServerProvisioned(
        server_id=server_id, owner_id="acme", nkey=NKEY, identity_key=bytes(32)
    )
    await store(await platform.bus(Role.ISSUER), fresh(event))
    return await platform.bus(Role.SERVER, server_id)


async def test_a_rejection_is_told_once_and_its_end_too_over_restarts(
    platform: Platform, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A restarted handler knows what was told, so the banner it raised can be cleared."""
    monkeypatch.setattr(rules, "REJECTED_AT_LEAST_SECONDS", 0)
    server = await provision(platform)
    async with running(platform, tmp_path):
        await store(server, fresh(report(1, Validity.INVALID)))
        await status_until(platform, lambda told: told == [REJECTED])
        await store(server, fresh(report(2, Validity.INVALID)))
    async with running(platform, tmp_path):
        await store(server, fresh(report(3, Validity.UNKNOWN)))
        await store(server, fresh(report(4, Validity.VALID)))
        await status_until(platform, lambda told: told == [REJECTED, ACCEPTED])


async def test_a_server_that_says_now_this_now_that_does_not_fill_the_ledger(
    platform: Platform, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each change would be a fact for 400 days; that it is silent, or double, is told anyway."""
    monkeypatch.setattr(handling, "_SLOT_CHANGES", Allowance(burst=3, per_second=1e-9, at_once=1))
    monkeypatch.setattr(rules, "SILENT_AFTER_SECONDS", 0.3)
    monkeypatch.setattr(rules, "REJECTED_AT_LEAST_SECONDS", 0)
    monkeypatch.setattr(handling, "_LOOK_SECONDS", 0.05)
    server = await provision(platform)
    async with running(platform, tmp_path):
        for n, wanted in enumerate([REJECTED, ACCEPTED, REJECTED, SILENT], start=1):
            validity = Validity.INVALID if n % 2 else Validity.VALID
            await store(server, fresh(report(n, validity)))
            told = await status_until(platform, partial(ends_with, wanted))
    assert [one for one in told if one in {REJECTED, ACCEPTED}] == [REJECTED, ACCEPTED, REJECTED]


def ends_with(wanted: Transition, told: list[Transition]) -> bool:
    """Whether *wanted* was told last, whatever was told before."""
    return told[-1:] == [wanted]


async def test_silence_is_told_once_and_a_restart_is_no_return(
    platform: Platform, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The last report is still in the stream; read again, it is old news."""
    monkeypatch.setattr(rules, "SILENT_AFTER_SECONDS", 0.3)
    monkeypatch.setattr(handling, "_LOOK_SECONDS", 0.05)
    server = await provision(platform)
    async with running(platform, tmp_path):
        await store(server, fresh(report(1)))
        await status_until(platform, lambda told: told == [SILENT])
    other = await provision(platform, "acme-2")
    async with running(platform, tmp_path):
        await store(other, fresh(report(1, server_id="acme-2")))
        # It reports after acme-1's old report was read again: whatever was wrongly told of that,
        # a return or a second silence, would have been told before this one's silence.
        await status_until(platform, lambda told: told == [SILENT], server_id="acme-2")
        assert await status_until(platform, bool) == [SILENT]
        await store(server, fresh(report(2)))
        told = await status_until(platform, lambda told: len(told) > 1)
        assert told[:2] == [SILENT, RETURNED]


async def test_two_machines_are_told_of_once_over_restarts(
    platform: Platform, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Both report every minute, and a restarted handler reads the last report again."""
    monkeypatch.setattr(rules, "STRAY_SECONDS", 0.1)
    server, evaluator = await provision(platform), await platform.bus(Role.EVALUATOR)
    ops, numbers = await platform.bus(Role.OPS), itertools.count(1)
    async with running(platform, tmp_path):
        await store(server, fresh(report(next(numbers))))
        for incarnation in (1, 2):
            start = UnlockAnswered(server_id="acme-1", incarnation=incarnation)
            await store(evaluator, fresh(start))
        async with asyncio.timeout(10):
            while not await statuses(ops):
                await store(server, fresh(report(next(numbers))))
                await asyncio.sleep(0.02)
    async with running(platform, tmp_path):
        await store(server, fresh(report(next(numbers), Validity.INVALID)))
        told = await status_until(platform, lambda told: REJECTED in told)
    assert told == [Transition.CLONED, REJECTED]


async def test_a_report_nobody_can_use_harms_nobody(platform: Platform, tmp_path: Path) -> None:
    """The next report counts."""
    server = await provision(platform)
    async with running(platform, tmp_path):
        await store_raw(server, "byok.v1.health.acme-1", "poison", b"{")
        await store(server, fresh(report(2, Validity.INVALID)))
        await status_until(platform, lambda told: told == [REJECTED])


def batch(*events: Event) -> Batch:
    """A batch with these facts."""
    ledger = Ledger()
    for event in events:
        ledger.add(event)
    return Batch(tuple(ledger.facts), (), Position("then", len(events), "digest"))


async def test_what_is_told_and_what_is_folded_do_not_overwrite_each_other(
    tmp_path: Path,
) -> None:
    """Reports and the ledger come in at the same time; after a restart it all is still known."""
    opened = await HealthStore.open(tmp_path / "health.db")
    ledger = Ledger()
    facts = [ledger.provisioned(f"acme-{i}", "acme") for i in range(10)]
    await opened.apply(batch(*(fact.envelope.data for fact in facts)))
    rejected = [
        ledger.status(f"acme-{i}", "acme", REJECTED, "main").envelope.data for i in range(10)
    ]
    changes = [event for event in rejected if isinstance(event, StatusChanged)]
    silent = [ledger.status(f"acme-{i}", "acme", SILENT).envelope.data for i in range(10)]
    await asyncio.gather(
        *(opened.tell([change]) for change in changes), *(opened.apply(batch(s)) for s in silent)
    )
    known = dict(opened.servers)
    assert all(k.silent and set(k.rejected) == {"main"} for k in known.values())
    await opened.database.close()
    again = await HealthStore.open(tmp_path / "health.db")
    assert again.servers == known
    assert await again.position() == Position("then", 1, "digest")
    await again.database.close()


async def test_a_full_disk_tells_nothing_and_knows_nothing_new(tmp_path: Path) -> None:
    """Neither is it taken as told, so the next report tells it."""
    opened = await HealthStore.open(tmp_path / "health.db")
    ledger = Ledger()
    await opened.apply(batch(ledger.provisioned("acme-1", "acme").envelope.data))
    before = dict(opened.servers)
    [pages] = await opened.database.execute_fetchall("PRAGMA page_count")
    await opened.database.execute(f"PRAGMA max_page_count = {pages[0]}")
    changes = [ledger.status("acme-1", "acme", REJECTED, "x" * 63).envelope.data] * 200
    with pytest.raises(StorageFull):
        await opened.tell([event for event in changes if isinstance(event, StatusChanged)])
    assert opened.servers == before
    await opened.database.close()
