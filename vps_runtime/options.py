"""The options that several commands of `byok-vps` have."""

import pwd
from pathlib import Path
from typing import Final

import click

from vps_runtime.state import DEFAULT_FOLDER

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


state_option: Final = click.option(
    "--state",
    "folder",
    envvar="BYOK_VPS_STATE",
    type=click.Path(path_type=Path, file_okay=False),
    default=DEFAULT_FOLDER,
    show_default=True,
    show_envvar=True,
    help="Folder of this server's state.",
)
agent_user_option: Final = click.option(
    "--agent-user",
    envvar="BYOK_VPS_AGENT_USER",
    type=_User(),
    metavar="USER",
    show_envvar=True,
    help="The user the agent runs as, by name or number, whom the sockets answer; the user of this"
    " command unless set.",
)
