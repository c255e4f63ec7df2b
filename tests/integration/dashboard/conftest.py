"""The dashboard over real TLS, on a real bus and a real registry, with two owners."""

import asyncio
import contextlib
import hashlib
import json
import ssl
import time
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import httpx
import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey

from bus_schemas.api import SlotStep, SlotView, StepView
from bus_schemas.events import BannerEvent, BannerRaised
from bus_schemas.events.banner import BannerCode, Sharing
from bus_schemas.fields import Basis, at_utc
from bus_schemas.flows import Role
from bus_schemas.keys import SignedSealingKey, sign_sealing_key
from bus_schemas.sealed import SealedEnvelope
from bus_schemas.transport.connection import Bus
from bus_schemas.transport.fresh import fresh
from bus_schemas.transport.jetstream import store
from platform_handlers.authority.installation import Installation
from platform_handlers.banner.feed import Feed
from platform_handlers.dashboard.app import build_api, serve
from platform_handlers.dashboard.facts import LedgerFacts
from platform_handlers.dashboard.fleet import RegisteredFleet
from platform_handlers.dashboard.ports import Neighbours, StaleBase
from platform_handlers.provisioning.registry import Enrolment, Registry
from platform_handlers.provisioning.sign_ins import SignIns

START = datetime(2026, 11, 23, 9, 0, tzinfo=UTC)


class Slots:
    """Stands in for the config writer and the servers: takes envelopes, reports what it is told."""

    def __init__(self) -> None:
        self.keys: dict[str, SignedSealingKey] = {}
        self.slots: dict[tuple[str, str], SlotView] = {}
        self.taken: list[SealedEnvelope] = []

    async def accept(self, envelope: SealedEnvelope, base_revision: int) -> int:
        """Take *envelope* if it builds on the newest revision."""
        known = self.slots.get((envelope.server_id, envelope.slot_id))
        if base_revision != (known.revision if known else 0):
            raise StaleBase
        self.taken.append(envelope)
        step = StepView(step=SlotStep.SENT, revision=envelope.revision, at=at_utc(time.time()))
        self.slots[envelope.server_id, envelope.slot_id] = SlotView(
            slot_id=envelope.slot_id,
            provider=envelope.provider,
            kind=envelope.kind,
            revision=envelope.revision,
            steps=(step,),
        )
        return len(self.taken)

    async def sealing_key(self, server_id: str) -> SignedSealingKey | None:
        """Return what the server would have announced."""
        return self.keys.get(server_id)

    async def slots_of(self, server_id: str) -> Sequence[SlotView]:
        """Return the server's slots."""
        return [view for (server, _), view in sorted(self.slots.items()) if server == server_id]

    def report(self, server_id: str, slot_id: str, step: SlotStep, reason: str | None = None) -> None:
        """Let the server report *step*."""
        view = self.slots[server_id, slot_id]
        told = StepView(step=step, revision=view.revision, at=at_utc(time.time()), reason=reason)
        self.slots[server_id, slot_id] = view.model_copy(update={"steps": (*view.steps, told)})


@dataclass
class Faces:
    """A running dashboard and everything a test may do to it."""

    url: str
    installation: Installation
    registry: Registry
    sign_ins: SignIns
    slots: Slots
    feed: Feed
    fingerprint: Bus
    tokens: dict[str, str]
    identities: dict[str, Ed25519PrivateKey] = field(default_factory=dict)
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
        return f"{self.url}/login/{await self.sign_ins.make_link(owner)}"

    async def say(
        self, kind: type[BannerEvent], owner: str, place: str, code: BannerCode, **more: Any
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
        async with asyncio.timeout(10):
            while self.feed.board.cursor < sequence:
                await asyncio.sleep(0.005)
        return event

    async def both_reuse_banners(self) -> tuple[BannerEvent, BannerEvent]:
        """The two banners of the demo for acme: one blue, one amber."""
        blue = await self.say(
            BannerRaised,
            "acme",
            "acme-1/anthropic",
            BannerCode.API_KEY_REUSE,
            sharing=Sharing(
                own_servers=("acme-2",), own_servers_total=1, bases=(Basis.API_KEY,)
            ),
        )
        amber = await self.say(
            BannerRaised,
            "acme",
            "acme-1/openai",
            BannerCode.OAUTH_REUSE,
            sharing=Sharing(other_owners=1, bases=(Basis.OAUTH_GRANT, Basis.OAUTH_ACCOUNT)),
        )
        return blue, amber

    async def provision(self, owner: str, server: str) -> None:
        """Add a server, let it enrol, and let it announce its sealing key."""
        secret = await self.registry.add_server(owner, server)
        identity = Ed25519PrivateKey.generate()
        await self.registry.enrol(
            Enrolment(
                server,
                secret,
                _nkey(identity),
                identity.public_key().public_bytes_raw(),
                "127.0.0.1",
            )
        )
        self.identities[server] = identity
        self.slots.keys[server] = sign_sealing_key(
            identity,
            server_id=server,
            key_id="k1",
            public_key=X25519PrivateKey.generate().public_key().public_bytes_raw(),
            not_after=at_utc(time.time()) + timedelta(days=30),
        )


def _nkey(identity: Ed25519PrivateKey) -> str:
    from bus_schemas.nkeys import KeyType, public_nkey

    seed = hashlib.sha256(identity.private_bytes_raw()).digest()
    return public_nkey(Ed25519PrivateKey.from_private_bytes(seed), KeyType.USER)


@pytest.fixture
async def faces(platform: Any, installation: Installation) -> AsyncIterator[Faces]:  # noqa: ANN401
    """The dashboard with owners acme (acme-1, acme-2) and globex (globex-1)."""
    feed, slots = Feed(), Slots()
    async with await Registry.open(installation.platform / "registry.db") as registry:
        sign_ins = SignIns(registry)
        neighbours = Neighbours(
            tokens=registry,
            sessions=sign_ins,
            fleet=RegisteredFleet(registry),
            credentials=slots,
            facts=LedgerFacts(await platform.bus(Role.API)),
        )
        tokens = {owner: await registry.add_owner(owner) for owner in ("acme", "globex")}
        following = asyncio.create_task(feed.run(await platform.bus(Role.DASHBOARD)))
        app = build_api(neighbours, feed, heartbeat=0.2)
        try:
            async with serve(app, installation) as url:
                running = Faces(
                    url,
                    installation,
                    registry,
                    sign_ins,
                    slots,
                    feed,
                    await platform.bus(Role.FINGERPRINT),
                    tokens,
                )
                for server in ("acme-1", "acme-2", "globex-1"):
                    await running.provision(server.partition("-")[0], server)
                yield running
        finally:
            following.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await following
