"""`byok nats`: the embedded nats-server."""

import asyncio

import click

from bus_schemas.flows import Role
from bus_schemas.transport.private_process import forbid_dumps
from bus_schemas.transport.pulse import tell_ready
from platform_handlers.authority.installation import Installation, write_bus_url
from platform_handlers.authority.nats_process import (
    NatsServer,
    NatsServerFailed,
    start_nats_server,
)
from platform_handlers.authority.pair_watch import renewals
from platform_handlers.authority.refusal import remembered
from platform_handlers.authority.role_bus import role_bus
from platform_handlers.authority.store import check_store
from platform_handlers.authority.streams import make_streams
from platform_handlers.settings import Settings
from platform_handlers.until_stopped import until_stopped


@click.group()
def nats() -> None:
    """Run the embedded nats-server."""


@nats.command()
@click.pass_obj
def run(settings: Settings) -> None:
    """Run nats-server in the foreground and make its streams; ends on Ctrl-C or SIGTERM."""
    forbid_dumps()  # nats-server, which holds the JetStream key, inherits the limit
    asyncio.run(_run(settings.installation()))


async def _run(installation: Installation) -> None:
    with remembered(installation):
        server = await start_nats_server(installation, log=installation.nats / "nats-server.log")
    try:
        if not _known_by_port(installation, server.target.url):
            write_bus_url(installation, server.target.url)
        with remembered(installation):
            await _make_streams(server, installation)
        await until_stopped(_watch(server, installation))
    finally:
        server.stop()


async def _make_streams(server: NatsServer, installation: Installation) -> None:
    bus = await role_bus(installation, server.target, Role.SETUP).open()
    try:
        await check_store(installation, bus)  # first: a failed attempt would destroy a stream
        await make_streams(bus)
    finally:
        await bus.close()


def _known_by_port(installation: Installation, url: str) -> bool:
    """Whether clients already have an address with this port: theirs may be a public name."""
    try:
        known = installation.bus_url.read_text().strip()
    except FileNotFoundError:
        return False
    return known.rpartition(":")[2] == url.rpartition(":")[2]


async def _watch(server: NatsServer, installation: Installation) -> None:
    """Wait for nats-server. Raises NatsServerFailed when it ends by itself."""
    tell_ready(f"nats-server listens on {server.target.url}")
    # Here, where a signal is heeded already: whoever waits for the line may send one at once.
    click.echo(f"nats-server listens on {server.target.url}")
    renewing = asyncio.create_task(_show_renewed(server, installation))
    try:
        code = await asyncio.to_thread(server.process.wait)
    finally:
        renewing.cancel()
    raise NatsServerFailed(f"nats-server ended with code {code}; see {server.log}")


async def _show_renewed(server: NatsServer, installation: Installation) -> None:
    """Tell nats-server of a renewed certificate: an expired one lets nobody in to ask it to."""
    async for _ in renewals(installation.bus_pair):
        server.reload()
