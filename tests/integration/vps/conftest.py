"""A platform with its real issuer and evaluator, and servers of one owner enrolled on it.

The config writer is a small one of our own, so that it can also write what the real one refuses.
"""

import asyncio
import contextlib
import json
import os
import sys
import time
import uuid
from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from pydantic import SecretStr

from bus_schemas.codec import decode
from bus_schemas.credential import CredentialPayload
from bus_schemas.event import Event, ServerFact
from bus_schemas.events.config import ConfigDesired, CredentialSealed, DesiredSlot
from bus_schemas.events.reported import SealingKeyPublished
from bus_schemas.flows import Role
from bus_schemas.join_token import JoinToken
from bus_schemas.keys import SignedSealingKey, owner_fingerprint
from bus_schemas.sealed import SealContext, SealedEnvelope, seal
from bus_schemas.streams import LEDGER
from bus_schemas.transport.connection import Bus
from bus_schemas.transport.fresh import fresh
from bus_schemas.transport.jetstream import StoredMessage, read_batch, store
from platform_handlers.evaluator.app import run_evaluator
from platform_handlers.provisioning.join_token import issue_join_token
from platform_handlers.provisioning.registry import FILE_NAME, Registry
from platform_handlers.provisioning.service import run_provisioning
from tests.conftest import Platform
from tests.following import messages_once
from tests.provider.server import FakeProvider
from vps_runtime.enrolment.join import join
from vps_runtime.state import StateFolder

NOWHERE = "http://127.0.0.1:9"
"""Where no provider is: what is sealed for it stays pending."""
_BOUND_SECONDS = 20.0
_E = TypeVar("_E", bound=Event)


@dataclass
class Agent:
    """A `byok-vps run` process."""

    process: asyncio.subprocess.Process
    log: Path

    async def ready(self) -> dict[str, Any]:
        """Wait for its `ready` line and return it."""
        async with asyncio.timeout(_BOUND_SECONDS):
            while True:
                for line in self.lines():
                    if line.get("event") == "ready":
                        return line
                if self.process.returncode is not None:
                    raise AssertionError(self.log.read_text())
                await asyncio.sleep(0.02)

    def lines(self) -> list[dict[str, Any]]:
        """Return its log so far."""
        text = self.log.read_text().rpartition("\n")[0]
        return [json.loads(line) for line in text.splitlines() if line.startswith("{")]

    async def stop(self) -> int:
        """Ask it to end, and return its exit code."""
        if self.process.returncode is None:
            self.process.terminate()
        return await asyncio.wait_for(self.process.wait(), _BOUND_SECONDS)

    async def kill(self) -> None:
        """Kill it outright (SIGKILL)."""
        if self.process.returncode is None:
            self.process.kill()
        await self.process.wait()


def told_by(server_id: str, messages: Sequence[StoredMessage]) -> list[ServerFact]:
    """Return the server's own facts in *messages*."""
    events = [decode(m.data, m.subject, strict=True).data for m in messages]
    return [e for e in events if isinstance(e, ServerFact) and e.server_id == server_id]


