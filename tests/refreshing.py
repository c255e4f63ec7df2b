"""A server with sign-ins and no bus; `python -m tests.refreshing FOLDER POINT` dies while it works.

The points are those between the steps of a refresh; the process kills itself there (SIGKILL).
"""

import asyncio
import os
import signal
import sys
import time
import uuid
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import aiohttp
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey

from bus_schemas.credential import CredentialPayload
from bus_schemas.sealed import SealContext, seal
from vps_runtime.facts.store import Facts
from vps_runtime.facts.told import stored_memory
from vps_runtime.keys.keyring import Keyring
from vps_runtime.oauth.endpoint import HttpTokenEndpoint
from vps_runtime.oauth.refresher import Refresher
from vps_runtime.rotation.rules import SlotRotation, rotation_key
from vps_runtime.state import Settings, StateFolder
from vps_runtime.unlock.boot import Unlocked
from vps_runtime.unlocked import UnlockedServer
from vps_runtime.vault.credentials import CredentialStore, Held
from vps_runtime.vault.root_key import SecretKey

SERVER = "acme-1"
SLOT = "anthropic"
ROOT = bytes(range(32))


@dataclass
class Clock:
    """Unix seconds, as a test says."""

    now: float = field(default_factory=time.time)

    def __call__(self) -> float:
        """Return the time."""
        return self.now


@dataclass
class Running:
    """The parts of an unlocked server that have to do with sign-ins."""

    server: UnlockedServer
    keyring: Keyring
    refresher: Refresher
    clock: Clock

    async def take_in(self, payload: CredentialPayload, revision: int = 1) -> Held:
        """Store *payload* and bring it into use."""
        held = await self.store(payload, revision)
        rotation = SlotRotation(current=revision, newest=revision)
        await self.server.facts.tell(
            remember={rotation_key(SLOT): rotation.model_dump_json(), **stored_memory(held)}
        )
        await self.keyring.open(held)
        return held

    async def store(self, payload: CredentialPayload, revision: int) -> Held:
        """Store *payload* and leave it at that."""
        context = SealContext(
            owner_id="acme",
            server_id=SERVER,
            key_id="key-1",
            slot_id=SLOT,
            provider=SLOT,
            kind=payload.kind,
            revision=revision,
            not_after=int(self.clock()) + 3600,
            envelope_id=str(uuid.uuid4()),
        )
        envelope = seal(
            payload,
            context,
            sealing_public_key=X25519PrivateKey.generate().public_key().public_bytes_raw(),
            owner_private_key=Ed25519PrivateKey.generate(),
        )
        return await self.server.credentials.put(envelope, payload, at=int(self.clock()))

    @property
    def held(self) -> Held:
        """The credential in use."""
        return self.server.usable[SLOT]

    async def payload(self) -> CredentialPayload:
        """Return what the vault has of it."""
        return await self.server.credentials.payload(self.held)

    @asynccontextmanager
    async def working(self) -> AsyncIterator[None]:
        """Run the refresher."""
        task = asyncio.create_task(self.refresher.run())
        try:
            yield
        finally:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)


@asynccontextmanager
async def opened(folder: Path, clock: Clock | None = None) -> AsyncIterator[Running]:
    """Open the server in *folder*, and make it first if it is not there."""
    state, clock = StateFolder(folder), clock or Clock()
    _enrol(state)
    with SecretKey.of(ROOT) as root_key:
        server = await UnlockedServer.open(state, Unlocked(root_key, 1))
        try:
            async with aiohttp.ClientSession(cookie_jar=aiohttp.DummyCookieJar()) as session:
                keyring = Keyring(server, clock)
                endpoint = HttpTokenEndpoint(session, within=5.0)
                refresher = Refresher(server, keyring, endpoint, clock, clock)
                for held in server.usable.values():
                    await keyring.open(held)
                yield Running(server, keyring, refresher, clock)
        finally:
            await server.facts.close()


def _enrol(state: StateFolder) -> None:
    if not state.enrolled:
        state.root.mkdir(mode=0o700, parents=True, exist_ok=True)
        state.identity_seed.write_bytes(bytes(32))
        settings = Settings(server_id=SERVER, owner_id="acme", url="tls://127.0.0.1:4222")
        state.settings.write_text(settings.model_dump_json())


POINTS: dict[str, tuple[type[Any], str, Callable[..., bool]]] = {
    "answered": (CredentialStore, "renew", lambda *_, **__: True),
    "half-written": (Path, "replace", lambda *_, **__: True),
    "stored": (Keyring, "open", lambda _, held: held.renewed_at is not None),
    "opened": (Facts, "tell", lambda *_, **words: "forget" in words),
}
"""Where the process dies: instead of calling that, if the last one says so."""


def die_at(point: str) -> None:
    """Arrange for the end of this process."""
    owner, name, fits = POINTS[point]
    real = getattr(owner, name)

    def deadly(*args: object, **words: object) -> object:
        if fits(*args, **words):
            os.kill(os.getpid(), signal.SIGKILL)
        return real(*args, **words)

    setattr(owner, name, deadly)


async def _refresh(folder: Path, point: str) -> None:
    async with opened(folder) as running:
        if point in POINTS:
            die_at(point)
        await running.refresher.refreshed(running.held)


if __name__ == "__main__":
    asyncio.run(_refresh(Path(sys.argv[1]), sys.argv[2]))
