"""Outages for tests: nats-server ends, in good order or not, and comes back where it was."""

import asyncio
import contextlib
import shutil
import time
from collections.abc import AsyncIterator
from urllib.parse import urlsplit

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from bus_schemas.ids import derived_id
from bus_schemas.nkeys import KeyType, public_nkey, seed_nkey
from bus_schemas.streams import Stream
from bus_schemas.transport.connection import Bus
from bus_schemas.transport.credentials import Credentials
from bus_schemas.transport.jetstream import api, store_raw
from platform_handlers.authority import claims
from platform_handlers.authority.nats_process import start_nats_server
from tests.conftest import Platform


class Outage:
    """Takes a platform's nats-server away and brings it back on the same port and store."""

    def __init__(self, platform: Platform) -> None:
        self._platform = platform
        port = urlsplit(platform.server.target.url).port
        file = platform.installation.nats / "nats-server.conf"
        file.write_text(file.read_text().replace('"127.0.0.1:-1"', f'"127.0.0.1:{port}"'))

    async def begin(self, *, kill: bool = False) -> None:
        """End nats-server: with SIGTERM, or with SIGKILL as a power cut would."""
        if kill:
            self._platform.server.process.kill()
        await asyncio.to_thread(self._platform.server.stop)

    async def end(self) -> None:
        """Start it again."""
        self._platform.server = await start_nats_server(
            self._platform.installation, log=self._platform.server.log
        )

    def lose_everything(self) -> None:
        """Remove what the streams held, as if another disk had been put in."""
        store = self._platform.installation.nats / "store"
        shutil.rmtree(store)
        store.mkdir(mode=0o700)


@contextlib.asynccontextmanager
async def almighty(platform: Platform) -> AsyncIterator[Bus]:
    """Connect as a user of CORE that may do everything; no role of ours may."""
    installation, key = platform.installation, Ed25519PrivateKey.generate()
    nkey, account_id = public_nkey(key, KeyType.USER), installation.account_id("CORE")
    user = claims.UserPlan("almighty", nkey, account_id, int(time.time()))
    jwt = claims.mint_system_user(installation.account_key("CORE"), user)
    credentials = Credentials(jwt, seed_nkey(key, KeyType.USER))
    bus = await Bus(platform.server.target, "almighty", lambda: credentials).open()
    try:
        yield bus
    finally:
        await bus.close()


async def forget_ids(platform: Platform, stream: Stream, subject: str) -> None:
    """Have *stream* forget the message ids it has seen, as it does by itself after two minutes.

    Proved with an id of its own on *subject*, which must not matter to the test: once that is
    stored a second time, older ids are forgotten too.
    """
    shortest = stream.configuration() | {"duplicate_window": 100_000_000}
    async with almighty(platform) as bus, asyncio.timeout(10):
        await api(bus, f"STREAM.UPDATE.{stream.name}", shortest)
        probe = derived_id("probe", subject)
        first = await store_raw(bus, subject, probe, b"{}")
        while await store_raw(bus, subject, probe, b"{}") == first:  # noqa: ASYNC110 (no bell)
            await asyncio.sleep(0.05)
