"""The fingerprint handler's database: whatever the batches and restarts, the same announcements."""

import asyncio
import tempfile
from pathlib import Path
from random import Random
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bus_schemas.codec import encode
from bus_schemas.transport.database import StorageFull
from bus_schemas.transport.ledger import Batch, Fact, Position
from platform_handlers.banner.lifecycle import announcement
from platform_handlers.fingerprint import edits, projection, rotations
from platform_handlers.fingerprint.projection import Dirty
from platform_handlers.fingerprint.store import FingerprintStore
from tests.facts import Ledger
from tests.histories import ABOUT_ROTATIONS, HAPPENINGS, World


def batch(facts: list[Fact]) -> Batch:
    """What the reader would hand over."""
    return Batch(tuple(facts), (), Position("then", facts[-1].sequence, "digest"))


async def announced(store: FingerprintStore) -> list[tuple[int, bytes]]:
    """Return everything queued for the banner stream, in order."""
    query = "SELECT revision, body FROM announcements ORDER BY position"
    rows: list[Any] = list(await store.database.execute_fetchall(query))
    return [(revision, body) for revision, body in rows]


def expected(world: World) -> list[tuple[int, bytes]]:
    """Return what a projection that was never interrupted said."""
    return [(b.revision, encode(announcement(b, cause))) for b, cause in world.said]


async def fold_in_pieces(world: World, dice: Random, path: Path) -> list[tuple[int, bytes]]:
    """Fold the ledger in batches of any size, with a restart after any of them."""
    store, facts = await FingerprintStore.open(path), list(world.ledger.facts)
    try:
        while facts:
            size = dice.randint(1, 20)
            await store.apply(batch(facts[:size]))
            del facts[:size]
            if dice.random() < 0.4:
                await store.close()
                store = await FingerprintStore.open(path)
        state, whole = store.projection, world.state
        assert (state.servers, state.holders) == (whole.servers, whole.holders)
        assert {b.key: b for b in state.banners} == {b.key: b for b in whole.banners}
        assert state.banners.dismissed == whole.banners.dismissed
        assert state.rotations == whole.rotations  # and when each is to be looked at
        assert (state.ticks, state.minute) == (whole.ticks, whole.minute)
        return await announced(store)
    finally:
        await store.close()


@settings(max_examples=25, deadline=None)
@given(st.randoms(use_true_random=False), st.integers(1, 80))
def test_batches_and_restarts_do_not_show(dice: Random, length: int) -> None:
    """However the ledger is cut and however often the handler starts anew, byte for byte."""
    with pytest.MonkeyPatch.context() as patch, tempfile.TemporaryDirectory() as folder:
        patch.setattr(edits, "SERVER_LIFE_TICKS", 4)
        patch.setattr(projection, "_SWEEP_EVERY_TICKS", 2)
        patch.setattr(rotations, "STUCK_TICKS", 2)
        patch.setattr(rotations, "NOTICE_DAYS", (3, 5))
        patch.setattr(rotations, "_DAY", 1)
        world = World()
        for _ in range(length):
            dice.choice([*HAPPENINGS, *ABOUT_ROTATIONS])(world, dice)
            world.catch_up()
        path = Path(folder) / "fingerprint.db"
        assert asyncio.run(fold_in_pieces(world, dice, path)) == expected(world)


async def test_a_full_disk_leaves_the_old_state_and_the_same_batch_fits_later(
    tmp_path: Path,
) -> None:
    """Memory goes back to what the disk holds, so nothing is told twice or forgotten."""
    world = World()
    for server_id in ("acme-0", "acme-1"):
        world.ledger.observed(server_id, "k1")
    many = Ledger(list(world.ledger.facts))
    for i in range(400):
        many.provisioned(f"web-{i}", "acme")
        many.observed(f"web-{i}", f"key-{i}")
    store = await FingerprintStore.open(tmp_path / "fingerprint.db")
    first = len(world.ledger.facts)
    await store.apply(batch(many.facts[:first]))
    told, position = await announced(store), await store.position()
    held, servers = set(store.projection.holders), dict(store.projection.servers)
    [pages] = await store.database.execute_fetchall("PRAGMA page_count")
    await store.database.execute(f"PRAGMA max_page_count = {pages[0]}")
    with pytest.raises(StorageFull):
        await store.apply(batch(many.facts[first:]))
    assert (await announced(store), await store.position()) == (told, position)
    assert (set(store.projection.holders), store.projection.servers) == (held, servers)
    assert store.projection.dirty == Dirty()
    await store.database.execute("PRAGMA max_page_count = 100000")
    await store.apply(batch(many.facts[first:]))
    assert len(store.projection.servers) == len(servers) + 400
    assert await announced(store) == told
    await store.close()
