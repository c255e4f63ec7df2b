"""The demo's story, played once a module with every wire tapped."""

import asyncio
import contextlib
import ssl
import time
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path

import pytest
import pytest_asyncio
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from nats.aio.msg import Msg

from bus_schemas.nkeys import KeyType, public_nkey, seed_nkey
from bus_schemas.streams import STREAMS
from bus_schemas.transport.connection import Bus
from bus_schemas.transport.credentials import Credentials
from bus_schemas.transport.jetstream import read_batch
from bus_schemas.transport.target import BusTarget
from platform_handlers.authority.claims import UserPlan, mint_system_user
from platform_handlers.authority.installation import Installation
from platform_handlers.demo.stage import Stage
from platform_handlers.demo.story import ApiKey, Story, all_raised, key_cleared

ACCOUNTS = ("CORE", "FLEET", "READERS", "SYS")


@dataclass
class Tapped:
    """A finished story, its processes still running, and all that went over its wires."""

    story: Story
    before: list[dict[str, object]]
    after: list[dict[str, object]]
    bus: dict[str, bytearray]
    """Everything a subscriber on `>` saw, by account."""
    api: bytearray
    """Everything that went to and from the API, after TLS was taken off."""

    @property
    def target(self) -> BusTarget:
        """Where the bus is."""
        installation = self.story.installation
        return BusTarget(installation.bus_url.read_text().strip(), installation.ca)

    async def streams(self) -> bytes:
        """Return everything all streams hold, as it comes out of them."""
        bus = await omnipotent(self.story.installation, self.target, "CORE")
        dump = bytearray()
        try:
            for stream in STREAMS:
                start = 1
                while batch := await read_batch(bus, stream.name, start, 500):
                    for message in batch:
                        dump += message.subject.encode() + b" " + message.data + b"\n"
                    start = batch[-1].sequence + 1
        finally:
            await bus.close()
        return bytes(dump)


async def omnipotent(installation: Installation, target: BusTarget, account: str) -> Bus:
    """Connect with every permission in *account*, as only the account's own key can grant."""
    key = Ed25519PrivateKey.generate()
    user = UserPlan(
        "eve", public_nkey(key, KeyType.USER), installation.account_id(account), int(time.time())
    )
    jwt = mint_system_user(installation.account_key(account), user)
    credentials = Credentials(jwt, seed_nkey(key, KeyType.USER))
    return await Bus(target, "eve", lambda: credentials).open()


async def tap_bus(
    tapped: dict[str, bytearray], story: Story, stack: contextlib.AsyncExitStack
) -> None:
    """Subscribe to `>` in every account."""
    installation = story.installation
    target = BusTarget(installation.bus_url.read_text().strip(), installation.ca)
    for account in ACCOUNTS:
        heard = tapped[account] = bytearray()

        async def hear(message: Msg, heard: bytearray = heard) -> None:
            headers = repr(dict(message.headers or {})).encode()
            heard.extend(b"\n".join((message.subject.encode(), headers, message.data, b"")))

        bus = await omnipotent(installation, target, account)
        stack.push_async_callback(bus.close)
        await bus.listen(">", hear)
        await (await bus.client()).flush()


async def tap_api(heard: bytearray, story: Story, stack: contextlib.AsyncExitStack) -> None:
    """Stand between owners and the API with the API's own certificate, and note every byte."""
    installation = story.installation
    url = installation.api_url.read_text().strip()
    port = int(url.rpartition(":")[2])
    inner = ssl.create_default_context(cafile=str(installation.ca))
    outer = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    outer.load_cert_chain(installation.platform / "api.pem", installation.platform / "api.key")

    async def pump(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(ConnectionError, ssl.SSLError):
            while chunk := await reader.read(65536):
                heard.extend(chunk)
                writer.write(chunk)
                await writer.drain()
        writer.close()

    async def relay(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        far_reader, far_writer = await asyncio.open_connection("127.0.0.1", port, ssl=inner)
        await asyncio.gather(pump(reader, far_writer), pump(far_reader, writer))

    server = await asyncio.start_server(relay, "127.0.0.1", 0, ssl=outer)
    stack.callback(server.close)
    own_port = server.sockets[0].getsockname()[1]
    installation.api_url.write_text(f"https://127.0.0.1:{own_port}")


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def tapped(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Tapped]:
    """Play the whole story with taps on the bus and on the API; leave it running."""
    folder: Path = tmp_path_factory.mktemp("story")
    story = Story(Stage(folder), lambda _text: None)
    api = bytearray()
    bus: dict[str, bytearray] = {}
    async with contextlib.AsyncExitStack() as stack:
        stack.push_async_callback(story.close)
        await story.open_platform()
        await tap_bus(bus, story, stack)
        await tap_api(api, story, stack)
        await story.add_owners()
        key = ApiKey()
        await story.send_credentials(key)
        before = await story.banners_when(all_raised)
        await story.rotate(key)
        await story.call(key.provider)
        after = await story.banners_when(key_cleared)
        yield Tapped(story, before, after, bus, api)
