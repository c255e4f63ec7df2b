"""What the evaluator remembers of the ledger: enrolments counted once, facts told once."""

from collections.abc import AsyncIterator
from datetime import UTC, datetime
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from bus_schemas.event import Event
from bus_schemas.events import (
    ServerDeprovisioned,
    ServerProvisioned,
    ServerReenrolled,
    ServerRevoked,
    ServerUnlocked,
)
from bus_schemas.nkeys import KeyType, public_nkey
from bus_schemas.transport.fresh import fresh
from bus_schemas.transport.ledger import Batch, Fact, Position
from platform_handlers.evaluator.keys import KeyStore
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
