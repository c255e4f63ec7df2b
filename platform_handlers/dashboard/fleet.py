"""The registry's servers, as the dashboard asks for them: always by owner."""

from collections.abc import Sequence

from platform_handlers.dashboard.ports import KnownServer
from platform_handlers.provisioning.records import ServerRecord, ServerState
from platform_handlers.provisioning.registry import Registry


class RegisteredFleet:
    """Servers that were deprovisioned are gone from view; their ids stay taken."""

    def __init__(self, registry: Registry) -> None:
        self._registry = registry

    async def servers_of(self, owner_id: str) -> Sequence[KnownServer]:
        """Return the servers of *owner_id*, by id."""
        records = await self._registry.servers(owner_id)
        return [_known(record) for record in records if _in_view(record)]

    async def server_of(self, owner_id: str, server_id: str) -> KnownServer | None:
        """Return one of them; None whether it is unknown or another owner's."""
        record = await self._registry.server(server_id)
        if record is None or record.owner_id != owner_id or not _in_view(record):
            return None
        return _known(record)


def _in_view(record: ServerRecord) -> bool:
    return record.state is not ServerState.DEPROVISIONED


def _known(record: ServerRecord) -> KnownServer:
    revoked = record.state is ServerState.REVOKED
    return KnownServer(record.server_id, record.identity_key, active=not revoked)
