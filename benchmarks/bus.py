"""A real bus with a full ledger, for the figures that need one."""

import asyncio
import contextlib
import tempfile
import time
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from bus_schemas.codec import encode
from bus_schemas.event import Event
from bus_schemas.events import FingerprintObserved, ServerProvisioned
from bus_schemas.fields import Basis, Strength
from bus_schemas.flows import Account, Role
from bus_schemas.intake import admitted
from bus_schemas.nkeys import KeyType, public_nkey, seed_nkey
from bus_schemas.transport.connection import Bus
from bus_schemas.transport.credentials import Credentials
from bus_schemas.transport.fresh import fresh
from platform_handlers.authority.claims import UserPlan, mint_system_user
from platform_handlers.authority.initialise import InitPlan, initialise
from platform_handlers.authority.installation import Installation
from platform_handlers.authority.nats_process import NatsServer, start_nats_server
from platform_handlers.authority.role_bus import role_bus
from platform_handlers.authority.server_conf import BusAddress
from platform_handlers.authority.streams import make_streams

SERVERS = 2_000
FACTS_PER_SERVER = 10
FACTS = SERVERS * (1 + FACTS_PER_SERVER)
_IN_FLIGHT = 500
_NKEY = "U" + "A" * 55


@dataclass
class Bench:
    """A folder, a running nats-server, and a way to connect with every permission."""

    folder: Path
    installation: Installation
    server: NatsServer

    async def everything(self) -> Bus:
        """Connect to CORE with every permission: baselines need consumers, which no role has."""
        key = Ed25519PrivateKey.generate()
        core = Account.CORE.value
        account = self.installation.account_id(core)
        user = UserPlan("bench", public_nkey(key, KeyType.USER), account, int(time.time()))
        jwt = mint_system_user(self.installation.account_key(core), user)
        credentials = Credentials(jwt, seed_nkey(key, KeyType.USER))
        return await Bus(self.server.target, "bench", lambda: credentials).open()


@contextlib.asynccontextmanager
async def running_bus() -> AsyncIterator[Bench]:
    """Start nats-server on our own configuration, with empty streams."""
    with tempfile.TemporaryDirectory(prefix="byok-bench-") as name:
        folder = Path(name)
        plan = InitPlan(BusAddress("127.0.0.1", -1))
        installation = initialise(folder / "platform", plan, now=int(time.time()))
        server = await start_nats_server(installation, log=folder / "nats-server.log")
        try:
            setup = await role_bus(installation, server.target, Role.SETUP).open()
            await make_streams(setup)
            await setup.close()
            yield Bench(folder, installation, server)
        finally:
            server.stop()


async def fill_ledger(bus: Bus) -> None:
    """Store the facts of a fleet in which every tenth credential is shared by two servers."""
    client = await bus.client()
    batch = []
    for event in fleet():
        envelope = fresh(event)
        headers = {"Nats-Msg-Id": envelope.id}
        subject = event.subject if isinstance(event, ServerProvisioned) else admitted(event.subject)
        batch.append(client.request(subject, encode(envelope), timeout=60, headers=headers))
        if len(batch) == _IN_FLIGHT:
            await asyncio.gather(*batch)
            batch = []
    await asyncio.gather(*batch)


def fleet() -> list[Event]:
    """Return the facts, in an order in which a fleet might tell them."""
    facts: list[Event] = [
        ServerProvisioned(
            server_id=f"s-{number}",
            owner_id=f"o-{number % 500}",
            nkey=_NKEY,
            identity_key=bytes(32),
        )
        for number in range(SERVERS)
    ]
    for slot in range(FACTS_PER_SERVER):
        for number in range(SERVERS):
            holder = number - 1 if number % 10 == 1 else number
            facts.append(
                FingerprintObserved(
                    server_id=f"s-{number}",
                    incarnation=1,
                    n=slot + 1,
                    slot_id=f"slot-{slot}",
                    revision=1,
                    provider="anthropic",
                    basis=Basis.API_KEY,
                    strength=Strength.SECRET,
                    epoch="e1",
                    tag=f"{holder:032x}{slot:032x}",
                )
            )
    return facts
