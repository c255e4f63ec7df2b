"""`byok owner …`, `byok key …` and `byok banners`: all that an owner does on their own machine."""

import time
from pathlib import Path
from typing import Any, Final

import click

from bus_schemas.approval import sign_approval
from bus_schemas.fields import CredentialKind
from bus_schemas.keys import fingerprint_typed, in_fours, owner_fingerprint
from platform_handlers.owner import asking, banner_list, order_commands
from platform_handlers.owner.console import screen
from platform_handlers.owner.halted import halted
from platform_handlers.owner.home import Home
from platform_handlers.owner.key_set import KeySet, set_key, show_status
from platform_handlers.owner.place import FILE, ID, Place, with_home, with_platform
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
@click.argument("server_id", metavar="SERVER", type=ID)
@with_home
def forget(server_id: str, home: Home) -> None:
    """Forget SERVER's fingerprint, after it was set up anew."""
    known = home.pinned(server_id)
    home.pin(server_id, None)
    click.echo(f"{server_id} is no longer pinned (it was {in_fours(known) if known else 'not'}).")


@click.group()
def key() -> None:
    """Your credentials on your servers."""


@key.command("set", context_settings={"allow_extra_args": True})
@click.argument("server_id", metavar="SERVER", type=ID)
@click.argument("slot_id", metavar="SLOT", type=ID)
@click.option("--provider", metavar="ID", help="Needed for a new slot.")
@click.option(
    "--kind",
    type=click.Choice([kind.value for kind in CredentialKind]),
    default=CredentialKind.API_KEY.value,
    show_default=True,
)
@click.option("--base-url", metavar="URL", help="Where the provider is, if not at its usual place.")
@click.option(
    "--server-fingerprint", metavar="FP", help="What SERVER's console shows; not a secret."
)
@click.option("--wait", type=click.FloatRange(0, 3600), default=60.0, show_default=True, help="s")
@with_platform
def set_(place: Place, kind: str, **options: Any) -> None:  # noqa: ANN401 (as KeySet has them)
    """Seal a credential for SERVER and send it; asks for it, or reads it from standard input.

    For --kind oauth it is a JSON document. Exit code 0: stored; 1: the server refused it; 75: not
    there yet.
    """
    context = click.get_current_context()
    if context.args:  # click would repeat it; it is most likely the credential
        raise click.UsageError(
            "only SERVER and SLOT are arguments. A credential typed there is in your shell's "
            "history now, and others could read it: make a new one, and paste it when asked"
        )
    wish = KeySet(kind=CredentialKind(kind), **options)
    with PlatformApi(place.address) as platform:
        code = set_key(platform, place.home, wish, screen())
    context.exit(code)


@key.command()
@click.argument("server_id", metavar="SERVER", type=ID)
@with_platform
def status(server_id: str, place: Place) -> None:
    """Show how far each slot of SERVER has come."""
    with PlatformApi(place.address) as platform:
        server, halts = platform.server(server_id), halted(platform.orders(server_id).orders)
        show_status(server, place.home.pinned(server_id), halts, screen())


@click.command()
@click.argument("server_id", metavar="SERVER", type=ID)
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
