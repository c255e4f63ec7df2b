"""The owner's `ca.pem` follows the platform's CAs, as far as those are signed by a trusted one."""

import contextlib
import time
from pathlib import Path

from bus_schemas.authorities import (
    SignedAuthorities,
    admit,
    authority_id,
    read_authorities,
    write_authorities,
)
from bus_schemas.errors import Refused
from bus_schemas.fields import at_utc
from bus_schemas.transport.private_files import write_private


def differ(ca_file: Path, named: str) -> bool:
    """Whether *ca_file* holds other CAs than those *named* (ids with blanks between)."""
    try:
        trusted = read_authorities(ca_file.read_bytes())
    except (OSError, ValueError):
        return False
    return {authority_id(ca) for ca in trusted} != set(named.split())


def follow(ca_file: Path, offered: SignedAuthorities) -> None:
    """Bring *ca_file* up to what *offered* may say; a list that is refused changes nothing."""
    with contextlib.suppress(Refused, OSError, ValueError):
        trusted = read_authorities(ca_file.read_bytes())
        admitted = admit(trusted, offered, at=at_utc(time.time()))
        if admitted != trusted:
            write_private(ca_file, write_authorities(admitted))
