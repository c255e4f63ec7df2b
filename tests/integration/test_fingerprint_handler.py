"""The fingerprint handler on a real bus: facts in, banners out, whatever happens in between."""

import asyncio
from pathlib import Path

import pytest

from bus_schemas.codec import decode
from bus_schemas.errors import ReaderMustStop
from bus_schemas.events import (
    DismissalRequested,
    RulesChanged,
)
from bus_schemas.flows import Role
from bus_schemas.intake import admitted
from bus_schemas.streams import LEDGER, PARKED
from bus_schemas.transport.follow import follow
from bus_schemas.transport.fresh import fresh
from bus_schemas.transport.jetstream import StoredMessage, read_batch, store_raw
from platform_handlers.fingerprint.handler import FingerprintHandler
from platform_handlers.fingerprint.store import FingerprintStore
from tests.conftest import Platform
from tests.telling import (
    TAG_A,
    TAG_B,
    Teller,
    banners_until,
    handling,
    observed,
    provisioned,
    read_until,
    retired,
    states,
)


@pytest.fixture
def tell(platform: Platform) -> Teller:
    """Say something on the ledger."""
    return Teller(platform)


async def parked_until(platform: Platform, number: int) -> list[StoredMessage]:
    """Read the pointers to parked messages until there are *number*, at most five seconds."""
    ops = await platform.bus(Role.OPS)
    async with asyncio.timeout(5):
        async for _ in follow(ops, PARKED, 1):
            if len(parked := await read_batch(ops, PARKED.name, 1, 10)) >= number:
                return parked
    raise AssertionError


async def test_a_shared_key_raises_both_banners_and_rotating_clears_them(
    platform: Platform, tell: Teller, tmp_path: Path
) -> None:
    """Two servers of one owner with one key see each other; after a rotation neither does."""
    async with handling(platform, tmp_path / "a"):
        await tell(provisioned("acme", "acme-1"), provisioned("acme", "acme-2"))
        await tell(observed("acme-1", TAG_A, n=1), observed("acme-2", TAG_A, n=1))
        raised = await banners_until(platform, lambda b: len(b) == 2)
        assert sorted(states(raised)) == [("acme-1", "raised"), ("acme-2", "raised")]
        assert {b.server_id: b.sharing.own_servers for b in raised} == {
            "acme-1": ("acme-2",),
            "acme-2": ("acme-1",),
        }
        assert {(b.severity, b.colour, b.sharing.other_owners) for b in raised} == {
            ("low", "blue", 0)
        }
        await tell(observed("acme-2", TAG_B, n=2, revision=2), retired("acme-2", n=3, revision=1))
        cleared = await banners_until(platform, lambda b: len(b) == 4)
        assert sorted(states(cleared[2:])) == [("acme-1", "cleared"), ("acme-2", "cleared")]


async def test_two_handlers_and_a_rebuilt_one_say_the_same_bytes_once(
    platform: Platform, tell: Teller, tmp_path: Path
) -> None:
    """Any number of handlers may run; each banner event is in the stream exactly once."""
    async with handling(platform, tmp_path / "a"), handling(platform, tmp_path / "b"):
        for i in range(5):
            await tell(provisioned("acme", f"acme-{i}"), observed(f"acme-{i}", TAG_A, n=1))
        first = await read_until(platform, lambda b: len(b) == 2 + 3 + 4 + 5)
    async with handling(platform, tmp_path / "rebuilt") as rebuilt:
        await rebuilt.reader.caught_up()
        await tell(provisioned("acme", "late"), observed("late", TAG_A, n=1))
        again = await read_until(platform, lambda b: b[-1].server_id == "late")
    assert [m.data for _, m in again][: len(first)] == [m.data for _, m in first]
    ids = [decode(m.data, m.subject).id for _, m in again]
    assert len(ids) == len(set(ids))


