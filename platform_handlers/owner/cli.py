"""`byok owner …`, `byok key …` and `byok banners`: all that an owner does on their own machine."""

import functools
import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import click

from bus_schemas.fields import ID_PATTERN, CredentialKind
from bus_schemas.keys import in_fours, owner_fingerprint
from platform_handlers.owner import asking, banner_list
from platform_handlers.owner.console import failures_told, screen
from platform_handlers.owner.home import Address, Home
from platform_handlers.owner.key_set import KeySet, set_key, show_status
from platform_handlers.owner.platform_api import PlatformApi

_FILE = click.Path(exists=True, dir_okay=False, path_type=Path)


@dataclass(frozen=True)
class Place:
    """The owner's folder, and where the platform is."""

    home: Home
    address: Address


class _Id(click.ParamType[str]):
    name = "id"

    def convert(
        self,
        value: Any,  # noqa: ANN401 (click's signature)
        param: click.Parameter | None,
        ctx: click.Context | None,
    ) -> str:
        """Refuse what cannot be an id: it becomes a part of an address."""
        if not re.fullmatch(ID_PATTERN, str(value)):
            self.fail(f"{value!r} is no id: 1 to 63 of a-z, 0-9 and -", param, ctx)
        return str(value)


_ID: Final = _Id()


def _with_home(command: Callable[..., None]) -> Callable[..., None]:
    """Give *command* the owner's folder and tell its failures in one sentence."""

    @click.option(
        "--home", type=click.Path(file_okay=False, path_type=Path), help="The owner's folder."
    )
    @functools.wraps(command)
    def wrapped(*args: Any, home: Path | None, **options: Any) -> None:  # noqa: ANN401
        with failures_told():
            command(*args, home=Home(home) if home else Home.default(), **options)

    return wrapped


def _with_platform(command: Callable[..., None]) -> Callable[..., None]:
    """Give *command* the owner's folder and where the platform is."""

    @click.option("--api", metavar="URL", help="The platform's https:// address.")
    @click.option("--ca", type=_FILE, help="The only CA to trust for it.")
    @click.option("--token-file", type=_FILE, help="Holds the API token.")
    @_with_home
    @functools.wraps(command)
    def wrapped(
        *args: Any,  # noqa: ANN401
        home: Home,
        api: str | None,
        ca: Path | None,
        token_file: Path | None,
        **options: Any,  # noqa: ANN401
    ) -> None:
        if api and ca and token_file:
            address = Address(api, ca, token_file)
        else:
            known = home.address()
            address = Address(api or known.url, ca or known.ca_file, token_file or known.token_file)
        command(*args, place=Place(home, address), **options)

    return wrapped


@click.group()
def owner() -> None:
    """Owners: your own key and whom you trust; on the platform, who they are."""


@owner.command()
@_with_home
def keygen(home: Home) -> None:
    """Make your owner key: only credentials signed with it are taken by your servers."""
    key = home.make_owner_key()
    fingerprint = owner_fingerprint(key.public_key().public_bytes_raw())
    click.echo(f"Made {home.key_file} (0600, no passphrase: guard this account and its backups).")
    click.echo("On each server's own console, type this fingerprint:\n")
    click.echo(f"    {fingerprint}\n")
    click.echo(f"as in: byok-vps join --owner {fingerprint}")


@owner.command()
@_with_home
def fingerprint(home: Home) -> None:
    """Print the fingerprint of your owner key, to type on a server's console."""
    click.echo(owner_fingerprint(home.owner_key().public_key().public_bytes_raw()))


@owner.command()
@click.argument("url")
@click.option("--ca", type=_FILE, required=True, help="The platform's CA certificate.")
@_with_home
def connect(url: str, ca: Path, home: Home) -> None:
    """Remember the platform at URL; asks for the API token, or reads it from standard input."""
    address = home.connect(url.rstrip("/"), ca.read_bytes(), asking.read_token())
    with PlatformApi(address) as platform:
        found = platform.servers()
    servers = ", ".join(server.server_id for server in found.servers) or "no servers yet"
    click.echo(f"Connected to {address.url} as {found.owner_id} ({servers}).")


@owner.command()
@click.argument("server_id", metavar="SERVER", type=_ID)
@_with_home
def forget(server_id: str, home: Home) -> None:
    """Forget SERVER's fingerprint, after it was set up anew."""
    known = home.pinned(server_id)
    home.pin(server_id, None)
    click.echo(f"{server_id} is no longer pinned (it was {in_fours(known) if known else 'not'}).")


@click.group()
def key() -> None:
    """Your credentials on your servers."""


@key.command("set", context_settings={"allow_extra_args": True})
@click.argument("server_id", metavar="SERVER", type=_ID)
@click.argument("slot_id", metavar="SLOT", type=_ID)
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
@_with_platform
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
@click.argument("server_id", metavar="SERVER", type=_ID)
@_with_platform
def status(server_id: str, place: Place) -> None:
    """Show how far each slot of SERVER has come."""
    with PlatformApi(place.address) as platform:
        show_status(platform.server(server_id), place.home.pinned(server_id), screen())


@click.command()
@click.option("--json", "as_json", is_flag=True, help="One JSON document.")
@click.option("--all", "every", is_flag=True, help="Dismissed and cleared ones, too.")
@_with_platform
def banners(place: Place, *, as_json: bool, every: bool) -> None:
    """List what needs your attention."""
    with PlatformApi(place.address) as platform:
        found = platform.banners()
    if as_json:
        click.echo(banner_list.as_json(found, every=every))
    else:
        screen().print(banner_list.as_table(found, every=every))


commands: Final[list[click.Command]] = [owner, key, banners]
"""For the root group; `provisioning.cli` adds the platform's own commands to `owner`."""
