"""`byok init`, `byok owner …`, `byok server …`: setting up, and who comes and goes."""

import asyncio
import re
import time
from collections.abc import Awaitable, Callable
from datetime import datetime
from pathlib import Path
from typing import TypeVar

import click

from bus_schemas.api import sign_in_link
from bus_schemas.errors import Refused
from bus_schemas.fields import at_utc
from bus_schemas.join_token import JoinToken
from bus_schemas.keys import server_fingerprint
from platform_handlers.authority.initialise import InitPlan, initialise
from platform_handlers.authority.server_conf import BusAddress
from platform_handlers.owner import order_commands
from platform_handlers.owner.cli import approve, owner
from platform_handlers.provisioning.enrolment import Enrolments
from platform_handlers.provisioning.join_token import issue_join_token, renew_join_token
from platform_handlers.provisioning.records import JoinAttempt, ServerRecord, ServerState
from platform_handlers.provisioning.registry import FILE_NAME, Registry
from platform_handlers.provisioning.revocation import ShutOut
from platform_handlers.provisioning.sign_ins import SignIns
from platform_handlers.provisioning.turn_away import NotYetVerified, turn_away
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
    click.echo(sign_in_link(url, secret))


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


for _command in order_commands.for_servers:
    server.add_command(_command)
server.add_command(approve)  # the owner's: it signs with a key that the platform has not


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
    _print_token(server_id, token)


def _print_token(server_id: str, token: JoinToken) -> None:
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
    """Show one server, and who used its join token or tried to."""

    async def look(registry: Registry) -> tuple[ServerRecord, list[JoinAttempt]]:
        record = await registry.require_server(server_id)
        return record, await Enrolments(registry).attempts(server_id)

    record, attempts = _with_registry(settings, look)
    for name, value in [*_lines(record), *_attempt_lines(attempts)]:
        click.echo(f"{name:14} {value}")


@server.command()
@click.argument("server_id", metavar="SERVER")
@click.option("--confirm", metavar="SERVER", help="The id once more, instead of typing it.")
@click.pass_obj
def reenrol(settings: Settings, server_id: str, confirm: str | None) -> None:
    """Let another machine become SERVER: the present one is out at once.

    Prints a join token: an hour, one use. What was sealed for the old machine opens on the new
    one no more, so each slot will report that it needs its key. Exit code 1: a nats-server has
    not confirmed that the old machine is out.
    """
    question = f"The machine that is {server_id} now will be out for good. Type the id again"
    if (confirm or click.prompt(question, err=True)) != server_id:
        raise click.BadParameter(f"that is not {server_id}; nothing has changed", param_hint="id")
    installation, target = settings.installation(), settings.target()

    async def run(registry: Registry) -> ShutOut:
        token = await renew_join_token(installation, registry, target.url, server_id)
        _print_token(server_id, token)
        return await turn_away(installation, target, registry, server_id)

    _check_verified(server_id, _with_registry(settings, run), err=True)


@server.command()
@click.argument("server_id", metavar="SERVER")
@click.option("--reason", required=True, help="Why, as a short code of a-z, 0-9 and _.")
@click.pass_obj
def deprovision(settings: Settings, server_id: str, reason: str) -> None:
    """Remove SERVER for good; its id is never issued again.

    Exit code 1: a nats-server has not confirmed it, or a connection is still open.
    """
    check_reason(reason)
    end_server(settings, server_id, ServerState.DEPROVISIONED, reason)


def check_reason(reason: str) -> None:
    """Raise BadParameter unless *reason* is a reason code."""
    if not _REASON.fullmatch(reason):
        raise click.BadParameter("1 to 64 of a-z, 0-9 and _", param_hint="--reason")


def end_server(settings: Settings, server_id: str, state: ServerState, reason: str) -> None:
    """Change the registry, turn the server away, and print what was verified.

    Raises NotYetVerified, Refused.
    """
    installation, target = settings.installation(), settings.target()

    async def run(registry: Registry) -> ShutOut:
        await registry.set_state(server_id, state, reason)
        click.echo(f"{server_id} is {state}: it gets no more tokens and cannot unlock")
        return await turn_away(installation, target, registry, server_id)

    _check_verified(server_id, _with_registry(settings, run))
    click.echo("the ledger tells of it")


def _check_verified(server_id: str, seen: ShutOut, *, err: bool = False) -> None:
    """Print what was verified. Raises NotYetVerified unless all was."""
    for line in seen.lines():
        click.echo(line, err=err)
    if not seen.verified:
        detail = "the platform's issuer goes on trying; `byok doctor` tells when it is done"
        raise NotYetVerified(f"{server_id} is not verified to be out: {detail}")


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
        ("join token", f"good until {_when(join.expires_at)}" if join.used_at is None else "used"),
        ("  used", _trace(join.used_at, join.used_from)),
        ("  refused", _trace(join.tried_at, join.tried_from)),
        ("ended", _when(record.ended_at)),
    ]


def _attempt_lines(attempts: list[JoinAttempt]) -> list[tuple[str, object]]:
    return [("  attempt", f"{_trace(a.at, a.source)}: {a.outcome}") for a in attempts]


def _when(at: int | None) -> str:
    return "-" if at is None else datetime.isoformat(at_utc(at))


def _trace(at: int | None, source: str | None) -> str:
    return "never" if at is None else f"{_when(at)} from {source}"
