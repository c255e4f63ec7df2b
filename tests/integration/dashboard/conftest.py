"""The dashboard over real TLS, on a real bus and a real registry, with two owners."""

import asyncio
import contextlib
import ssl
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any

import httpx
import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey
from pydantic import BaseModel, SecretStr
from starlette.applications import Starlette

from bus_schemas.api import SealedSubmission, SlotStep, SlotView, sign_in_link
from bus_schemas.codec import decode
from bus_schemas.credential import CredentialPayload
from bus_schemas.event import Event, ServerFact
from bus_schemas.events import (
    BannerEvent,
    BannerRaised,
    DismissalRequested,
    DismissalUndone,
    SealingKeyPublished,
)
from bus_schemas.events.banner import BannerCode, Sharing
from bus_schemas.events.reported import RotationStep
from bus_schemas.fields import Basis, CredentialKind, at_utc
from bus_schemas.flows import Role
from bus_schemas.keys import server_fingerprint, sign_sealing_key
from bus_schemas.nkeys import KeyType, public_nkey
from bus_schemas.sealed import SealContext, seal
from bus_schemas.streams import LEDGER
from bus_schemas.transport.connection import Bus
from bus_schemas.transport.fresh import fresh, new_id
from bus_schemas.transport.jetstream import read_batch, store
from platform_handlers.authority.installation import Installation
from platform_handlers.banner.feed import Feed
from platform_handlers.config.service import ConfigHandler
from platform_handlers.dashboard.app import build_api, serve
from platform_handlers.dashboard.approvals import EvaluatorApprovals
from platform_handlers.dashboard.facts import LedgerFacts
from platform_handlers.dashboard.fleet import RegisteredFleet
from platform_handlers.dashboard.ports import Neighbours
from platform_handlers.provisioning.enrolment import Enrolment, Enrolments
from platform_handlers.provisioning.reenrolment import Reenrolments
from platform_handlers.provisioning.registry import FILE_NAME, Registry
from platform_handlers.provisioning.sign_ins import SignIns
from tests.conftest import Platform

START = datetime(2026, 11, 23, 9, 0, tzinfo=UTC)


class Server:
    """One server, as far as the platform can tell: it announces and reports on the bus."""

    def __init__(self, server_id: str, owner_id: str, bus: Bus) -> None:
        self.server_id = server_id
        self.owner_id = owner_id
        self.identity = Ed25519PrivateKey.generate()
        self.sealing_key = X25519PrivateKey.generate()
        self.bus = bus
        self.n = 0

    @property
    def fingerprint(self) -> str:
        """What its console shows."""
        return server_fingerprint(self.server_id, self.identity.public_key().public_bytes_raw())

    async def say(self, kind: type[ServerFact], /, **fields: Any) -> None:  # noqa: ANN401 (as the fact has them)
        """Store a fact of this server's in the ledger."""
        self.n += 1
        fact = kind(server_id=self.server_id, incarnation=1, n=self.n, **fields)
        await store(self.bus, fresh(fact))

    async def announce(self) -> None:
        """Publish the sealing key."""
        key = sign_sealing_key(
            self.identity,
            server_id=self.server_id,
            key_id="k1",
            public_key=self.sealing_key.public_key().public_bytes_raw(),
            not_after=at_utc(time.time()) + timedelta(days=30),
        )
        await self.say(SealingKeyPublished, signed_key=key)

    async def step(self, kind: type[RotationStep], slot: SlotView, **more: Any) -> None:  # noqa: ANN401 (as the step has them)
        """Report a step of *slot*'s newest revision."""
        await self.say(
            kind,
            slot_id=slot.slot_id,
            revision=slot.revision,
            rotation_id=new_id(),
            observed_generation=1,
            **more,
        )

    def sealed(self, owner_key: Ed25519PrivateKey, base: int = 0, **more: Any) -> SealedSubmission:  # noqa: ANN401
        """Seal a made-up API key for this server, on top of revision *base*."""
        fields: dict[str, Any] = {
            "owner_id": self.owner_id,
            "server_id": self.server_id,
            "key_id": "k1",
            "slot_id": "anthropic",
            "provider": "anthropic",
            "kind": CredentialKind.API_KEY,
            "revision": base + 1,
            "not_after": int(time.time()) + 3600,
            "envelope_id": new_id(),
        }
        payload = CredentialPayload(
            secret=SecretStr("sk-ant-api03-CANARY"),
            base_url="https://api.anthropic.com",
            header_style="x-api-key",
        )
        envelope = seal(
            payload,
            SealContext(**(fields | more)),
            sealing_public_key=self.sealing_key.public_key().public_bytes_raw(),
            owner_private_key=owner_key,
        )
        return SealedSubmission(envelope=envelope, base_revision=base)


