"""One server asks as fast as it can; the others start, renew and tell as if it were not there."""

import asyncio
import threading
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial

from structlog.testing import capture_logs

from bus_schemas.evaluation import ChallengeRequest, seal_request
from bus_schemas.events import FingerprintRenewed
from bus_schemas.flows import Role
from bus_schemas.requests import EVALUATE, TOKEN
from bus_schemas.transport.fresh import fresh
from bus_schemas.transport.jetstream import store
from platform_handlers.authority.accounts import user_credentials
from tests.integration.permissions.wire import Sent, Wire
from tests.integration.vps.conftest import Fleet
from tests.integration.vps.starts import start
from vps_runtime.connection.link import by_the_door
from vps_runtime.connection.tokens import TokenStore
from vps_runtime.state import StateFolder

EVIL, HONEST = "evil-1", "acme-1"
AT_ONCE = 30
PAUSE = 0.01
"""Three thousand of each request a second, each of which takes a millisecond if it is let in."""
LEAST = 10_000
SECONDS = 60.0
"""More than enough, on any machine, for the honest server's few rounds: nothing hangs."""


class Flood:
    """A thread that says the same again and again, faster than anybody could answer."""

    def __init__(self, wire: Wire, *messages: Sent) -> None:
        self._wire = wire
        self._protocol = b"".join(message.protocol() for message in messages) * AT_ONCE
        self._size = len(messages) * AT_ONCE
        self._end = threading.Event()
        self.sent = 0

    def run(self) -> None:
        """Flood until `stop`."""
        while not self._end.wait(PAUSE):
            self._wire.say(self._protocol)
            self._wire.barrier()  # it goes on only as fast as nats-server does
            self.sent += self._size

    def stop(self) -> None:
        """End it."""
        self._end.set()


@asynccontextmanager
async def flooded(fleet: Fleet, state: StateFolder) -> AsyncIterator[Flood]:
    """Have *state*'s server flood the evaluator, the issuer and the intake, with good requests."""
    installation, identity = fleet.platform.installation, state.read_identity()
    sealed = seal_request(
        ChallengeRequest(),
        server_id=EVIL,
        identity_key=identity.key,
        evaluator_public_key=state.read_evaluator().sealing_key,
    )
    fact = fresh(FingerprintRenewed(server_id=EVIL, incarnation=1, n=1, held=()))
    messages = (
        Sent(EVALUATE.fill({"server_id": EVIL}), sealed, reply=f"_INBOX.{EVIL}.x"),
        Sent(TOKEN.fill({"server_id": EVIL}), b"{}", reply=f"_INBOX.{EVIL}.x"),
        Sent(fact.data.subject, fact.model_dump_json().encode(), reply=f"_INBOX.{EVIL}.x"),
    )
    credentials = user_credentials(installation, Role.SERVER, EVIL, now=int(time.time()))
    open_ = partial(Wire.open, fleet.platform.server.target, credentials, EVIL)
    wire = await asyncio.to_thread(open_)
    flood = Flood(wire, *messages)
    running = asyncio.create_task(asyncio.to_thread(flood.run))
    try:
        yield flood
    finally:
        flood.stop()
        await running
        wire.close()


async def test_a_flood_from_one_server_keeps_no_other_from_starting(fleet: Fleet) -> None:
    """Unlock, renewal and facts of a neighbour are taken at once, however much the one asks."""
    hostile, honest = await fleet.enrol(EVIL), await fleet.enrol(HONEST)
    bus = await fleet.platform.bus(Role.SERVER, HONEST)
    with capture_logs() as logs:
        async with flooded(fleet, hostile) as flood, asyncio.timeout(SECONDS):
            n = 0
            while flood.sent < LEAST or n < 5:
                n += 1
                (await start(honest)).root_key.close()
                await by_the_door(honest.target(), HONEST, TokenStore(honest))
                fact = FingerprintRenewed(server_id=HONEST, incarnation=n, n=n, held=())
                await store(bus, fresh(fact))
    away = [line for line in logs if line["event"] in {"turned_away", "facts_turned_away"}]
    assert {line.get("server") or line["subject"] for line in away} == {
        EVIL,
        EVALUATE.fill({"server_id": EVIL}),
        TOKEN.fill({"server_id": EVIL}),
    }
