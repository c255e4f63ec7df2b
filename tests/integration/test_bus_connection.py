"""Connecting to the bus: only over TLS, only to who it should be, and never a hang."""

import asyncio
import gc
import logging
import shutil
import signal
import socket
import time
from collections.abc import Awaitable, Callable
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from nats.aio.msg import Msg

from bus_schemas.errors import ByokError
from bus_schemas.flows import Role
from bus_schemas.nkeys import KeyType, public_nkey, seed_nkey
from bus_schemas.transport.connection import Bus
from bus_schemas.transport.credentials import Credentials
from bus_schemas.transport.pulse import Pulse
from bus_schemas.transport.service_manager import ServiceManager
from bus_schemas.transport.target import BusDenied, BusTarget, BusUnavailable
from platform_handlers.authority import claims, tls
from platform_handlers.authority.accounts import user_credentials
from platform_handlers.authority.installation import Installation
from platform_handlers.authority.nats_process import start_nats_server
from tests.conftest import Platform
from tests.outages import Outage


def anybody(installation: Installation) -> Credentials:
    """Return a server's credentials."""
    return user_credentials(installation, Role.SERVER, "acme-1", now=int(time.time()))


async def refused(
    installation: Installation, target: BusTarget, credentials: Credentials | None = None
) -> ByokError:
    """Connect in vain, within a few seconds, and return the one sentence it gives."""
    signing_in = credentials or anybody(installation)
    async with asyncio.timeout(8):
        with pytest.raises((BusDenied, BusUnavailable)) as error:
            await Bus(target, "acme-1", lambda: signing_in).open()
    said = str(error.value)
    assert target.url in said or str(target.ca_file) in said
    assert "\n" not in said
    assert len(said) < 300
    assert signing_in.seed not in said
    return error.value


async def test_a_wrong_ca_is_denied(platform: Platform, tmp_path: Path) -> None:
    """Whoever cannot prove to be our bus gets nothing from us."""
    other = tmp_path / "other.pem"
    other.write_bytes(tls.make_ca("another CA", now=datetime.now(UTC)).certificate)
    error = await refused(platform.installation, replace(platform.server.target, ca_file=other))
    assert isinstance(error, BusDenied)
    assert "the certificate is not acceptable" in str(error)


@pytest.mark.parametrize("content", [None, b"", b"no certificate"])
async def test_a_ca_file_that_is_none_is_denied(
    installation: Installation, tmp_path: Path, content: bytes | None
) -> None:
    """It names the file, since that is what must be mended."""
    file = tmp_path / "ca.pem"
    if content is not None:
        file.write_bytes(content)
    error = await refused(installation, BusTarget("tls://127.0.0.1:1", file))
    assert isinstance(error, BusDenied)


@pytest.mark.parametrize(
    ("hosts", "life", "why"),
    [
        (("localhost", "127.0.0.1"), timedelta(minutes=-1), "expired"),
        (("bus.example", "192.0.2.1"), timedelta(days=1), "mismatch"),
    ],
)
async def test_a_certificate_that_does_not_fit_is_denied(
    installation: Installation, tmp_path: Path, hosts: tuple[str, ...], life: timedelta, why: str
) -> None:
    """Expired, or good for another host: both come from our own CA."""
    ca = tls.Pair(installation.ca.read_bytes(), (installation.authority / "ca.key").read_bytes())
    pair = tls.make_server_certificate(ca, "bus", hosts, now=datetime.now(UTC), life=life)
    (installation.nats / "tls" / "server.pem").write_bytes(pair.certificate)
    (installation.nats / "tls" / "server.key").write_bytes(pair.key)
    server = await start_nats_server(installation, log=tmp_path / "nats.log")
    try:
        error = await refused(installation, server.target)
    finally:
        server.stop()
    assert isinstance(error, BusDenied)
    assert why in str(error).lower()


async def test_another_installations_token_is_denied(platform: Platform, tmp_path: Path) -> None:
    """A good certificate does not let a stranger in."""
    folder = shutil.copytree(platform.installation.root, tmp_path / "copy")
    stranger = Installation(folder)
    seed = stranger.authority / "server.seed"
    seed.write_text((stranger.authority / "ops.seed").read_text())
    error = await refused(platform.installation, platform.server.target, anybody(stranger))
    assert isinstance(error, BusDenied)
    assert "refused our token" in str(error)


