"""The option that nearly every command of `byok-vps` has."""

from pathlib import Path
from typing import Final

import click

from vps_runtime.state import DEFAULT_FOLDER

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
