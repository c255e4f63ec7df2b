"""`byok init`, `byok owner …`, `byok server …`: setting up, and who comes and goes."""

import asyncio
import re
import time
from collections.abc import Awaitable, Callable
from datetime import datetime
from pathlib import Path
from typing import TypeVar

import click

from bus_schemas.errors import Refused
from bus_schemas.fields import at_utc
from bus_schemas.keys import server_fingerprint
from platform_handlers.authority.initialise import InitPlan, initialise
from platform_handlers.authority.server_conf import BusAddress
from platform_handlers.owner.cli import owner
from platform_handlers.provisioning.join_token import issue_join_token
from platform_handlers.provisioning.records import ServerRecord, ServerState
from platform_handlers.provisioning.registry import FILE_NAME, Registry
from platform_handlers.provisioning.sign_ins import SignIns
from platform_handlers.provisioning.turn_away import turn_away
from platform_handlers.settings import Settings

_T = TypeVar("_T")
_LOCAL = ("localhost", "127.0.0.1")
_ANY_ADDRESS = {"0.0.0.0", "::", "*"}  # noqa: S104 (recognised, not bound)
_REASON = re.compile(r"[a-z0-9_]{1,64}")


@click.command()
@click.argument("folder", metavar="DIR", type=click.Path(path_type=Path))
@click.option("--listen", default="127.0.0.1:4222", show_default=True, metavar="HOST:PORT")
@click.option("--host", "hosts", multiple=True, help="Name for the TLS certificates; repeatable.")
def init(folder: Path, listen: str, hosts: tuple[str, ...]) -> None:
    """Make a new installation in DIR: keys, accounts, certificates, configuration."""
    address = _address(listen)
    own = () if address.host in _ANY_ADDRESS else (address.host,)
    names = tuple(dict.fromkeys((*hosts, *own, *_LOCAL)))
    installation = initialise(folder, InitPlan(address, names), now=int(time.time()))
    click.echo(f"{installation.root} is ready; next: byok --state {folder} nats run")


@owner.command("add")
@click.argument("owner_id", metavar="OWNER")
@click.pass_obj
def add_owner(settings: Settings, owner_id: str) -> None:
    """Add OWNER and print the token for the API, this once."""
    token = _with_registry(settings, lambda registry: registry.add_owner(owner_id))
    click.echo(f"API token of {owner_id}; it is not shown again:", err=True)
    click.echo(token)


@owner.command("list")
@click.pass_obj
def list_owners(settings: Settings) -> None:
    """List all owners."""
    for owner_id in _with_registry(settings, lambda registry: registry.owners()):
        click.echo(owner_id)


@owner.command("link")
@click.argument("owner_id", metavar="OWNER")
@click.pass_obj
def link_owner(settings: Settings, owner_id: str) -> None:
    """Print a sign-in link to OWNER's page: 15 minutes, one use."""
    url = _api_url(settings)
    secret = _with_registry(settings, lambda registry: SignIns(registry).make_link(owner_id))
    click.echo(f"{url}/login/{secret}")


def _api_url(settings: Settings) -> str:
    """Return where the page is. Raises Refused(`api_unknown`)."""
    path = settings.installation().api_url
    try:
        return path.read_text("ascii").strip()
    except FileNotFoundError:
        detail = f"{path} is not there; start `byok platform run` first"
        raise Refused("api_unknown", detail) from None


@click.group()
def server() -> None:
    """Add, look at and turn away servers."""


@server.command("add")
@click.argument("owner_id", metavar="OWNER")
@click.argument("server_id", metavar="SERVER")
@click.pass_obj
def add_server(settings: Settings, owner_id: str, server_id: str) -> None:
    """Issue the id SERVER to OWNER and print its join token: an hour, one use."""
    installation, url = settings.installation(), settings.target().url
    token = _with_registry(
        settings,
        lambda registry: issue_join_token(installation, registry, url, (owner_id, server_id)),
    )
    click.echo(f"join token of {server_id}, good for an hour and one use; on the server:", err=True)
    click.echo("  byok-vps join --owner FINGERPRINT      (it asks for the token)", err=True)
    click.echo(token.encode())


