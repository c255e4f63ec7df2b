"""Puts the resolver where OpenClaw runs it."""

import os
import sys
from pathlib import Path
from typing import Final

from bus_schemas.errors import Refused
from vps_runtime.resolver import script

_PYTHON: Final = Path("/usr/bin/python3")


def plan_beside(resolver: Path) -> Path:
    """Return where the plan for `openclaw secrets apply` lies."""
    return resolver.with_name(f"{resolver.name}.plan.json")


def install_plan(resolver: Path, plan: str, uid: int) -> None:
    """Write *plan* beside *resolver*, for the user *uid* to read. Raises OSError."""
    _put(plan_beside(resolver), plan, 0o400, uid)


def install(path: Path, uid: int) -> None:
    """Write the resolver to *path*, for the user *uid* to run. Raises Refused, OSError.

    OpenClaw runs it only as a regular file that belongs to its own user and that nobody else can
    write. It is written anew each time: an old one is replaced, not followed.
    """
    if uid != os.geteuid() and os.geteuid() != 0:
        detail = "only root can give a file to another user; run this as root or as that user"
        raise Refused("not_yours", detail)
    python = _PYTHON if _PYTHON.exists() else Path(sys.executable).resolve()
    content = Path(script.__file__).read_text("utf-8")
    path.parent.mkdir(mode=0o755, parents=True, exist_ok=True)
    _put(path, f"#!{python} -I\n{content}", 0o500, uid)


def _put(path: Path, content: str, mode: int, uid: int) -> None:
    path.unlink(missing_ok=True)
    handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, mode)
    with os.fdopen(handle, "w", encoding="utf-8") as file:
        file.write(content)
        os.fchmod(handle, mode)
        os.fchown(handle, uid, -1)
