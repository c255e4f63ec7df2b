"""Where the gateway listens, before, while and after there are keys; and whose TLS it believes."""

import asyncio
import ssl
import tempfile
from collections.abc import AsyncIterator, Callable
from datetime import UTC, datetime
from pathlib import Path

import pytest
from structlog.testing import capture_logs

from bus_schemas.finding import Finding, Grade
from platform_handlers.authority.tls import make_ca, make_server_certificate
from tests.integration.gateway.conftest import Rig, Wire, answering, odd_provider
from vps_runtime.gateway import server as server_module
from vps_runtime.gateway.examine import gateway_finding
from vps_runtime.gateway.server import Gateway, GatewayOptions
from vps_runtime.local_access import agent_token
from vps_runtime.state import StateFolder


@pytest.fixture
async def bare() -> AsyncIterator[Gateway]:
    """A gateway of a server that is not unlocked, in a short folder."""
    with tempfile.TemporaryDirectory(prefix="byok-") as folder:
        yield Gateway(StateFolder(Path(folder)), GatewayOptions(port=0))


async def until(fact: Callable[[], bool]) -> None:
    """Return once *fact* holds."""
    async with asyncio.timeout(10):
        while not fact():  # noqa: ASYNC110 (neither a file nor a port rings a bell)
            await asyncio.sleep(0.01)


async def test_without_keys_every_slot_is_refused_at_once(bare: Gateway) -> None:
    """A server that is locked, or not yet unlocked, says so: 401, not silence."""
    await bare.listen()
    work = asyncio.create_task(bare.run())
    wire = Wire(*await asyncio.open_connection("127.0.0.1", bare.port))
    token = agent_token(bare._state)  # noqa: SLF001
    await wire.send(f"GET /openai/x HTTP/1.0\r\nx-api-key: {token}\r\n\r\n".encode())
    answer = await wire.answer()
    assert (answer.status, answer.headers["x-byok-problem"]) == (401, "no_usable_key")
    wire.close()
    work.cancel()
    await asyncio.gather(work, return_exceptions=True)


async def test_when_it_ends_nothing_of_it_is_left(bare: Gateway) -> None:
    """Neither a listener nor its address; a call on its way is cut off soon."""
    state = bare._state  # noqa: SLF001
    work = asyncio.create_task(bare.run())
    await until(state.gateway_url.exists)
    port = bare.port
    assert state.gateway_url.read_text() == f"http://127.0.0.1:{port}\n"
    wire = Wire(*await asyncio.open_connection("127.0.0.1", port))
    work.cancel()
    await asyncio.gather(work, return_exceptions=True)
    assert await wire.reader.read() == b""
    wire.close()
    assert not state.gateway_url.exists()
    with pytest.raises(ConnectionRefusedError):
        await asyncio.open_connection("127.0.0.1", port)


async def test_a_port_that_is_taken_is_said_and_tried_again(
    bare: Gateway, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Once in the log; the server goes on, the socket is there, and the port when it is free."""
    monkeypatch.setattr(server_module, "_RETRY_SECONDS", 0.01)
    other = await asyncio.start_server(lambda _reader, writer: writer.close(), "127.0.0.1", 0)
    port = other.sockets[0].getsockname()[1]
    object.__setattr__(bare.options, "port", port)
    bare._state.gateway_url.write_text("http://127.0.0.1:1\n")  # noqa: SLF001 (of one that was killed)
    with capture_logs() as said:
        await bare.listen()
        await bare.listen()
    assert [line["event"] for line in said] == ["gateway_port_not_there"]
    assert bare.port == 0
    assert not bare._state.gateway_url.exists()  # noqa: SLF001
    assert bare._state.gateway_socket.is_socket()  # noqa: SLF001
    work = asyncio.create_task(bare.run())
    other.close()
    await other.wait_closed()
    await until(lambda: bare.port == port)
    work.cancel()
    await asyncio.gather(work, return_exceptions=True)


async def test_a_full_disk_does_not_stop_the_server(
    bare: Gateway, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Orders are obeyed without a gateway; it comes when there is room for its token."""

    def full(*_rest: object) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch, capture_logs() as said:
        patch.setattr("vps_runtime.local_access.write_private", full)
        await bare.listen()
    assert [line["event"] for line in said] == ["agent_token_not_there"]
    assert bare.port == 0
    work = asyncio.create_task(bare.run())
    await until(lambda: bare.port > 0)
    work.cancel()
    await asyncio.gather(work, return_exceptions=True)


async def test_the_doctor_knows_whose_answer_it_is(rig: Rig) -> None:
    """Ours, nobody's, another program's, and that there should be one."""
    assert await gateway_finding(rig.state) == Finding(
        Grade.OK, "gateway", f"answers at http://127.0.0.1:{rig.gateway.port}"
    )
    async with odd_provider(answering(b"HTTP/1.1 401 No\r\n\r\n")) as url:
        rig.state.gateway_url.write_text(url.removesuffix("/v1"))
        other = await gateway_finding(rig.state)
    assert other.grade is Grade.BAD
    assert "agent.token" in other.detail
    silent = await gateway_finding(rig.state)
    assert silent.grade is Grade.BAD
    assert "nobody answers" in silent.detail
    rig.state.gateway_url.write_bytes(b"\xff")
    assert (await gateway_finding(rig.state)).grade is Grade.WARN
    rig.state.gateway_url.unlink()
    assert "is `byok-vps run` running?" in (await gateway_finding(rig.state)).detail


async def test_a_certificate_that_nobody_signed_gets_no_key(rig: Rig, tmp_path: Path) -> None:
    """Whoever sits between hears a greeting and nothing more."""
    heard = bytearray()

    async def listen(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        heard.extend(await reader.read())
        writer.close()

    now = datetime.now(UTC)
    pair = make_server_certificate(make_ca("not yours", now=now), "x", ["localhost"], now=now)
    (tmp_path / "pair.pem").write_bytes(pair.certificate + pair.key)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(tmp_path / "pair.pem")
    server = await asyncio.start_server(listen, "127.0.0.1", 0, ssl=context)
    rig.keys.change(base_url=f"https://localhost:{server.sockets[0].getsockname()[1]}/v1")
    answer = await rig.ask()
    assert (answer.status, answer.headers["x-byok-problem"]) == (502, "certificate")
    assert heard == b""
    server.close()
