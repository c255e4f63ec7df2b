"""One nats-server for each file, exactly as production configures it, and people to try it."""

import asyncio
import json
import time
from collections.abc import Iterator
from dataclasses import dataclass, field

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from bus_schemas.flows import Account, Role
from bus_schemas.nkeys import KeyType, public_nkey, seed_nkey
from bus_schemas.streams import BANNERS
from bus_schemas.transport.credentials import Credentials
from platform_handlers.authority import claims
from platform_handlers.authority.accounts import user_credentials
from platform_handlers.authority.initialise import InitPlan, initialise
from platform_handlers.authority.installation import Installation
from platform_handlers.authority.nats_process import NatsServer, launch
from platform_handlers.authority.role_bus import role_bus
from platform_handlers.authority.server_conf import BusAddress
from platform_handlers.authority.streams import make_streams
from platform_handlers.subscriber.durable import Subscriber, durable_configuration
from tests.integration.permissions.oracle import Person
from tests.integration.permissions.wire import Sent, Wire


@dataclass
class InUse:
    """A platform's bus with its streams and two owners' durables."""

    installation: Installation
    server: NatsServer
    _open: list[Wire] = field(default_factory=list)

    def wire(self, person: Person) -> Wire:
        """Connect as *person*, with exactly the token that its role gets."""
        tags = (f"owner:{person.owner}",) if person.owner else ()
        return self.sign_in(
            user_credentials(
                self.installation, person.role, person.name, now=int(time.time()), tags=tags
            ),
            person.name,
        )

    def unbound(self, account: Account, name: str) -> Wire:
        """Connect as a user of *account* whom no template holds back: only its imports do."""
        key = Ed25519PrivateKey.generate()
        user = claims.UserPlan(
            name,
            public_nkey(key, KeyType.USER),
            self.installation.account_id(account),
            int(time.time()),
        )
        jwt = claims.mint_system_user(self.installation.account_key(account), user)
        return self.sign_in(Credentials(jwt, seed_nkey(key, KeyType.USER)), name)

    def sign_in(self, credentials: Credentials, name: str) -> Wire:
        """Connect with *credentials*. Raises SignInRefusedError."""
        wire = Wire.open(self.server.target, credentials, name)
        self._open.append(wire)
        return wire

    def close(self) -> None:
        """Hang up, then stop the server."""
        for wire in self._open:
            wire.close()
        self.server.stop()


@pytest.fixture(scope="module")
def in_use(tmp_path_factory: pytest.TempPathFactory) -> Iterator[InUse]:
    """A running bus; the tests of a file share it."""
    folder = tmp_path_factory.mktemp("permissions")
    plan = InitPlan(BusAddress("127.0.0.1", -1))
    installation = initialise(folder / "byok", plan, now=int(time.time()))
    running = InUse(installation, launch(installation, log=folder / "nats-server.log"))
    try:
        asyncio.run(_streams(running))
        _durables(running)
        yield running
    finally:
        running.close()


async def _streams(running: InUse) -> None:
    setup = await role_bus(running.installation, running.server.target, Role.SETUP).open()
    try:
        await make_streams(setup)
    finally:
        await setup.close()


def _durables(running: InUse) -> None:
    setup = running.wire(Person(Role.SETUP, "setup"))
    for name, owner in (("acme-sub", "acme"), ("globex-sub", "globex"), ("watch-all", None)):
        config = durable_configuration(Subscriber(name, owner))
        body = json.dumps({"stream_name": BANNERS.name, "config": config}).encode()
        subject = f"$JS.API.CONSUMER.CREATE.{BANNERS.name}.{name}"
        [answer] = setup.answers(Sent(subject, body))
        assert "error" not in answer.answer, answer
