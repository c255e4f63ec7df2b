"""What the platform publishes of its CAs, and which ones each server has said it trusts."""

import json
from collections.abc import Collection

import structlog

from bus_schemas.authorities import SignedAuthorities
from bus_schemas.transport.database import StorageFull, fetch_one, read_beside, transaction
from platform_handlers.authority.installation import Installation, read_signed_authorities
from platform_handlers.provisioning.records import ServerState
from platform_handlers.provisioning.registry import FILE_NAME, Registry

_log = structlog.get_logger(__name__)


class AuthorityBook:
    """The published list, and who has it."""

    def __init__(self, registry: Registry, installation: Installation) -> None:
        self._registry = registry
        self._installation = installation

    def published(self) -> SignedAuthorities | None:
        """Return the signed list; None where it is missing or damaged, which `doctor` tells."""
        try:
            return read_signed_authorities(self._installation)
        except (OSError, ValueError):
            return None

    async def told(self, server_id: str, authorities: Collection[str]) -> None:
        """Note what *server_id* trusts; a full disk must not keep it from its tokens."""
        body = json.dumps(sorted(authorities))
        database = self._registry.database
        query = "SELECT authorities FROM trusted_authorities WHERE server_id = ?"
        row = await fetch_one(database, query, (server_id,))
        if row and row[0] == body:  # nearly always: and nothing is written
            return
        try:
            async with transaction(database):
                await database.execute(
                    "INSERT OR REPLACE INTO trusted_authorities VALUES (?, ?)", (server_id, body)
                )
        except StorageFull as error:
            _log.warning("authorities_not_noted", server=server_id, error=str(error))


def trusted_by_servers(installation: Installation) -> dict[str, frozenset[str] | None]:
    """Return which CAs each active server trusts; None for one that has not said yet.

    Read beside the running platform. Blocks. Raises sqlite3.Error.
    """
    registry = installation.platform / FILE_NAME
    active = "SELECT server_id FROM servers WHERE state = ? ORDER BY server_id"
    told = read_beside(registry, "SELECT server_id, authorities FROM trusted_authorities")
    said = {str(server_id): str(body) for server_id, body in told}
    return {
        server_id: frozenset(json.loads(said[server_id])) if server_id in said else None
        for (server_id,) in read_beside(registry, active, (ServerState.ACTIVE.value,))
    }
