"""`byok subscriber add` and `byok subscriber listen`."""

import asyncio
import contextlib
from pathlib import Path

import click

from bus_schemas.flows import Role
from bus_schemas.streams import BANNERS
from bus_schemas.transport.connection import Bus
from bus_schemas.transport.credentials import parse_credentials
from bus_schemas.transport.durable import deliveries
from bus_schemas.transport.jetstream import StoredMessage
from bus_schemas.transport.private_files import write_private
from platform_handlers.authority.role_bus import role_bus
from platform_handlers.replay.lines import line_of
from platform_handlers.settings import Settings
from platform_handlers.subscriber.durable import Subscriber, add_subscriber


@click.group()
def subscriber() -> None:
    """Let a program listen to banners, with a durable and credentials of its own."""


@subscriber.command()
@click.argument("name")
@click.option("--owner", "owner_id", help="Only this owner's banners.")
@click.option("--all", "everybody", is_flag=True, help="All owners' banners.")
@click.option("--out", type=click.Path(path_type=Path), help="File for the credentials (0600).")
@click.pass_obj
def add(
    settings: Settings,
    name: str,
    owner_id: str | None,
    everybody: bool,  # noqa: FBT001 (a flag)
    out: Path | None,
) -> None:
    """Make the durable NAME and write its credentials to a file."""
    if everybody == (owner_id is not None):
        raise click.UsageError("give either --owner ID or --all")
    path = out or Path(f"{name}.creds")
    asyncio.run(_add(settings, Subscriber(name, owner_id), path))
    click.echo(f"{path} lets {name} pull {BANNERS.name} as durable {name}; see docs/events.md")


async def _add(settings: Settings, wanted: Subscriber, path: Path) -> None:
    installation = settings.installation()
    setup = await role_bus(installation, settings.target(), Role.SETUP).open()
    try:
        credentials = await add_subscriber(setup, installation, wanted)
    finally:
        await setup.close()
    write_private(path, credentials.to_text().encode())


@subscriber.command()
@click.argument("name")
@click.option("--creds", type=click.Path(path_type=Path, exists=True), help="Default: NAME.creds.")
@click.option("--json", "as_json", is_flag=True, help="Print whole envelopes, one a line.")
@click.pass_obj
def listen(
    settings: Settings,
    name: str,
    creds: Path | None,
    as_json: bool,  # noqa: FBT001 (a flag)
) -> None:
    """Print NAME's banner events as they come, acknowledging each once it is printed."""
    credentials = parse_credentials((creds or Path(f"{name}.creds")).read_text())
    bus = Bus(settings.target(), name, lambda: credentials, api=Role.SUBSCRIBER.api)
    with contextlib.suppress(KeyboardInterrupt):
        asyncio.run(_listen(bus, name, as_json=as_json))


async def _listen(bus: Bus, name: str, *, as_json: bool) -> None:
    await bus.open()
    try:
        async for delivery in deliveries(bus, BANNERS.name, name):
            if as_json:
                click.echo(delivery.data.decode(errors="replace"))
            else:
                message = StoredMessage(
                    delivery.subject, delivery.sequence, delivery.stored_at, delivery.data
                )
                click.echo(line_of(message))
            await delivery.ack()
    finally:
        await bus.close()
