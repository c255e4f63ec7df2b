"""Whoever has a server's nkey and token, and not its vault, tells the highest numbers there are."""

import asyncio
from datetime import UTC, datetime, timedelta

import pytest
from click.testing import CliRunner

from bus_schemas.codec import encode
from bus_schemas.event import ServerFact
from bus_schemas.events import OrderAnswered, SealingKeyPublished
from bus_schemas.flows import Role
from bus_schemas.intake import TOO_EARLY, FactDeclined
from bus_schemas.keys import sign_sealing_key
from bus_schemas.orders import Addressee
from bus_schemas.transport.connection import Bus
from bus_schemas.transport.fresh import fresh, new_id
from platform_handlers.authority.role_bus import role_bus
from platform_handlers.config.orders.lock import LockReceipt, lock_server
from platform_handlers.config.service import ConfigHandler
from platform_handlers.config.store import FILE_NAME, ConfigStore
from platform_handlers.process import server_cli
from platform_handlers.provisioning.join_token import renew_join_token
from platform_handlers.provisioning.turn_away import turn_away
from platform_handlers.settings import Settings
from tests.integration.vps.conftest import Fleet
from vps_runtime.connection.tokens import TokenStore
from vps_runtime.enrolment.join import join
from vps_runtime.state import StateFolder

SERVER = "acme-1"
LAST = 2**53 - 1
INVENTED_KEY = "k-" + "0" * 16


def inventions(state: StateFolder, incarnation: int = LAST) -> list[ServerFact]:
    """Return an order's answer and a sealing key, as high as numbers go."""
    stamp = {"server_id": SERVER, "incarnation": incarnation}
    order = {"order_id": new_id(), "order_n": 1, "kind": "lock"}
    outcome = {"outcome": "refused", "reason": "n_jump", "last_n": LAST}
    key = sign_sealing_key(
        state.read_identity().key,
        server_id=SERVER,
        key_id=INVENTED_KEY,
        public_key=bytes([9]).ljust(32, b"\0"),
        not_after=datetime.now(UTC).replace(microsecond=0) + timedelta(days=20),
    )
    return [
        OrderAnswered.model_validate({**stamp, "n": LAST, **order, **outcome}),
        SealingKeyPublished.model_validate({**stamp, "n": LAST, "signed_key": key}),
    ]


async def told(state: StateFolder, fleet: Fleet, facts: list[ServerFact]) -> list[bytes]:
    """Tell *facts* as the server of *state*; return the answers."""
    bus = Bus(fleet.platform.server.target, SERVER, TokenStore(state).working)
    await bus.open()
    answers = [await bus.request(f.subject, encode(fresh(f)), wait=5) for f in facts]
    await bus.close()
    return [answer.data for answer in answers]


async def test_a_revocation_does_not_hang_on_the_lock(
    fleet: Fleet, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever went wrong with it is said, and the server is out."""

    async def stumble(*_: object, **__: object) -> LockReceipt:
        raise ValueError(LAST)

    monkeypatch.setattr(server_cli, "lock_server", stumble)
    await fleet.enrol(SERVER)
    settings = Settings(fleet.platform.installation.root, fleet.platform.server.target.url)
    words = ["revoke", SERVER]
    done = await asyncio.to_thread(CliRunner().invoke, server_cli.server, words, obj=settings)
    assert done.exit_code == 0, done.output
    assert "acme-1 was not ordered to lock itself: ValueError" in done.output
    known = await fleet.registry.server(SERVER)
    assert known is not None
    assert known.state == "revoked"


async def test_a_server_is_locked_whatever_number_it_claims(fleet: Fleet) -> None:
    """The last number there is, as a fact of a real start: an order is signed all the same.

    The next machine in its place is heard from its first fact on.
    """
    fleet.platform.starts = 0
    state = await fleet.enrol(SERVER)
    installation, target = fleet.platform.installation, fleet.platform.server.target
    for raw in await told(state, fleet, inventions(state)):
        assert FactDeclined.model_validate_json(raw).error.err_code == TOO_EARLY
    agent = await fleet.start(state)
    await agent.ready()
    first = await fleet.sealing_key(SERVER)
    await agent.kill()
    for raw in await told(state, fleet, inventions(state, 1)):
        assert b"seq" in raw
    store = await ConfigStore.open(installation.platform / FILE_NAME)
    bus = role_bus(installation, target, Role.CONFIG).open_in_background()
    handler = ConfigHandler(store, bus, fleet.registry, installation.orders_public_key())
    running = asyncio.create_task(handler.run())
    await handler.reader.caught_up()
    to = Addressee("acme", SERVER, state.read_identity().public_key)
    assert (await lock_server(installation, target, to, wait_seconds=0.1)).state == "silent"

    token = await renew_join_token(installation, fleet.registry, target.url, SERVER)
    await turn_away(installation, target, fleet.registry, SERVER)
    new = StateFolder(fleet.folder / "replacement")
    await join(new, token, fleet.fingerprint)
    await (await fleet.start(new)).ready()
    async with asyncio.timeout(20):
        while True:
            key = await store.sealing_key(SERVER)
            if key is not None and key.key_id not in {first.key_id, INVENTED_KEY}:
                break
            await asyncio.sleep(0.02)
    to = Addressee("acme", SERVER, new.read_identity().public_key)
    assert (await lock_server(installation, target, to)).locked
    running.cancel()
    await asyncio.gather(running, return_exceptions=True)
    await handler.close()
