"""The server's `ca.pem`: which CAs it trusts, and how the next one gets in without a person."""

import time
from pathlib import Path

import structlog

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

_log = structlog.get_logger(__name__)


def trusted_ids(ca_file: Path) -> tuple[str, ...]:
    """Return the ids of the CAs in *ca_file*; none if it cannot be read, which TLS tells better."""
    try:
        return tuple(authority_id(ca) for ca in read_authorities(ca_file.read_bytes()))
    except (OSError, ValueError):
        return ()


def take_authorities(ca_file: Path, offered: SignedAuthorities | None) -> bool:
    """Bring *ca_file* up to what *offered* may say; return whether it has changed.

    A list that is refused is logged and changes nothing: the tokens that came along are good.
    The next handshake reads the file anew. Raises OSError when the file cannot be written.
    """
    if offered is None:
        return False
    try:
        trusted = read_authorities(ca_file.read_bytes())
        admitted = admit(trusted, offered, at=at_utc(time.time()))
    except (Refused, ValueError) as error:
        _log.warning("authorities_refused", error=str(error))
        return False
    if admitted == trusted:
        return False
    write_private(ca_file, write_authorities(admitted))
    _log.info("authorities_changed", trusted=[authority_id(ca) for ca in admitted])
    return True
