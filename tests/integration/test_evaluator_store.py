"""What the evaluator remembers of the ledger: enrolments counted once, facts told once."""

import asyncio
import contextlib
import sqlite3
from collections.abc import AsyncIterator
from datetime import UTC, datetime
from pathlib import Path

import aiosqlite
import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from bus_schemas.errors import Refused
from bus_schemas.event import Event
from bus_schemas.events import (
    PinsChanged,
    RatchetAdvanced,
    ServerDeprovisioned,
    ServerProvisioned,
    ServerReenrolled,
    ServerRevoked,
    ServerUnlocked,
)
from bus_schemas.nkeys import KeyType, public_nkey
from bus_schemas.transport.database import StorageBusy, open_database, transaction
from bus_schemas.transport.fresh import fresh
from bus_schemas.transport.ledger import Batch, Fact, Position
from platform_handlers.evaluator.approvers import ToldPins
from platform_handlers.evaluator.keys import (
    _EPOCH_SCHEMA,
    _UNLOCK_SCHEMA,
    EPOCH_FILE,
    UNLOCK_FILE,
    KeyStore,
)
from platform_handlers.evaluator.roster import Roster
from platform_handlers.evaluator.rules import Circumstances
from platform_handlers.evaluator.servers import FILE_NAME, KnownServer, ServerStore

SERVER = "acme-1"
A, B, C = (bytes([number]) * 32 for number in (1, 2, 3))
NKEY = public_nkey(Ed25519PrivateKey.from_private_bytes(A), KeyType.USER)
AT = datetime(2026, 11, 23, tzinfo=UTC)


@pytest.fixture
async def servers(tmp_path: Path) -> AsyncIterator[ServerStore]:
    """An empty store."""
    store = await ServerStore.open(tmp_path / FILE_NAME)
    yield store
    await store.close()


def provisioned(key: bytes) -> ServerProvisioned:
    """Return the fact of a first enrolment."""
    return ServerProvisioned(server_id=SERVER, owner_id="acme", nkey=NKEY, identity_key=key)


def reenrolled(key: bytes) -> ServerReenrolled:
    """Return the fact of another machine."""
    return ServerReenrolled(server_id=SERVER, owner_id="acme", nkey=NKEY, identity_key=key)


async def test_nobody_sees_a_machine_with_the_key_of_the_one_before(servers: ServerStore) -> None:
    """A read in the middle of a fold would turn the new machine away for good, as not signed."""
    await hears(servers, provisioned(A))
    async with transaction(servers.database):
        insert = "INSERT INTO reenrolments VALUES (?, ?)"
        await servers.database.execute(insert, (SERVER, B))
        asked = asyncio.create_task(servers.server(SERVER))
        done, _ = await asyncio.wait({asked}, timeout=0.2)
        assert not done
        update = "UPDATE servers SET identity_key = ? WHERE server_id = ?"
        await servers.database.execute(update, (B, SERVER))
    known = await asked
    assert known is not None
    assert (known.identity_key, known.enrolment) == (B, 2)


async def hears(servers: ServerStore, *facts: Event) -> KnownServer:
    """Fold *facts*, which come next in the ledger, and return the server."""
    position = await servers.position()
    first = position.sequence + 1 if position else 1
    batch = tuple(Fact(first + n, AT, fresh(fact)) for n, fact in enumerate(facts))
    await servers.apply(Batch(batch, (), Position("then", first + len(facts) - 1, "digest")))
    known = await servers.server(SERVER)
    assert known is not None
    return known


def written_in(folder: Path) -> bytes:
    """Return what all files of *folder* hold."""
    return b"".join(path.read_bytes() for path in folder.iterdir())


async def test_each_machine_counts_once(servers: ServerStore) -> None:
    """A fact that lies in the ledger twice, late too, must not destroy the unlock key in use."""
    assert await hears(servers, provisioned(A)) == KnownServer(SERVER, A, active=True)
    assert await hears(servers, provisioned(B)) == KnownServer(SERVER, A, active=True)
    second = await hears(servers, reenrolled(B), reenrolled(B))
    assert (second.identity_key, second.enrolment) == (B, 2)
    third = await hears(servers, reenrolled(C), reenrolled(B))
    assert (third.identity_key, third.enrolment) == (C, 3)
    assert list(await servers.reenrolled()) == [(SERVER, 3)]


