"""The connection of one platform role, signed in with that role's own credentials file."""

from bus_schemas.flows import Role
from bus_schemas.transport.connection import Bus
from bus_schemas.transport.credentials import parse_credentials
from bus_schemas.transport.target import BusTarget
from platform_handlers.authority.installation import Installation


def role_bus(installation: Installation, target: BusTarget, role: Role) -> Bus:
    """Return *role*'s connection, not yet open. Raises OSError when its file cannot be read."""
    credentials = parse_credentials(installation.credentials(role).read_text())
    return Bus(target, role.value, lambda: credentials, api=role.api)