async def test_a_plain_url_is_denied_before_a_byte_is_sent(installation: Installation) -> None:
    """`nats://` could be listened to; there is not even a connection."""
    heard = asyncio.Event()

    async def hear(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        heard.set()
        writer.close()

    async with await asyncio.start_server(hear, "127.0.0.1", 0) as plain:
        port = plain.sockets[0].getsockname()[1]
        target = BusTarget(f"nats://127.0.0.1:{port}", installation.ca)
        error = await refused(installation, target)
    assert isinstance(error, BusDenied)
    assert not heard.is_set()


Answer = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


async def _says_nothing(reader: asyncio.StreamReader, _: asyncio.StreamWriter) -> None:
    await reader.read()


async def _is_plain_nats(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    writer.write(b'INFO {"server_id":"x","version":"2.15.1","headers":true}\r\n')
    await writer.drain()
    await reader.read()


async def _hangs_up(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    writer.close()


@pytest.mark.parametrize(
    ("answer", "kind"),
    [
        (_says_nothing, BusUnavailable),
        (_is_plain_nats, BusDenied),
        (_hangs_up, BusUnavailable),
    ],
)
async def test_a_server_without_tls_is_turned_away(
    installation: Installation, answer: Answer, kind: type[ByokError]
) -> None:
    """A listener that is silent, speaks plainly or hangs up: no token is sent, nobody hangs."""
    received = bytearray()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        received.extend(await reader.read(8192))
        await answer(reader, writer)
        writer.close()

    async with await asyncio.start_server(serve, "127.0.0.1", 0) as plain:
        port = plain.sockets[0].getsockname()[1]
        target = BusTarget(f"tls://127.0.0.1:{port}", installation.ca)
        error = await refused(installation, target)
    assert isinstance(error, kind)
    assert b"CONNECT" not in received
    assert b"eyJ" not in received  # how every JWT begins


@pytest.mark.parametrize("host", ["127.0.0.1", "no-such-host.invalid"])
async def test_nobody_there_is_unavailable(installation: Installation, host: str) -> None:
    """Trying again may help, and it says so by its kind."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))  # bound and not listening: nobody else takes the port
        target = BusTarget(f"tls://{host}:{taken.getsockname()[1]}", installation.ca)
        error = await refused(installation, target)
    assert isinstance(error, BusUnavailable)
    assert "cannot be reached" in str(error)


async def test_the_server_refuses_a_plain_client(platform: Platform) -> None:
    """It says nothing in the clear, not even its INFO line, and hangs up."""
    host, port = platform.server.target.url.removeprefix("tls://").split(":")
    async with asyncio.timeout(10):
        reader, writer = await asyncio.open_connection(host, int(port))
        writer.write(b'CONNECT {"verbose":false}\r\nPING\r\n')
        try:
            said = await reader.read()
        except ConnectionError:
            said = b""
        writer.close()
    assert b"INFO" not in said
    assert b"PONG" not in said


async def test_a_listener_outlives_the_server_and_the_client(platform: Platform) -> None:
    """Subscriptions come back with the connection, and whoever waits is told."""
    outage, heard = Outage(platform), asyncio.Queue[bytes]()
    bus, ready = await platform.bus(Role.ISSUER), asyncio.Event()

    async def listen(message: Msg) -> None:
        heard.put_nowait(message.data)

    await bus.listen("byok.v1.enrol.new-1", listen)
    await (await bus.client()).flush()
    bus.on_ready(ready.set)
    asker = await platform.bus(Role.ENROLLING, "new-1")
    await (await asker.client()).publish("byok.v1.enrol.new-1", b"before")
    async with asyncio.timeout(5):
        assert await heard.get() == b"before"
    await outage.begin(kill=True)
    await outage.end()
    async with asyncio.timeout(20):
        await ready.wait()
        await (await bus.client()).flush()
        await (await asker.client()).publish("byok.v1.enrol.new-1", b"after")
        assert await heard.get() == b"after"
    assert bus.connected


def issuer_until(installation: Installation, expires_at: int) -> Credentials:
    """Return an issuer's credentials that end by themselves."""
    key = Ed25519PrivateKey.generate()
    account_id = installation.account_id(Role.ISSUER.account.value)
    nkey, now = public_nkey(key, KeyType.USER), int(time.time())
    user = claims.UserPlan("issuer", nkey, account_id, now, expires_at=expires_at)
    jwt = claims.mint_user(installation.signing_key(Role.ISSUER), user)
    return Credentials(jwt, seed_nkey(key, KeyType.USER))


async def test_an_expired_token_is_replaced_and_listeners_survive(platform: Platform) -> None:
    """The client closes for good then; the connection is built anew with the current token."""
    heard, ready = asyncio.Queue[bytes](), asyncio.Event()
    tokens = [issuer_until(platform.installation, int(time.time()) + 2)]
    bus = await Bus(platform.server.target, "issuer", lambda: tokens[-1]).open()

    async def listen(message: Msg) -> None:
        heard.put_nowait(message.data)

    await bus.listen("byok.v1.enrol.new-1", listen)
    tokens.append(issuer_until(platform.installation, int(time.time()) + 3600))
    bus.on_ready(ready.set)
    async with asyncio.timeout(20):
        await ready.wait()
        asker = await platform.bus(Role.ENROLLING, "new-1")
        await (await bus.client()).flush()
        await (await asker.client()).publish("byok.v1.enrol.new-1", b"hello")
        assert await heard.get() == b"hello"
    await bus.close()


async def test_a_request_during_an_outage_ends_in_time(platform: Platform) -> None:
    """It waits for the bus as long as it was told to, and no longer."""
    outage, bus = Outage(platform), await platform.bus(Role.SERVER, "acme-1")
    await outage.begin()
    async with asyncio.timeout(3):
        with pytest.raises(BusUnavailable, match=r"no answer on|was lost"):
            await bus.request("byok.v1.token.acme-1", b"", wait=0.5)
    await outage.end()


async def test_connecting_in_the_background_waits_for_the_bus(platform: Platform) -> None:
    """A process may start before its bus does; `renew` makes it try at once."""
    outage, credentials = Outage(platform), anybody(platform.installation)
    await outage.begin()
    bus = Bus(platform.server.target, "acme-1", lambda: credentials).open_in_background()
    asking = asyncio.create_task(bus.client())
    await asyncio.sleep(0)
    assert not bus.connected
    await outage.end()
    async with asyncio.timeout(20):
        await bus.renew()
        await asking
    assert bus.connected
    again = asyncio.Event()
    bus.on_ready(again.set)
    await bus.renew()  # signs in anew, on a new connection
    async with asyncio.timeout(20):
        await again.wait()
    await bus.close()
    assert not bus.connected


async def test_closing_before_there_was_a_connection_ends_at_once(
    installation: Installation, caplog: pytest.LogCaptureFixture
) -> None:
    """Whatever stage the attempts are at, and without a word about errors nobody asked for."""
    target = BusTarget("tls://127.0.0.1:1", installation.ca)
    credentials = anybody(installation)
    for steps in (*range(20), 50):
        bus = Bus(target, "acme-1", lambda: credentials).open_in_background()
        for _ in range(steps):
            await asyncio.sleep(0)
        async with asyncio.timeout(1):
            await bus.close()
    gc.collect()
    assert [record.message for record in caplog.records if record.name == "asyncio"] == []


async def test_closing_a_connection_whose_server_hangs_ends_in_time(platform: Platform) -> None:
    """A server that is stopped in its tracks answers no drain."""
    bus = await platform.bus(Role.SERVER, "acme-1")
    platform.server.process.send_signal(signal.SIGSTOP)
    try:
        async with asyncio.timeout(10):
            await bus.close()
    finally:
        platform.server.process.send_signal(signal.SIGCONT)


async def test_the_end_of_a_connection_is_no_news_in_the_log(
    platform: Platform, caplog: pytest.LogCaptureFixture
) -> None:
    """What asyncio says of nats-py's way of closing would come once for each connection."""
    credentials = anybody(platform.installation)
    with caplog.at_level(logging.WARNING, logger="asyncio"):
        bus = await Bus(platform.server.target, "acme-1", lambda: credentials).open()
        await bus.close()
        logging.getLogger("asyncio").warning("something else")
    assert [record.message for record in caplog.records] == ["something else"]


async def test_a_listener_that_hangs_is_noticed(platform: Platform) -> None:
    """It holds up all that is asked after it, so the watchdog must not be fed any more."""
    now, hanging = 0.0, asyncio.Event()
    pulse = Pulse(ServiceManager(), lambda: now)

    async def hang(_: Msg) -> None:
        hanging.set()
        await asyncio.Event().wait()

    with pulse.watching():
        issuer = await platform.bus(Role.ISSUER)
        await issuer.listen("byok.v1.token.*", hang)
    door = await platform.bus(Role.DOOR, "acme-1")
    await (await door.client()).publish("byok.v1.token.acme-1", b"{}")
    await asyncio.wait_for(hanging.wait(), 10)
    assert pulse.stuck() == ()
    now = 1000.0
    assert pulse.stuck() == ("listener on byok.v1.token.*",)
    await issuer.close()
    await door.close()
