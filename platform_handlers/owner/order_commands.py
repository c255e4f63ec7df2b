"""The commands that give servers a signed order, for the groups `key`, `owner` and `server`."""

from collections.abc import Callable
from typing import Any, Final

import click

from bus_schemas.keys import fingerprint_typed
from bus_schemas.orders import Instruction, OrderKind
from platform_handlers.owner.console import screen
from platform_handlers.owner.ordering import Ordering, chosen_servers, give_orders, order_table
from platform_handlers.owner.place import SERVER, SLOT, Place, named, wait_option, with_platform
from platform_handlers.owner.platform_api import PlatformApi

_FINGERPRINT: Final = click.argument("fingerprint", metavar="FINGERPRINT")
_WAIT: Final = wait_option(30.0)
_SERVERS: Final = click.option("--servers", metavar="A,B", help="On these servers.")
_ALL: Final = click.option("--all", "every", is_flag=True, help="On all your servers.")


@click.command()
@SERVER
@_WAIT
@with_platform
def lock(server_id: str, wait: float, place: Place) -> None:
    """Have SERVER drop every key from its memory; only you can unlock it again.

    Exit code 0: it said so; 1: it refused; 75: no answer yet, the order waits for 30 days.
    """
    _give(place, (server_id,), Instruction(OrderKind.LOCK), wait)


@click.command()
@SERVER
@_WAIT
@with_platform
def unlock(server_id: str, wait: float, place: Place) -> None:
    """Lift the lock of SERVER, whoever ordered it; it then unlocks by itself.

    Exit code 0: it said so; 1: it refused; 75: no answer yet, the order waits for a day.
    """
    _give(place, (server_id,), Instruction(OrderKind.UNLOCK), wait)


@click.command()
@SERVER
@with_platform
def orders(server_id: str, place: Place) -> None:
    """List the orders that wait for SERVER, and what it answered to the latest ones."""
    with PlatformApi(place.address) as platform:
        screen().print(order_table(platform.orders(server_id)))


@click.command()
@SERVER
@SLOT
@_WAIT
@with_platform
def stop(server_id: str, slot_id: str, wait: float, place: Place) -> None:
    """Have SERVER use the credential in SLOT no more; it stays in the vault.

    Exit code 0: it said so; 1: it refused; 75: no answer yet, the order waits for 30 days.
    """
    _give(place, (server_id,), Instruction(OrderKind.STOP_SLOT, slot_id=slot_id), wait)


@click.command()
@SERVER
@SLOT
@_WAIT
@with_platform
def resume(server_id: str, slot_id: str, wait: float, place: Place) -> None:
    """Let SERVER use the credential in SLOT again, whoever stopped it.

    Exit code 0: it said so; 1: it refused; 75: no answer yet, the order waits for a day.
    """
    _give(place, (server_id,), Instruction(OrderKind.RESUME_SLOT, slot_id=slot_id), wait)


@click.command()
@_FINGERPRINT
@_SERVERS
@_ALL
@_WAIT
@with_platform
def trust(fingerprint: str, place: Place, **options: Any) -> None:  # noqa: ANN401 (as `_to_some`)
    """Have your servers obey one owner key more: a second device, a colleague.

    Read the FINGERPRINT on that device itself (`byok owner fingerprint`). Exit code 0: all said
    so; 1: one refused; 75: one has not answered yet, the order waits for a day.
    """
    _to_some(place, OrderKind.TRUST, fingerprint, **options)


@click.command()
@_FINGERPRINT
@_SERVERS
@_ALL
@_WAIT
@with_platform
def distrust(fingerprint: str, place: Place, **options: Any) -> None:  # noqa: ANN401 (as `_to_some`)
    """Have your servers obey an owner key no more: a lost device, a departed colleague.

    The last key that a server obeys can be removed on its console only. Exit code 0: all said so;
    1: one refused; 75: one has not answered yet, the order waits for 30 days.
    """
    _to_some(place, OrderKind.DISTRUST, fingerprint, **options)


for_servers: Final[tuple[click.Command, ...]] = (lock, unlock, orders)
"""For the platform's `server` group: they are the owner's, since the platform has not their key."""


def _to_some(
    place: Place,
    kind: OrderKind,
    fingerprint: str,
    *,
    servers: str | None,
    every: bool,
    wait: float,
) -> None:
    chosen = named(servers)
    what = Instruction(kind, argument=fingerprint_typed(fingerprint))
    _give(place, lambda platform: chosen_servers(platform, chosen, every=every), what, wait)


def _give(
    place: Place,
    servers: tuple[str, ...] | Callable[[PlatformApi], Any],
    what: Instruction,
    wait: float,
) -> None:
    with PlatformApi(place.address) as platform:
        names = servers(platform) if callable(servers) else servers
        code = give_orders(platform, place.home, Ordering(names, what, wait), screen())
    click.get_current_context().exit(code)