@dataclass
class Faces:
    """A running dashboard and everything a test may do to it."""

    url: str
    app: Starlette
    installation: Installation
    registry: Registry
    sign_ins: SignIns
    config: ConfigHandler
    feed: Feed
    fingerprint: Bus
    ops: Bus
    tokens: dict[str, str]
    servers: dict[str, Server] = field(default_factory=dict)
    owner_key: Ed25519PrivateKey = field(default_factory=Ed25519PrivateKey.generate)
    revision: int = 100

    def tls(self) -> ssl.SSLContext:
        """A client context that trusts the installation's CA alone."""
        return ssl.create_default_context(cafile=str(self.installation.ca))

    def client(self, owner: str | None = None) -> httpx.AsyncClient:
        """A client with the token of *owner*."""
        headers = {"Authorization": f"Bearer {self.tokens[owner]}"} if owner else {}
        return httpx.AsyncClient(base_url=self.url, verify=self.tls(), headers=headers)

    async def link(self, owner: str) -> str:
        """A fresh sign-in link."""
        return sign_in_link(self.url, await self.sign_ins.make_link(owner))

    @contextlib.asynccontextmanager
    async def signed_in(self, owner: str) -> AsyncIterator[httpx.AsyncClient]:
        """A browser-like client with a session of *owner*."""
        async with self.client() as client:
            assert (await client.post(await self.link(owner))).status_code == 303
            yield client

    async def provision(self, owner: str, server_id: str, bus: Bus) -> None:
        """Add a server, let it enrol, and let it announce its sealing key."""
        server = Server(server_id, owner, bus)
        secret = await self.registry.add_server(owner, server_id)
        nkey = public_nkey(Ed25519PrivateKey.generate(), KeyType.USER)
        identity = server.identity.public_key().public_bytes_raw()
        await Enrolments(self.registry).enrol(
            Enrolment(server_id, secret, nkey, identity, "127.0.0.1", "join-x")
        )
        await server.announce()
        self.servers[server_id] = server
        await until(lambda: self.config.view.sealing_key(server_id))

    async def reenrol(self, server_id: str) -> None:
        """Let another machine take a server's place and announce a sealing key of its own."""
        old = self.servers[server_id]
        new = self.servers[server_id] = Server(server_id, old.owner_id, old.bus)
        secret = await Reenrolments(self.registry).begin(server_id)
        nkey = public_nkey(Ed25519PrivateKey.generate(), KeyType.USER)
        identity = new.identity.public_key().public_bytes_raw()
        await Enrolments(self.registry).enrol(
            Enrolment(server_id, secret, nkey, identity, "127.0.0.1", "join-x")
        )
        new.n = old.n
        await new.announce()

        async def announced() -> bool:
            key = await self.config.view.sealing_key(server_id)
            return (
                key is not None
                and key.public_key == new.sealing_key.public_key().public_bytes_raw()
            )

        await until(announced)

    async def slot(self, server_id: str, slot_id: str) -> SlotView:
        """One slot, as the config handler sees it."""
        slots = await self.config.view.slots_of(server_id)
        return next(slot for slot in slots if slot.slot_id == slot_id)

    async def reach(self, server_id: str, slot_id: str, step: SlotStep) -> None:
        """Wait until the config handler has heard of *step*."""

        async def there() -> bool:
            return (await self.slot(server_id, slot_id)).latest.step is step

        await until(there)

    async def say(
        self, kind: type[BannerEvent], owner: str, place: str, code: BannerCode, **more: object
    ) -> BannerEvent:
        """Publish a banner event about *place* (`server/slot`), with the next revision."""
        self.revision += 1
        server, _, slot = place.partition("/")
        fields: dict[str, Any] = {
            "owner_id": owner,
            "banner_id": f"{server}_{slot}_{code.lower().replace('_', '-')}",
            "server_id": server,
            "slot_id": slot or None,
            "code": code,
            "severity": code.severity,
            "colour": code.severity.colour,
            "revision": self.revision,
            "since_time": START + timedelta(minutes=self.revision),
        }
        event = kind(**(fields | more))
        sequence = await store(self.fingerprint, fresh(event))

        async def seen() -> bool:
            return self.feed.board.cursor >= sequence

        await until(seen)
        return event

    async def both_reuse_banners(self) -> tuple[BannerEvent, BannerEvent]:
        """The two banners of the demo for acme: one blue, one amber."""
        blue = await self.say(
            BannerRaised,
            "acme",
            "acme-1/anthropic",
            BannerCode.API_KEY_REUSE,
            sharing=Sharing(own_servers=("acme-2",), own_servers_total=1, bases=(Basis.API_KEY,)),
        )
        amber = await self.say(
            BannerRaised,
            "acme",
            "acme-1/openai",
            BannerCode.OAUTH_REUSE,
            sharing=Sharing(other_owners=1, bases=(Basis.OAUTH_GRANT, Basis.OAUTH_ACCOUNT)),
        )
        return blue, amber

    async def answers(self) -> list[Event]:
        """The owners' answers to banners, as they lie in the ledger."""
        messages = await read_batch(self.ops, LEDGER.name, 1, 1000)
        found = [decode(message.data, message.subject).data for message in messages]
        return [event for event in found if isinstance(event, DismissalRequested | DismissalUndone)]


