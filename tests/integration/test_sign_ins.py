"""Owners' tokens, links and sessions in a registry with a clock of its own."""

from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from bus_schemas.errors import Refused
from bus_schemas.nkeys import KeyType, public_nkey
from bus_schemas.transport.outbox import depth
from platform_handlers.provisioning.claims_log import ClaimsLog
from platform_handlers.provisioning.enrolment import Enrolment, Enrolments
from platform_handlers.provisioning.records import (
    LINK_SECONDS,
    SESSION_SECONDS,
    ServerState,
    joiner_name,
    secret_hash,
)
from platform_handlers.provisioning.registry import Registry
from platform_handlers.provisioning.sign_ins import SignIns


class Clock:
    """A clock that the test sets."""

    at = 1_800_000_000.0

    def __call__(self) -> float:
        """Return Unix seconds."""
        return self.at


@pytest.fixture
def clock() -> Clock:
    """The registry's clock."""
    return Clock()


@pytest.fixture
async def registry(tmp_path: Path, clock: Clock) -> AsyncIterator[Registry]:
    """A registry with owner acme."""
    async with await Registry.open(tmp_path / "registry.db", clock=clock) as opened:
        await opened.add_owner("acme")
        yield opened


async def test_a_token_tells_its_owner(registry: Registry) -> None:
    """One token an owner; nobody else's word counts."""
    token = await registry.add_owner("globex")
    assert await registry.owner_of_token(token) == "globex"
    assert await registry.owner_of_token(token + "x") is None
    assert await registry.owners() == ("acme", "globex")
    with pytest.raises(Refused, match="owner_exists"):
        await registry.add_owner("globex")


async def test_a_link_opens_one_session(registry: Registry) -> None:
    """The second use of a link is refused, the session lives on until it is ended."""
    signs = SignIns(registry)
    link = await signs.make_link("acme")
    session = await signs.open_session(link)
    assert session is not None
    assert await signs.open_session(link) is None
    assert await signs.owner_of_session(session) == "acme"
    await signs.end_session(session)
    assert await signs.owner_of_session(session) is None
    with pytest.raises(Refused, match="unknown_owner"):
        await signs.make_link("nobody")


async def test_links_and_sessions_end(registry: Registry, clock: Clock) -> None:
    """A link after 15 minutes, a session after 12 hours."""
    signs = SignIns(registry)
    late, early = await signs.make_link("acme"), await signs.make_link("acme")
    session = await signs.redeem_link(early)
    assert session is not None
    clock.at += LINK_SECONDS
    assert await signs.redeem_link(late) is None
    clock.at += SESSION_SECONDS - LINK_SECONDS - 1
    assert await signs.session(session.secret) == session
    clock.at += 1
    assert await signs.session(session.secret) is None


async def test_a_new_join_token_replaces_an_unused_one(registry: Registry, clock: Clock) -> None:
    """Until it has enrolled a server may be told anew; the old secret is void then."""
    nkey = public_nkey(Ed25519PrivateKey.generate(), KeyType.USER)
    old = await registry.add_server("acme", "acme-1")
    new = await registry.add_server("acme", "acme-1")
    wish = Enrolment("acme-1", old, nkey, b"\x01" * 32, "192.0.2.1", "join-x")
    assert old not in repr(wish)
    with pytest.raises(Refused, match="bad_join_secret"):
        await Enrolments(registry).enrol(wish)
    with pytest.raises(Refused, match="bad_nkey"):
        await Enrolments(registry).enrol(replace(wish, secret=new, nkey="U" + "A" * 55))
    assert new != old
    assert [record.state for record in await registry.servers("acme")] == [ServerState.PENDING]
    assert await registry.servers("globex") == []
    with pytest.raises(Refused, match="unknown_owner"):
        await registry.add_server("nobody", "n-1")
    with pytest.raises(Refused, match="unknown_server"):
        await registry.set_state("acme-9", ServerState.REVOKED, "stolen")


async def test_keys_belong_to_one_server(registry: Registry) -> None:
    """A copied machine cannot enrol as another server, and the attempt leaves a trace."""
    nkey = public_nkey(Ed25519PrivateKey.generate(), KeyType.USER)
    for server_id in ("acme-1", "acme-2"):
        secret = await registry.add_server("acme", server_id)
        joiner = joiner_name(secret_hash(secret))
        wish = Enrolment(server_id, secret, nkey, b"\x01" * 32, "192.0.2.1", joiner)
        if server_id == "acme-1":
            assert (await Enrolments(registry).enrol(wish)).active
    with pytest.raises(Refused, match=r"key_in_use: .*acme-2"):
        await Enrolments(registry).enrol(wish)
    second = await registry.require_server("acme-2")
    assert second.state is ServerState.PENDING
    assert second.join.tried_from == "192.0.2.1"


async def test_account_claims_have_strictly_growing_times(registry: Registry) -> None:
    """Two pushes in one second, or after a newer JWT on disk, must not share an `iat`."""
    claims = ClaimsLog(registry)
    assert await claims.next_order(newest_known=0) is None
    await registry.add_server("acme", "acme-1")
    await registry.set_state("acme-1", ServerState.REVOKED, "stolen")
    first = await claims.next_order(newest_known=registry.now() + 50)
    second = await claims.next_order(newest_known=0)
    assert first is not None
    assert second is not None
    assert first.issued_at == registry.now() + 51
    assert second.issued_at == first.issued_at + 1
    await claims.pushed(second)
    assert await claims.next_order(newest_known=0) is None
    assert await registry.owner_of_active_server("acme-1") is None
    assert await depth(registry.database) == 0  # nobody ever heard of that server