async def test_a_revoked_server_is_back_with_another_machine(servers: ServerStore) -> None:
    """And out again when that one is revoked; a repeated fact brings nobody back."""
    revoked = ServerRevoked(server_id=SERVER, owner_id="acme", reason="stolen")
    assert not (await hears(servers, provisioned(A), revoked)).active
    assert (await hears(servers, reenrolled(B))).active
    assert not (await hears(servers, revoked, reenrolled(B))).active
    gone = ServerDeprovisioned(server_id=SERVER, owner_id="acme", reason="sold")
    assert not (await hears(servers, reenrolled(C), gone)).active


async def test_an_unlock_is_told_once(servers: ServerStore) -> None:
    """Not again on a repeated commit, nor when the ledger has told of it already."""
    await hears(servers, provisioned(A), ServerUnlocked(server_id=SERVER, incarnation=4))
    for incarnation in (4, 3, 5, 5):
        await servers.tell_unlocked(SERVER, incarnation)
    assert await servers.waiting() == 1
    known = await servers.server(SERVER)
    assert known is not None
    assert known.incarnation == 5
    assert await servers.circumstances(known, now=7) == Circumstances(7, 1, 5, 0)
    await servers.open_recovery(99)
    assert (await servers.circumstances(known, now=7)).recover_until == 99


async def test_keys_given_up_are_remembered_until_another_machine_comes(
    servers: ServerStore,
) -> None:
    """A locked server commits nothing; what it tells of its pins is held against its last one."""
    kept, left = "A" * 20, "B" * 20
    state = RatchetAdvanced(server_id=SERVER, committed=4, owner_pins=(kept, left))
    await servers.remember(state)
    fact = PinsChanged(server_id=SERVER, incarnation=4, n=9, pinned=(kept,))
    known = await hears(servers, provisioned(A), fact)
    told = (await servers.circumstances(known, now=7)).told_pins
    assert told == ToldPins(4, frozenset({kept}), frozenset({left}))
    again = await hears(servers, reenrolled(B))
    assert (await servers.circumstances(again, now=7)).told_pins is None
    nobody = await hears(servers, fact.model_copy(update={"pinned": ()}))
    told = (await servers.circumstances(nobody, now=7)).told_pins
    assert told == ToldPins(4, frozenset(), frozenset({kept, left}))


async def test_a_later_machine_gets_a_key_of_its_own(tmp_path: Path) -> None:
    """The earlier one's is destroyed, at once; reading an old ledger anew destroys nothing."""
    keys = await KeyStore.open(tmp_path)
    try:
        first = (await keys.unlock_key(SERVER)).seed
        await keys.renew(SERVER, 1)
        assert (await keys.unlock_key(SERVER)).seed == first
        await keys.renew(SERVER, 2)
        assert first not in written_in(tmp_path)
        second = (await keys.unlock_key(SERVER, 2)).seed
        assert second != first
        await keys.renew(SERVER, 1)
        assert (await keys.unlock_key(SERVER, 1)).seed == second
        await keys.renew("acme-2", 2)
        await keys.shred(SERVER, 2)
        await keys.renew(SERVER, 3)
        assert (await keys.unlock_key(SERVER, 3)).seed not in {first, second}
    finally:
        await keys.close()