def as_json(model: BaseModel) -> dict[str, Any]:
    """Return the arguments that make httpx send *model*."""
    return {"content": model.model_dump_json(), "headers": {"Content-Type": "application/json"}}


async def csrf_of(client: httpx.AsyncClient) -> dict[str, str]:
    """Return the header that the page's own script would send."""
    page = await client.get("/")
    return {"X-CSRF-Token": page.text.partition('name="csrf" content="')[2].partition('"')[0]}


async def until(fact: Callable[[], Awaitable[object]]) -> None:
    """Return once *fact* is so; fail after ten seconds."""
    async with asyncio.timeout(10):
        while not await fact():  # noqa: ASYNC110 (another process makes it so)
            await asyncio.sleep(0.01)


@pytest.fixture
async def faces(platform: Platform) -> AsyncIterator[Faces]:
    """The dashboard with owners acme (acme-1, acme-2) and globex (globex-1)."""
    feed, installation = Feed(), platform.installation
    async with await Registry.open(installation.platform / FILE_NAME) as registry:
        config = await ConfigHandler.open(installation, platform.server.target, registry)
        sign_ins = SignIns(registry)
        neighbours = Neighbours(
            tokens=registry,
            sessions=sign_ins,
            fleet=RegisteredFleet(registry),
            inbox=config.writer,
            shelf=config.view,
            orders=config.orders,
            approvals=EvaluatorApprovals(await platform.bus(Role.API)),
            facts=LedgerFacts(await platform.bus(Role.API)),
        )
        tokens = {owner: await registry.add_owner(owner) for owner in ("acme", "globex")}
        dashboard_bus = await platform.bus(Role.DASHBOARD)
        tasks = [asyncio.create_task(feed.run(dashboard_bus)), asyncio.create_task(config.run())]
        try:
            app = build_api(neighbours, feed, heartbeat=0.2)
            async with serve(app, installation) as url:
                running = Faces(
                    url,
                    app,
                    installation,
                    registry,
                    sign_ins,
                    config,
                    feed,
                    await platform.bus(Role.FINGERPRINT),
                    await platform.bus(Role.OPS),
                    tokens,
                )
                for server in ("acme-1", "acme-2", "globex-1"):
                    bus = await platform.bus(Role.SERVER, server)
                    await running.provision(server.partition("-")[0], server, bus)
                yield running
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
            await config.close()
