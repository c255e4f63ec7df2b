"""The options of `byok-vps run` that are about the gateway."""

import functools
import os
from collections.abc import Callable
from pathlib import Path

import click

from vps_runtime.gateway.server import DEFAULT_PORT, GatewayOptions
from vps_runtime.options import agent_user_option

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
    agent_user_option,
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