@dataclass
class Fleet:
    """The platform's side, the owner's key, and the servers enrolled so far."""

    platform: Platform
    registry: Registry
    config: Bus
    ops: Bus
    folder: Path
    provider: FakeProvider
    """Says of every key that it is good, until it is told otherwise."""
    owner_key: Ed25519PrivateKey = field(default_factory=Ed25519PrivateKey.generate)
    agents: list[Agent] = field(default_factory=list)
    generations: dict[str, int] = field(default_factory=dict)

    @property
    def fingerprint(self) -> str:
        """The owner key's fingerprint, as typed on a console."""
        return owner_fingerprint(self.owner_key.public_key().public_bytes_raw())

    async def join_token(self, server_id: str) -> JoinToken:
        """Return a fresh join token."""
        return await issue_join_token(
            self.platform.installation,
            self.registry,
            self.platform.server.target.url,
            ("acme", server_id),
        )

    async def enrol(self, server_id: str) -> StateFolder:
        """Enrol a server, as its console would."""
        state = StateFolder(self.folder / server_id)
        await join(state, await self.join_token(server_id), self.fingerprint)
        return state

    async def start(self, state: StateFolder, *, module: Sequence[str] = ("vps_runtime",)) -> Agent:
        """Start the agent of *state* as a process, by *module* with its own arguments."""
        log = state.root / f"agent-{len(self.agents)}.log"
        with log.open("wb") as sink:
            process = await asyncio.create_subprocess_exec(
                sys.executable,
                *("-m", *module, "run", "--state", str(state.root)),
                *("--health-seconds", "0.5", "--gateway-port", "0"),
                stderr=sink,
                env={**os.environ, "PYTHONPATH": str(Path(__file__).parents[3])},
            )
        self.agents.append(Agent(process, log))
        return self.agents[-1]

    async def told(self, server_id: str) -> list[ServerFact]:
        """Return everything the ledger has of *server_id*'s own words, in order."""
        return told_by(server_id, await read_batch(self.ops, LEDGER.name, 1, 4096))

    async def until(
        self, server_id: str, wanted: Callable[[Sequence[ServerFact]], object]
    ) -> Sequence[ServerFact]:
        """Wait until the ledger satisfies *wanted*; return what it holds then."""
        try:
            messages = await messages_once(
                self.ops,
                LEDGER,
                lambda found: wanted(told_by(server_id, found)),
                seconds=_BOUND_SECONDS,
            )
        except TimeoutError:
            only = [event.type for event in await self.told(server_id)]
            raise AssertionError(f"the ledger has only {only}") from None
        return told_by(server_id, messages)

    async def sealing_key(self, server_id: str) -> SignedSealingKey:
        """Wait for the server's sealing key."""
        events = await self.until(server_id, lambda es: of(es, SealingKeyPublished))
        return of(events, SealingKeyPublished)[-1].signed_key

    async def seal(
        self,
        server_id: str,
        *,
        revision: int = 1,
        slot_id: str = "anthropic",
        payload: CredentialPayload | None = None,
        by: Ed25519PrivateKey | None = None,
    ) -> SealedEnvelope:
        """Return a sealing of an API key, or of *payload*, by the owner, or signed *by* another."""
        key = await self.sealing_key(server_id)
        payload = payload or api_key(at=self.provider.origin)
        context = SealContext(
            owner_id="acme",
            server_id=server_id,
            key_id=key.key_id,
            slot_id=slot_id,
            provider=slot_id,
            kind=payload.kind,
            revision=revision,
            not_after=int(time.time()) + 3600,
            envelope_id=str(uuid.uuid4()),
        )
        return seal(
            payload,
            context,
            sealing_public_key=key.public_key,
            owner_private_key=by or self.owner_key,
        )

    async def send(self, envelope: SealedEnvelope) -> DesiredSlot:
        """Write a sealing and the document that asks for it."""
        server_id = envelope.server_id
        sealed = CredentialSealed(server_id=server_id, slot_id=envelope.slot_id, envelope=envelope)
        await store(self.config, fresh(sealed))
        slot = desired(envelope)
        await self.document(server_id, slot)
        return slot

    async def document(self, server_id: str, *slots: DesiredSlot) -> ConfigDesired:
        """Write a desired document with exactly *slots*."""
        generation = self.generations.get(server_id, 0) + 1
        self.generations[server_id] = generation
        document = ConfigDesired(
            server_id=server_id, owner_id="acme", generation=generation, slots=slots
        )
        await store(self.config, fresh(document))
        return document


def desired(envelope: SealedEnvelope) -> DesiredSlot:
    """Return the slot that asks for *envelope*."""
    return DesiredSlot(
        slot_id=envelope.slot_id,
        provider=envelope.provider,
        kind=envelope.kind,
        revision=envelope.revision,
        min_revision=0,
        rotation_id=envelope.envelope_id,
    )


def api_key(
    secret: str = "sk-ant-api03-canary-0123456789", *, at: str = NOWHERE
) -> CredentialPayload:
    """Return an API key as an owner would seal it, for a provider *at* an address."""
    return CredentialPayload(secret=SecretStr(secret), base_url=at, header_style="x-api-key")


def of(events: Sequence[Event], cls: type[_E]) -> list[_E]:
    """Return the events of one class."""
    return [event for event in events if isinstance(event, cls)]


@pytest.fixture
async def fleet(platform: Platform, tmp_path: Path) -> AsyncIterator[Fleet]:
    """The platform, serving, with owner acme and no server yet."""
    async with fleet_on(platform, tmp_path / "servers", evaluating=True) as running:
        yield running


@contextlib.asynccontextmanager
async def fleet_on(platform: Platform, folder: Path, *, evaluating: bool) -> AsyncIterator[Fleet]:
    """Serve *platform*, with an evaluator of our own if *evaluating*."""
    installation, target = platform.installation, platform.server.target
    registry = await Registry.open(installation.platform / FILE_NAME)
    await registry.add_owner("acme")
    ready = asyncio.Event()
    serving = [asyncio.create_task(run_provisioning(installation, target, registry))]
    if evaluating:
        serving.append(asyncio.create_task(run_evaluator(installation, target, ready.set)))
    else:
        ready.set()
    config, ops = await platform.bus(Role.CONFIG), await platform.bus(Role.OPS)
    provider = FakeProvider(accepts_all=True)
    running = Fleet(platform, registry, config, ops, folder, provider)
    try:
        starting = asyncio.create_task(ready.wait())
        done, _ = await asyncio.wait(
            {starting, *serving}, timeout=_BOUND_SECONDS, return_when=asyncio.FIRST_COMPLETED
        )
        assert done == {starting}, [task.exception() for task in done]
        async with provider.serving():
            yield running
    finally:
        for agent in running.agents:
            await agent.kill()
        for task in serving:
            task.cancel()
        for task in serving:
            with contextlib.suppress(asyncio.CancelledError):
                await task
        await registry.close()
