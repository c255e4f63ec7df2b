"""Machines that enrol, by hand, at a provisioning handler at work."""

import asyncio
import contextlib
from collections.abc import AsyncIterator
from dataclasses import dataclass

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from pydantic import SecretStr

from bus_schemas.event import Event
from bus_schemas.flows import Role
from bus_schemas.join_token import JoinToken
from bus_schemas.nkeys import KeyType, public_nkey, seed_nkey
from bus_schemas.requests import ENROL, TOKEN, EnrolReply, EnrolRequest, RefusedReply
from bus_schemas.secret_fields import reveal_json
from bus_schemas.streams import LEDGER
from bus_schemas.transport.connection import Bus
from bus_schemas.transport.credentials import Credentials
from platform_handlers.provisioning.join_token import issue_join_token, renew_join_token
from platform_handlers.provisioning.registry import FILE_NAME, Registry
from platform_handlers.provisioning.service import run_provisioning
from tests.conftest import Platform
from tests.following import events_of, messages_once
from vps_runtime.connection.rules import read_claims


@dataclass
class Machine:
    """A new server's own keys."""

    nkey: Ed25519PrivateKey
    identity: Ed25519PrivateKey

    @classmethod
    def new(cls) -> "Machine":
        """Return fresh keys."""
        return cls(Ed25519PrivateKey.generate(), Ed25519PrivateKey.generate())

    @property
    def public_nkey(self) -> str:
        """The public half it signs in with."""
        return public_nkey(self.nkey, KeyType.USER)

    def request(self, token: JoinToken, *, secret: str | None = None) -> bytes:
        """Return the enrolment request."""
        request = EnrolRequest(
            server_id=token.server_id,
            secret=SecretStr(secret) if secret else token.secret,
            nkey=self.public_nkey,
            identity_key=self.identity.public_key().public_bytes_raw(),
        )
        return reveal_json(request)

    def credentials(self, jwt: str) -> Credentials:
        """Return what it signs in with."""
        return Credentials(jwt, seed_nkey(self.nkey, KeyType.USER))


@dataclass
class Running:
    """The provisioning handler at work."""

    platform: Platform
    registry: Registry

    async def token(self, owner: str = "acme", server: str = "acme-1") -> JoinToken:
        """Issue a join token."""
        if owner not in await self.registry.owners():
            await self.registry.add_owner(owner)
        return await issue_join_token(
            self.platform.installation,
            self.registry,
            self.platform.server.target.url,
            (owner, server),
        )

    async def replacement(self, server: str = "acme-1") -> JoinToken:
        """Issue a join token for the machine that is to take a server's place."""
        installation, url = self.platform.installation, self.platform.server.target.url
        return await renew_join_token(installation, self.registry, url, server)

    async def ask(self, token: JoinToken, body: bytes) -> EnrolReply | RefusedReply:
        """Send an enrolment the way a new machine does."""
        credentials = Credentials(token.jwt, token.seed.get_secret_value())
        name = read_claims(token.jwt).name
        bus = await Bus(self.platform.server.target, name, lambda: credentials).open()
        try:
            reply = await bus.request(ENROL.fill({"joiner": name}), body, wait=5)
        finally:
            await bus.close()
        if b'"refused"' in reply.data:
            return RefusedReply.model_validate_json(reply.data)
        return EnrolReply.model_validate_json(reply.data)

    async def join(self, machine: Machine, server: str = "acme-1") -> EnrolReply:
        """Enrol *machine*."""
        token = await self.token(server=server)
        reply = await self.ask(token, machine.request(token))
        assert isinstance(reply, EnrolReply)
        return reply

    async def open(self, machine: Machine, jwt: str, server: str = "acme-1") -> Bus:
        """Connect *machine* with a token."""
        credentials = machine.credentials(jwt)
        return await Bus(self.platform.server.target, server, lambda: credentials).open()

    async def ledger(self, count: int) -> list[Event]:
        """Return the ledger's facts once there are *count*."""
        ops = await self.platform.bus(Role.OPS)
        return events_of(await messages_once(ops, LEDGER, lambda found: len(found) >= count))


@contextlib.asynccontextmanager
async def provisioning(platform: Platform) -> AsyncIterator[Running]:
    """Run the provisioning handler on a platform."""
    installation = platform.installation
    async with await Registry.open(installation.platform / FILE_NAME) as registry:
        ready = asyncio.Event()
        task = asyncio.create_task(
            run_provisioning(installation, platform.server.target, registry, ready.set)
        )
        try:
            await asyncio.wait_for(ready.wait(), 10)
            yield Running(platform, registry)
        finally:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)


async def renew(bus: Bus, server: str = "acme-1") -> bytes:
    """Ask for new tokens."""
    return (await bus.request(TOKEN.fill({"server_id": server}), b"{}", wait=5)).data