async def test_a_destroyed_seed_leaves_the_log_although_its_destroyer_was_killed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Killed after the commit, before the log was cut: the row is right, the next start cuts it."""
    keys = await KeyStore.open(tmp_path)
    after = await KeyStore.open(tmp_path)  # also keeps the log from going with the last connection
    try:
        seed = (await keys.unlock_key(SERVER)).seed

        async def killed(_: KeyStore) -> None:
            raise KeyboardInterrupt

        with monkeypatch.context() as patch, contextlib.suppress(KeyboardInterrupt):
            patch.setattr(KeyStore, "empty_log", killed)
            await keys.renew(SERVER, 2)
        assert seed in written_in(tmp_path)
        await after.renew(SERVER, 2)
        await after.empty_log()
        assert seed not in written_in(tmp_path)
    finally:
        await keys.close()
        await after.close()


async def test_a_log_in_use_is_emptied_once_it_is_free(tmp_path: Path) -> None:
    """While somebody reads, it is said; the seed is gone when that one is done."""
    unlock = await open_database(tmp_path / UNLOCK_FILE, _UNLOCK_SCHEMA)
    await unlock.execute("PRAGMA busy_timeout=10")
    keys = KeyStore(unlock, await open_database(tmp_path / EPOCH_FILE, _EPOCH_SCHEMA))
    reader = sqlite3.connect(tmp_path / UNLOCK_FILE, isolation_level=None)
    try:
        seed = (await keys.unlock_key(SERVER)).seed
        reader.execute("BEGIN")
        reader.execute("SELECT count(*) FROM unlock_keys").fetchone()
        with pytest.raises(StorageBusy):
            await keys.renew(SERVER, 2)
        reader.execute("COMMIT")
        await keys.empty_log()
        assert seed not in written_in(tmp_path)
    finally:
        reader.close()
        await keys.close()


async def test_deleted_seeds_are_overwritten(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also by a build of SQLite that does not do so unless it is asked."""
    real = aiosqlite.connect

    async def careless(path: Path, *, isolation_level: None) -> aiosqlite.Connection:
        database = await real(path, isolation_level=isolation_level)
        await database.execute("PRAGMA secure_delete=OFF")
        return database

    monkeypatch.setattr(aiosqlite, "connect", careless)
    keys = await KeyStore.open(tmp_path)
    try:
        seed = (await keys.unlock_key(SERVER)).seed
        await keys.shred(SERVER)
        parts = [seed[at : at + 8] for at in range(0, len(seed), 8)]  # the row is reused in part
        assert not any(part in written_in(tmp_path) for part in parts)
    finally:
        await keys.close()


async def test_a_destroyed_key_is_not_made_anew_by_renewing(tmp_path: Path) -> None:
    """A key file from an older back-up must not get a new key before somebody has looked."""
    keys = await KeyStore.open(tmp_path)
    try:
        assert await keys.find(SERVER) is None
        first = await keys.unlock_key(SERVER)
        await keys.renew(SERVER, 2)
        assert await keys.find(SERVER, 2) is None
        with pytest.raises(Refused, match="unlock_key_shredded"):
            await keys.find(SERVER, 1)
        assert (await keys.unlock_key(SERVER, 2)).seed != first.seed
    finally:
        await keys.close()


async def test_who_waits_for_news_takes_no_room(servers: ServerStore) -> None:
    """Else as many hostile servers as there are places would stop everybody's start."""
    known = await hears(servers, provisioned(A))
    room = asyncio.Semaphore(1)
    roster = Roster(servers, room)
    await room.acquire()
    doubted = asyncio.create_task(roster.newer(known))
    # Another's, who comes in while that one waits.
    await asyncio.wait_for(room.acquire(), 10)
    assert not doubted.done()
    await hears(servers, reenrolled(B))
    await roster.heard_news()
    room.release()
    assert (await doubted).identity_key == B
    assert room.locked()


async def test_refused_copies_are_known_for_a_day(servers: ServerStore) -> None:
    """Each until it came in; whoever invents more than are kept hides none and adds none."""
    await servers.note_copy(SERVER, "A" * 20, now=0)
    await servers.note_copy(SERVER, "B" * 20, now=10)
    await servers.note_copy("acme-2", "C" * 20, now=10)
    day = 24 * 3600
    assert await servers.refused_copies(SERVER, now=day - 1) == frozenset({"A" * 20, "B" * 20})
    await servers.note_copy(SERVER, "A" * 20, now=20)
    assert await servers.refused_copies(SERVER, now=day + 15) == frozenset({"A" * 20})
    await servers.forget_copy(SERVER, "A" * 20)
    assert await servers.refused_copies(SERVER, now=15) == frozenset({"B" * 20})
    for number in range(40):
        await servers.note_copy(SERVER, f"code-{number}", now=20)
    assert await servers.refused_copies(SERVER, now=20) is None
    await servers.note_copy(SERVER, "D" * 20, now=day + 20)
    assert await servers.refused_copies(SERVER, now=day + 20) == frozenset({"D" * 20})
    assert await servers.refused_copies("acme-2", now=20) == frozenset({"C" * 20})
