"""What the owner's commands have in common: ids, the owner's folder, and where the platform is."""

import functools
import math
import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import click

from bus_schemas.fields import ID_PATTERN
from bus_schemas.transport.private_process import forbid_dumps
from platform_handlers.owner.console import failures_told
from platform_handlers.owner.home import Address, Home

FILE: Final = click.Path(exists=True, dir_okay=False, path_type=Path)


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


class _Seconds(click.FloatRange):
    def convert(
        self,
        value: Any,  # noqa: ANN401 (click's signature)
        param: click.Parameter | None,
        ctx: click.Context | None,
    ) -> float:
        """Refuse what is no number: nothing is ever later than `nan`."""
        seconds = super().convert(value, param, ctx)
        if math.isnan(seconds):
            self.fail(f"{value!r} is no number", param, ctx)
        return seconds


ID: Final = _Id()
SERVER: Final = click.argument("server_id", metavar="SERVER", type=ID)
SLOT: Final = click.argument("slot_id", metavar="SLOT", type=ID)


def wait_option(default: float) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Return the option that says how long to wait for a server's word."""
    return click.option(
        "--wait", type=_Seconds(0, 3600), default=default, show_default=True, help="s"
    )


def named(text: str | None) -> tuple[str, ...]:
    """Return the ids in *text*, which has commas between them, each once."""
    return tuple(dict.fromkeys(ID(name.strip()) for name in (text or "").split(",") if name))


def with_home(command: Callable[..., None]) -> Callable[..., None]:
    """Give *command* the owner's folder and tell its failures in one sentence."""

    @click.option(
        "--home", type=click.Path(file_okay=False, path_type=Path), help="The owner's folder."
    )
    @functools.wraps(command)
    def wrapped(*args: Any, home: Path | None, **options: Any) -> None:  # noqa: ANN401
        with failures_told():
            forbid_dumps()  # before the first key or token is read
            command(*args, home=Home(home) if home else Home.default(), **options)

    return wrapped


def with_platform(command: Callable[..., None]) -> Callable[..., None]:
    """Give *command* the owner's folder and where the platform is."""

    @click.option("--api", metavar="URL", help="The platform's https:// address.")
    @click.option("--ca", type=FILE, help="The only CA to trust for it.")
    @click.option("--token-file", type=FILE, help="Holds the API token.")
    @with_home
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
            address = Address(
                api or known.url,
                ca or known.ca_file,
                token_file or known.token_file,
                keeps_ca=ca is None,
            )
        command(*args, place=Place(home, address), **options)

    return wrapped