async def test_a_poison_message_is_parked_and_the_reader_goes_on(
    platform: Platform, tell: Teller, tmp_path: Path
) -> None:
    """Whatever servers send on their own subjects, their neighbours' facts still count."""
    names = [f"mallory-{i}" for i in (1, 2, 3)]  # of each one's rubbish one a day gets so far
    first, _, third = [await platform.bus(Role.SERVER, name) for name in names]
    intake = await platform.bus(Role.INTAKE)  # one that knows more than this reader
    subject = "byok.v1.fingerprint.mallory-{}".format
    async with handling(platform, tmp_path / "a") as handler:
        await tell(provisioned("acme", "acme-1"), provisioned("acme", "acme-2"))
        await store_raw(first, subject(1), "p1", b"{not json")
        newer = fresh(observed("mallory-2", TAG_A, n=1)).model_dump_json(exclude_none=True)
        newer = newer.replace("observed.v1", "observed.v9")
        await store_raw(intake, admitted(subject(2)), "p2", newer.encode())
        foreign = fresh(observed("acme-1", TAG_A, n=1)).model_dump_json(exclude_none=True)
        await store_raw(third, subject(3), "p3", foreign.encode())
        await tell(observed("acme-1", TAG_A, n=1), observed("acme-2", TAG_A, n=1))
        await banners_until(platform, lambda b: len(b) == 2)
        assert handler.reader.parked == 3
        parked = await parked_until(platform, 3)
        reasons = [decode(m.data, m.subject).data for m in parked]
        assert [getattr(r, "reason", "") for r in reasons] == [
            "malformed",
            "unknown_major",
            "wrong_subject",
        ]


async def test_unknown_rules_stop_the_reader_and_nothing_is_skipped(
    platform: Platform, tell: Teller, tmp_path: Path
) -> None:
    """A build that does not know the rules in force stands still instead of guessing."""
    await tell(provisioned("acme", "acme-1"))
    at = await tell(RulesChanged(version=99))
    await tell(observed("acme-1", TAG_A, n=1))
    bus = await platform.bus(Role.FINGERPRINT)
    handler = await FingerprintHandler.open(tmp_path, bus)
    with pytest.raises(ExceptionGroup) as raised:
        await handler.run()
    [stop] = raised.value.exceptions
    assert isinstance(stop, ReaderMustStop)
    assert (stop.reason, stop.position) == ("unknown_rules", at)
    again = await FingerprintStore.open(tmp_path / "fingerprint.db")
    position = await again.position()
    await again.close()
    assert position is not None
    assert position.sequence == at - 1


async def test_a_dismissed_banner_reopens_only_for_a_new_holder(
    platform: Platform, tell: Teller, tmp_path: Path
) -> None:
    """Dismissing covers the servers that were there, also in a replay, and nobody else."""
    async with handling(platform, tmp_path / "a"):
        for server_id in ("acme-1", "acme-2", "acme-3"):
            await tell(provisioned("acme", server_id))
        await tell(observed("acme-1", TAG_A, n=1), observed("acme-2", TAG_A, n=1))
        raised = await banners_until(platform, lambda b: len(b) == 2)
        mine = next(b for b in raised if b.server_id == "acme-1")
        await tell(
            DismissalRequested(
                owner_id="acme",
                banner_id=mine.banner_id,
                banner_revision=mine.revision,
                who="ann",
                why="on purpose",
            )
        )
        await banners_until(platform, lambda b: states(b)[-1] == ("acme-1", "dismissed"))
        await tell(observed("acme-3", TAG_A, n=1))
        told = await banners_until(platform, lambda b: len(b) == 6)
        assert sorted(states(told[3:])) == [
            ("acme-1", "reopened"),
            ("acme-2", "updated"),
            ("acme-3", "raised"),
        ]


async def test_the_stream_of_the_ledger_is_never_written_by_reading(
    platform: Platform, tell: Teller, tmp_path: Path
) -> None:
    """Reading leaves no consumer behind, whatever happens to the reader."""
    await tell(provisioned("acme", "acme-1"))
    async with handling(platform, tmp_path / "a") as handler:
        await handler.reader.caught_up()
        setup = await platform.bus(Role.SETUP)
        info = await setup.request(f"$JS.API.STREAM.INFO.{LEDGER.name}", b"", wait=5)
        assert b'"consumer_count":0' in info.data