@server.command("list")
@click.option("--owner", "owner_id", help="Of this owner only.")
@click.pass_obj
def list_servers(settings: Settings, owner_id: str | None) -> None:
    """List servers with their owner and state."""
    for record in _with_registry(settings, lambda registry: registry.servers(owner_id)):
        click.echo(f"{record.server_id:24} {record.owner_id:24} {record.state}")


@server.command("show")
@click.argument("server_id", metavar="SERVER")
@click.pass_obj
def show_server(settings: Settings, server_id: str) -> None:
    """Show one server, and who used its join token."""
    record = _with_registry(settings, lambda registry: registry.require_server(server_id))
    for name, value in _lines(record):
        click.echo(f"{name:14} {value}")


@server.command()
@click.argument("server_id", metavar="SERVER")
@click.option("--reason", default="revoked_by_operator", show_default=True)
@click.pass_obj
def revoke(settings: Settings, server_id: str, reason: str) -> None:
    """Turn SERVER away at once; what it holds stays known."""
    _end(settings, server_id, ServerState.REVOKED, reason)


@server.command()
@click.argument("server_id", metavar="SERVER")
@click.option("--reason", required=True, help="Why, as a short code of a-z, 0-9 and _.")
@click.pass_obj
def deprovision(settings: Settings, server_id: str, reason: str) -> None:
    """Remove SERVER for good; its id is never issued again."""
    _end(settings, server_id, ServerState.DEPROVISIONED, reason)


def _end(settings: Settings, server_id: str, state: ServerState, reason: str) -> None:
    if not _REASON.fullmatch(reason):
        raise click.BadParameter("1 to 64 of a-z, 0-9 and _", param_hint="--reason")
    installation, target = settings.installation(), settings.target()

    async def run(registry: Registry) -> None:
        await registry.set_state(server_id, state, reason)
        click.echo(f"{server_id} is {state}: it gets no more tokens and cannot unlock")
        for line in await turn_away(installation, target, registry, server_id):
            click.echo(line)

    _with_registry(settings, run)


def _with_registry(settings: Settings, work: Callable[[Registry], Awaitable[_T]]) -> _T:
    path = settings.installation().platform / FILE_NAME

    async def run() -> _T:
        async with await Registry.open(path) as registry:
            return await work(registry)

    return asyncio.run(run())


def _address(listen: str) -> BusAddress:
    host, _, port = listen.rpartition(":")
    try:
        number = int(port)
    except ValueError:
        number = -2
    if not host or not -1 <= number <= 0xFFFF:  # noqa: PLR2004 (-1: the kernel chooses)
        raise click.BadParameter(f"{listen} is not HOST:PORT", param_hint="--listen")
    return BusAddress(host.strip("[]"), number)


def _lines(record: ServerRecord) -> list[tuple[str, object]]:
    key, join = record.identity_key, record.join
    return [
        ("server", record.server_id),
        ("owner", record.owner_id),
        ("state", record.state if record.reason is None else f"{record.state} ({record.reason})"),
        ("fingerprint", server_fingerprint(record.server_id, key) if key else "not enrolled yet"),
        ("enrolled", _when(record.enrolled_at)),
        ("join token", f"good until {_when(join.expires_at)}"),
        ("  used", _trace(join.used_at, join.used_from)),
        ("  refused", _trace(join.tried_at, join.tried_from)),
        ("ended", _when(record.ended_at)),
    ]


def _when(at: int | None) -> str:
    return "-" if at is None else datetime.isoformat(at_utc(at))


def _trace(at: int | None, source: str | None) -> str:
    return "never" if at is None else f"{_when(at)} from {source}"
