"""`byok key …`: credentials on the owner's servers, from the paste to the revocation."""

import sys
import time
from collections.abc import Callable
from typing import Any, Final

import click

from bus_schemas.exit_codes import ExitCode
from bus_schemas.fields import at_utc
from bus_schemas.orders import OrderKind
from bus_schemas.providers import load_providers
from platform_handlers.owner.console import Failed, screen
from platform_handlers.owner.halted import halted
from platform_handlers.owner.keys import compromised as compromise
from platform_handlers.owner.keys import orders as key_orders
from platform_handlers.owner.keys import status as key_status
from platform_handlers.owner.keys.goals import Goal
from platform_handlers.owner.keys.orders import Desk, Slot
from platform_handlers.owner.keys.set import KeySet, set_key
from platform_handlers.owner.keys.set_command import set_
from platform_handlers.owner.keys.sharing import elsewhere
from platform_handlers.owner.keys.status import ServerStatus
from platform_handlers.owner.place import ID, SERVER, SLOT, Place, wait_option, with_platform
from platform_handlers.owner.platform_api import PlatformApi

_JSON: Final = click.option("--json", "as_json", is_flag=True, help="One JSON document.")
_YES: Final = click.option("--yes", is_flag=True, help="Do not ask whether it is meant.")
_WAIT: Final = wait_option(30.0)
_REVISION: Final = click.option(
    "--revision",
    type=click.IntRange(1, 10**15),
    help="This one and all before it; without it the newest.",
)


@click.group()
def key() -> None:
    """Your credentials on your servers."""


key.add_command(set_)


@key.command()
@click.argument("server_id", metavar="[SERVER]", type=ID, required=False)
@click.argument("slot_id", metavar="[SLOT]", type=ID, required=False)
@_JSON
@with_platform
def status(server_id: str | None, slot_id: str | None, place: Place, *, as_json: bool) -> None:
    """Show what is in use, what waits, and which key may be revoked.

    Without SERVER one line for each slot of all servers.
    """
    with PlatformApi(place.address) as platform:
        if server_id is None:
            names = [server.server_id for server in platform.servers().servers]
        else:
            names = [server_id]
            if slot_id is not None:
                platform.slot(server_id, slot_id)  # says so if there is none
        found = [_status(platform, place, name) for name in names]
    if as_json:
        click.echo(key_status.as_json(found, slot_id))
    elif server_id is None:
        screen().print(key_status.overview(found))
    else:
        screen().print(key_status.server_status(found[0], slot_id))


def _status(platform: PlatformApi, place: Place, server_id: str) -> ServerStatus:
    server = platform.server(server_id)
    histories = {slot.slot_id: platform.history(server_id, slot.slot_id) for slot in server.slots}
    halts = halted(platform.orders(server_id).orders)
    return ServerStatus(server, place.home.pinned(server_id), halts, histories, at_utc(time.time()))


@key.command()
@SERVER
@SLOT
@_JSON
@with_platform
def history(server_id: str, slot_id: str, place: Place, *, as_json: bool) -> None:
    """Show the newest rotations of SLOT, each with its steps and their times."""
    with PlatformApi(place.address) as platform:
        found = platform.history(server_id, slot_id)
    if as_json:
        click.echo(found.model_dump_json(indent=2))
    else:
        screen().print(key_status.history_table(found))


@key.command()
@SERVER
@SLOT
@click.option("--force", is_flag=True, help="Use the one that waits, although it is not tested.")
@_WAIT
@with_platform
def verify(place: Place, server_id: str, slot_id: str, *, force: bool, wait: float) -> None:
    """Have SERVER test the credential in SLOT with the provider now: the one that waits, if any.

    Exit code 0: the provider accepts it; 1: it does not, or the server refused; 75: its answer was
    unclear, or is not there yet.
    """
    _ends(place, Slot(server_id, slot_id), wait, lambda desk: key_orders.verify(desk, force=force))


@key.command()
@SERVER
@SLOT
@_WAIT
@with_platform
def abort(place: Place, server_id: str, slot_id: str, wait: float) -> None:
    """Have SERVER give up the credential that waits for its test; the one in use goes on.

    Exit code 0: it said so; 1: it refused, or none waits; 75: no answer yet, the order waits for a
    day.
    """
    _ends(place, Slot(server_id, slot_id), wait, key_orders.abort)


@key.command()
@SERVER
@SLOT
@_REVISION
@_YES
@_WAIT
@with_platform
def retire(place: Place, server_id: str, slot_id: str, wait: float, **options: Any) -> None:  # noqa: ANN401 (as `_retire`)
    """Have SERVER never use the credential in SLOT again, and take it out of its vault.

    Exit code 0: it said so; 1: it refused; 75: no answer yet, the order waits for 30 days.
    """
    _ends(place, Slot(server_id, slot_id), wait, lambda desk: _retire(desk, **options))


def _retire(desk: Desk, *, revision: int | None, yes: bool) -> ExitCode:
    _, course = desk.look()
    number = key_orders.to_retire(course, revision)
    _confirm(f"{desk.slot}: {key_orders.what_goes(course, number)}.", yes=yes)
    return desk.order(OrderKind.RETIRE, number)


@key.command()
@SERVER
@SLOT
@_REVISION
@_YES
@click.option("--base-url", metavar="URL", help="Of the new key, if not at its usual place.")
@_WAIT
@with_platform
def compromised(
    place: Place,
    server_id: str,
    slot_id: str,
    wait: float,
    **options: Any,  # noqa: ANN401
) -> None:
    """Stop the use of the credential in SLOT at once, and say what to do next, in order.

    On a terminal it then asks for the new key. Exit code 0: the server uses the old one no more;
    1: it refused; 75: no answer yet, the order waits for 30 days.
    """
    _ends(place, Slot(server_id, slot_id), wait, lambda desk: _compromised(desk, **options))


def _compromised(desk: Desk, *, revision: int | None, yes: bool, base_url: str | None) -> ExitCode:
    slot, course = compromise.look(desk)
    number = key_orders.to_retire(course, revision)
    _confirm(f"{desk.slot}: {key_orders.what_goes(course, number)}.", yes=yes)
    # Looked up first: once the server has retired it, the banners know of nobody any more.
    others = elsewhere(desk.platform, (desk.slot.server_id,), desk.slot.slot_id)
    code = compromise.stop_use(desk, number)
    provider = load_providers().get(slot.provider)
    desk.console.print(compromise.steps(provider, slot.kind, desk.slot.words, others))
    if not (
        sys.stdin.isatty() and click.confirm("\nSend the new one now?", default=True, err=True)
    ):
        return code
    wish = KeySet(
        servers=(desk.slot.server_id,),
        slot_id=desk.slot.slot_id,
        kind=slot.kind,
        provider=None,
        base_url=base_url,
        fingerprints={},
        until=Goal.VERIFIED,
        wait=max(desk.wait, 60.0),
    )
    sent = set_key(desk.platform, desk.home, wish, desk.console)
    return code or sent


def _confirm(what: str, *, yes: bool) -> None:
    if not yes:
        click.echo(what, err=True)
        if not click.confirm("Go on?", err=True):
            raise Failed("nothing was ordered, nothing has changed", ExitCode.NEGATIVE)


def _ends(place: Place, slot: Slot, wait: float, act: Callable[[Desk], ExitCode]) -> None:
    """End the command with the exit code of *act*."""
    with PlatformApi(place.address) as platform:
        code = act(Desk(platform, place.home, screen(), slot, wait))
    click.get_current_context().exit(code)
