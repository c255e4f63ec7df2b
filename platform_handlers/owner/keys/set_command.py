"""The command line of `byok key set`: which servers, which slot, never the credential itself."""

import re
from collections.abc import Mapping, Sequence
from typing import Any, Final

import click

from bus_schemas.fields import ID_PATTERN, CredentialKind
from platform_handlers.owner.console import screen
from platform_handlers.owner.keys.goals import Goal
from platform_handlers.owner.keys.set import KeySet, set_key
from platform_handlers.owner.place import Place, named, wait_option, with_platform
from platform_handlers.owner.platform_api import PlatformApi

_IN_ARGUMENTS: Final = (
    "A credential typed there is in your shell's history now, and others could read it: make a "
    "new one, and paste it when asked"
)


@click.command("set")
@click.argument("places", nargs=-1, metavar="[SERVER] SLOT")
@click.option("--servers", metavar="A,B", help="Instead of SERVER: the same for each of these.")
@click.option("--provider", metavar="ID", help="Needed for a new slot.")
@click.option(
    "--kind",
    type=click.Choice([kind.value for kind in CredentialKind]),
    default=CredentialKind.API_KEY.value,
    show_default=True,
)
@click.option("--base-url", metavar="URL", help="Where the provider is, if not at its usual place.")
@click.option(
    "--server-fingerprint",
    "typed",
    metavar="FP",
    multiple=True,
    help="What SERVER's console shows; not a secret. For several: SERVER=FP, once for each.",
)
@click.option(
    "--until",
    type=click.Choice([goal.value for goal in Goal]),
    default=Goal.VERIFIED.value,
    show_default=True,
    help="How far to wait. In-use waits for a call of the agent's.",
)
@wait_option(60.0)
@with_platform
def set_(
    place: Place,
    places: tuple[str, ...],
    servers: str | None,
    kind: str,
    typed: tuple[str, ...],
    until: str,
    **options: Any,  # noqa: ANN401 (as KeySet has them)
) -> None:
    """Seal a credential for SERVER and send it; asks for it, or reads it from standard input.

    The server stores it, has the provider test it, and uses it from then on. For --kind oauth it
    is a JSON document. Exit code 0: as far as --until says; 1: the server or the provider refused
    it; 75: not there yet. Of several servers the worst counts. Running it again is harmless.
    """
    several, slot_id = _places(places, servers)
    wish = KeySet(
        servers=several,
        slot_id=slot_id,
        kind=CredentialKind(kind),
        fingerprints=_fingerprints(typed, several),
        until=Goal(until),
        **options,
    )
    with PlatformApi(place.address) as platform:
        code = set_key(platform, place.home, wish, screen())
    click.get_current_context().exit(code)


def _places(places: Sequence[str], servers: str | None) -> tuple[tuple[str, ...], str]:
    """Return the servers and the slot that were named.

    What is no id is not repeated, as click would: it is most likely the credential.
    """
    wanted = "SLOT" if servers else "SERVER and SLOT"
    count = 1 if servers else 2
    if len(places) > count:
        raise click.UsageError(f"only {wanted} can be arguments here. {_IN_ARGUMENTS}")
    if not all(re.fullmatch(ID_PATTERN, name) for name in places):
        detail = "an id is 1 to 63 of a-z, 0-9 and -"
        raise click.UsageError(f"what is in place of {wanted} is no id: {detail}. {_IN_ARGUMENTS}")
    if len(places) < count:
        raise click.UsageError(f"{wanted} missing; for several servers: SLOT --servers a,b")
    chosen = named(servers) if servers else (places[0],)
    if not chosen:
        raise click.UsageError("--servers names none")
    return chosen, places[-1]


def _fingerprints(typed: Sequence[str], servers: Sequence[str]) -> Mapping[str, str]:
    """Return what was typed, by server."""
    found: dict[str, str] = {}
    for text in typed:
        server_id, equals, fingerprint = text.partition("=")
        if not equals:
            server_id, fingerprint = servers[0], text
            if len(servers) > 1:
                raise click.UsageError("for several servers: --server-fingerprint SERVER=FP")
        if server_id not in servers:
            raise click.UsageError(f"--server-fingerprint: {server_id!r} is not among the servers")
        found[server_id] = fingerprint
    return found
