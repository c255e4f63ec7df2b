"""The server stays signed in: renewal in time, and the door when it was too late."""

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest

from bus_schemas.errors import Refused
from bus_schemas.requests import Tokens
from bus_schemas.transport.connection import Bus
from bus_schemas.transport.target import BusDenied, BusUnavailable
from platform_handlers.authority.claims import UserPlan, mint_user
from platform_handlers.provisioning.records import ServerState
from platform_handlers.provisioning.tokens import TokenMint
from tests.integration.vps.conftest import Fleet
from vps_runtime.connection import link as link_module
from vps_runtime.connection.issuer import ask_for_tokens
from vps_runtime.connection.link import Link, by_the_door
from vps_runtime.connection.rules import read_claims
from vps_runtime.connection.tokens import TokenStore
from vps_runtime.state import NotEnrolled, StateFolder

SERVER = "acme-1"


def shorten(fleet: Fleet, state: StateFolder, *, issued: int, ends: int) -> None:
    """Give *state* a working token issued and ending so many seconds from now."""
    old = Tokens.model_validate_json(state.tokens.read_bytes())
    mint = TokenMint.of(fleet.platform.installation)
    now = int(time.time())
    nkey = read_claims(old.working).nkey
    user = UserPlan(SERVER, nkey, mint.account, now + issued, expires_at=now + ends)
    new = old.model_copy(update={"working": mint_user(mint.server, user)})
    state.tokens.write_text(new.model_dump_json())


def life_left(state: StateFolder) -> float:
    """Return the seconds that the working token on the disk is still good for."""
    tokens = Tokens.model_validate_json(state.tokens.read_bytes())
    return (read_claims(tokens.working).expires_at or 0) - time.time()


@asynccontextmanager
async def kept(state: StateFolder) -> AsyncIterator[Link]:
    """Yield an open link whose tokens are kept fresh."""
    link = Link(state.target(), SERVER, TokenStore(state))
    await link.open()
    keeping = asyncio.create_task(link.keep())
    try:
        yield link
    finally:
        keeping.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await keeping
        await link.close()


async def until_long(state: StateFolder) -> None:
    """Wait until the disk holds a token of an hour."""
    async with asyncio.timeout(20):
        while True:
            if life_left(state) > 3000:
                return
            await asyncio.sleep(0.05)


async def test_a_token_is_renewed_before_it_ends(fleet: Fleet) -> None:
    """Past 80 % of its life: a new one is stored, and the same link goes on with it."""
    state = await fleet.enrol(SERVER)
    shorten(fleet, state, issued=-100, ends=20)
    async with kept(state) as link:
        await until_long(state)
        assert isinstance(await ask_for_tokens(link.bus, SERVER), Tokens)


async def test_a_token_that_ended_is_replaced_by_the_door(
    fleet: Fleet, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The issuer was away while the token ended: the link comes back without a person."""
    state = await fleet.enrol(SERVER)
    shorten(fleet, state, issued=-30, ends=8)
    gone = asyncio.Event()

    async def away(bus: Bus, server_id: str) -> Tokens:
        if not gone.is_set():
            raise BusUnavailable("the issuer is away")
        return await ask_for_tokens(bus, server_id)

    monkeypatch.setattr(link_module, "ask_for_tokens", away)
    async with kept(state) as link:
        async with asyncio.timeout(20):
            await link.bus.client()
            while True:
                if not link.bus.connected and life_left(state) < 0:
                    break
                await asyncio.sleep(0.05)
        gone.set()
        await until_long(state)
        assert isinstance(await ask_for_tokens(link.bus, SERVER), Tokens)


async def test_a_revoked_server_does_not_get_in(fleet: Fleet) -> None:
    """Neither the door nor the issuer lets a revoked server in, and both say so."""
    state = await fleet.enrol(SERVER)
    store = TokenStore(state)
    await by_the_door(state.target(), SERVER, store)
    await fleet.registry.set_state(SERVER, ServerState.REVOKED, "stolen")
    with pytest.raises((Refused, BusDenied), match="revoked"):
        await by_the_door(state.target(), SERVER, store)


async def test_foreign_tokens_never_replace_our_own(fleet: Fleet) -> None:
    """Tokens for another key would lock the server out; damage is said to be damage."""
    state, other = await fleet.enrol(SERVER), await fleet.enrol("acme-2")
    store = TokenStore(state)
    before = store.working()
    with pytest.raises(Refused, match="wrong_token"):
        store.replace(Tokens.model_validate_json(other.tokens.read_bytes()))
    assert TokenStore(state).working() == store.working() == before
    assert before.seed not in repr(before)
    state.nkey_seed.write_text("x")
    with pytest.raises(NotEnrolled):
        TokenStore(state)
