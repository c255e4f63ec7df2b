"""The options of `byok-vps run` that are about the gateway."""

import functools
import os
import pwd
from collections.abc import Callable
from pathlib import Path
from typing import Final

import click

from vps_runtime.gateway.server import DEFAULT_PORT, GatewayOptions

_NOBODY: Final = 65534
"""Whom the kernel names in place of a user that it cannot name (user_namespaces(7))."""


class _User(click.ParamType[int]):
    """A user of this machine, by name or number."""

    name = "user"

    def convert(
        self, value: object, param: click.Parameter | None, ctx: click.Context | None
    ) -> int:
        """Return the user's number."""
        text = str(value)
        try:
            user = int(text) if text.isdecimal() else pwd.getpwnam(text).pw_uid
        except KeyError:
            self.fail(f"this machine has no user {text}", param, ctx)
        if user == _NOBODY:
            self.fail(f"user {user} may be anybody; set PrivateUsers=no in the unit", param, ctx)
        return user


_OPTIONS = (
    click.option(
        "--gateway-port",
        envvar="BYOK_VPS_GATEWAY_PORT",
        type=click.IntRange(0, 65535),
        default=DEFAULT_PORT,
        show_default=True,
        show_envvar=True,
        help="Port on 127.0.0.1 where the agent's calls are taken; 0 takes a free one.",
    ),
    click.option(
        "--gateway-socket",
        envvar="BYOK_VPS_GATEWAY_SOCKET",
        type=click.Path(path_type=Path, dir_okay=False),
        show_envvar=True,
        help="The same as a Unix socket; `gateway.sock` in the state folder unless set.",
    ),
    click.option(
        "--agent-user",
        envvar="BYOK_VPS_AGENT_USER",
        type=_User(),
        metavar="USER",
        show_envvar=True,
        help="Whom the sockets answer: the user the agent runs as, by name or number; the user of"
        " this command unless set.",
    ),
)


def gateway_options(command: Callable[..., None]) -> Callable[..., None]:
    """Give *command* the options; it gets one GatewayOptions, called `gateway`."""

    @functools.wraps(command)
    def told(
        *,
        gateway_port: int,
        gateway_socket: Path | None,
        agent_user: int | None,
        **rest: object,
    ) -> None:
        user = os.geteuid() if agent_user is None else agent_user
        command(gateway=GatewayOptions(gateway_port, gateway_socket, user), **rest)

    for option in reversed(_OPTIONS):
        told = option(told)
    return told
