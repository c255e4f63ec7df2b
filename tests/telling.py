"""Say facts on a real ledger as whoever may say them, and hear the banners that follow."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from pathlib import Path

from bus_schemas.event import Event
from bus_schemas.events import (
    BannerEvent,
    FingerprintObserved,
    FingerprintRetired,
    ServerProvisioned,
)
from bus_schemas.fields import Basis, Strength
from bus_schemas.flows import Role
from bus_schemas.streams import BANNERS
from bus_schemas.transport.connection import Bus
from bus_schemas.transport.fresh import fresh
from bus_schemas.transport.jetstream import StoredMessage, store
from platform_handlers.fingerprint.handler import FingerprintHandler
from tests.conftest import Platform
from tests.following import events_of, messages_once

NKEY = "U" + "A" * 55
TAG_A, TAG_B = "a" * 64, "b" * 64


def provisioned(owner_id: str, server_id: str) -> ServerProvisioned:
    """A server that has just enrolled."""
    return ServerProvisioned(
        server_id=server_id, owner_id=owner_id, nkey=NKEY, identity_key=bytes(32)
    )


def observed(server_id: str, tag: str, *, n: int, revision: int = 1) -> FingerprintObserved:
    """A server tells that it holds an API key."""
    return FingerprintObserved(
        server_id=server_id,
        incarnation=1,
        n=n,
        slot_id="anthropic",
        revision=revision,
        provider="anthropic",
        basis=Basis.API_KEY,
        strength=Strength.SECRET,
        epoch="e1",
        tag=tag,
    )


def retired(server_id: str, *, n: int, revision: int) -> FingerprintRetired:
    """A server tells that a revision is gone."""
    return FingerprintRetired(
        server_id=server_id, incarnation=1, n=n, slot_id="anthropic", revision=revision
    )


class Teller:
    """Publishes facts as whoever may write them."""

    def __init__(self, platform: Platform) -> None:
        self._platform = platform
        self._buses: dict[str, Bus] = {}

    async def __call__(self, *events: Event) -> int:
        """Store *events* in order and return the last one's sequence."""
        sequence = 0
        for event in events:
            sequence = await store(await self._bus(event), fresh(event))
        return sequence

    async def _bus(self, event: Event) -> Bus:
        server_id = getattr(event, "server_id", "")
        is_server = event.writer.value.startswith("/servers/")
        role = Role.SERVER if is_server else Role(event.writer.value.removeprefix("/platform/"))
        key = server_id if is_server else role.value
        if key not in self._buses:
            self._buses[key] = await self._platform.bus(role, server_id if is_server else None)
        return self._buses[key]


@asynccontextmanager
async def handling(platform: Platform, folder: Path) -> AsyncIterator[FingerprintHandler]:
    """Run a handler with its store in *folder*."""
    await asyncio.to_thread(folder.mkdir, exist_ok=True)
    handler = await FingerprintHandler.open(folder, await platform.bus(Role.FINGERPRINT))
    task = asyncio.create_task(handler.run())
    try:
        yield handler
    finally:
        task.cancel()
        with suppress(asyncio.CancelledError):  # a crash of its own must fail the test
            await task


async def banners_until(
    platform: Platform, enough: Callable[[list[BannerEvent]], bool]
) -> list[BannerEvent]:
    """Read the banner stream until *enough* holds, at most ten seconds."""
    return [event for event, _ in await read_until(platform, enough)]


async def read_until(
    platform: Platform, enough: Callable[[list[BannerEvent]], bool]
) -> list[tuple[BannerEvent, StoredMessage]]:
    """Read events and messages until *enough* holds, at most ten seconds."""
    bus = await platform.bus(Role.DASHBOARD)
    messages = await messages_once(bus, BANNERS, lambda found: enough(banners_in(found)))
    return list(zip(banners_in(messages), messages, strict=True))


def banners_in(messages: list[StoredMessage]) -> list[BannerEvent]:
    """Return the banner events in *messages*."""
    return [event for event in events_of(messages) if isinstance(event, BannerEvent)]


def states(events: list[BannerEvent]) -> list[tuple[str, str]]:
    """Servers and states, in stream order."""
    return [(event.server_id, event.state.value) for event in events]
