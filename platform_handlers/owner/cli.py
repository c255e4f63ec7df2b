"""`byok owner …`, `byok key …` and `byok banners`: all that an owner does on their own machine."""

import time
from pathlib import Path
from typing import Final

import click

from bus_schemas.approval import sign_approval
from bus_schemas.keys import fingerprint_typed, in_fours, owner_fingerprint
from platform_handlers.owner import asking, banner_list, order_commands
from platform_handlers.owner.console import screen
from platform_handlers.owner.home import Home
from platform_handlers.owner.keys.commands import key
from platform_handlers.owner.place import FILE, SERVER, Place, with_home, with_platform
from platform_handlers.owner.platform_api import PlatformApi


@click.group()
def owner() -> None:
    """Owners: your own key and whom you trust; on the platform, who they are."""


@owner.command()
@with_home
def keygen(home: Home) -> None:
    """Make your owner key: only credentials signed with it are taken by your servers."""
    key = home.make_owner_key()
    fingerprint = owner_fingerprint(key.public_key().public_bytes_raw())
    click.echo(f"Made {home.key_file} (0600, no passphrase: guard this account and its backups).")
    click.echo("On each server's own console, type this fingerprint:\n")
    click.echo(f"    {fingerprint}\n")
    click.echo(f"as in: byok-vps join --owner {fingerprint}")


@owner.command()
@with_home
def fingerprint(home: Home) -> None:
    """Print the fingerprint of your owner key, to type on a server's console."""
    click.echo(owner_fingerprint(home.owner_key().public_key().public_bytes_raw()))


@owner.command()
@click.argument("url")
@click.option("--ca", type=FILE, required=True, help="The platform's CA certificate.")
@with_home
def connect(url: str, ca: Path, home: Home) -> None:
    """Remember the platform at URL; asks for the API token, or reads it from standard input."""
    address = home.connect(url.rstrip("/"), ca.read_bytes(), asking.read_token())
    with PlatformApi(address) as platform:
        found = platform.servers()
    servers = ", ".join(server.server_id for server in found.servers) or "no servers yet"
    click.echo(f"Connected to {address.url} as {found.owner_id} ({servers}).")


@owner.command()
@SERVER
@with_home
def forget(server_id: str, home: Home) -> None:
    """Forget SERVER's fingerprint, after it was set up anew."""
    known = home.pinned(server_id)
    home.pin(server_id, None)
    click.echo(f"{server_id} is no longer pinned (it was {in_fours(known) if known else 'not'}).")


@click.command()
@SERVER
@click.argument("code", metavar="CODE")
@with_platform
def approve(server_id: str, code: str, place: Place) -> None:
    """Let a copy of SERVER's disk unlock once: after a restore, with the CODE on its console.

    Only if you restored that machine yourself: the machine that ran last is shut out by it.
    Good for an hour.
    """
    approval = sign_approval(
        place.home.owner_key(),
        server_id=server_id,
        code=fingerprint_typed(code),
        issued_at=int(time.time()),
    )
    with PlatformApi(place.address) as platform:
        platform.approve(approval)
    click.echo(f"{server_id} may unlock with the disk {in_fours(approval.code)}, once, within an")
    click.echo("hour. On its console: systemctl restart byok-vps")


@click.command()
@click.option("--json", "as_json", is_flag=True, help="One JSON document.")
@click.option("--all", "every", is_flag=True, help="Dismissed and cleared ones, too.")
@with_platform
def banners(place: Place, *, as_json: bool, every: bool) -> None:
    """List what needs your attention."""
    with PlatformApi(place.address) as platform:
        found = platform.banners()
    if as_json:
        click.echo(banner_list.as_json(found, every=every))
    else:
        screen().print(banner_list.as_table(found, every=every))


for _command in (order_commands.trust, order_commands.distrust):
    owner.add_command(_command)
for _command in (order_commands.stop, order_commands.resume):
    key.add_command(_command)

commands: Final[list[click.Command]] = [owner, key, banners]
"""For the root group; `provisioning.cli` adds the platform's own commands to `owner`."""
