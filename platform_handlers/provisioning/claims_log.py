"""Which versions of the FLEET account's claims were made, and what the bus has confirmed."""

from dataclasses import dataclass

from bus_schemas.transport.database import fetch_all, fetch_one, transaction
from platform_handlers.provisioning.records import DOOR_SECONDS
from platform_handlers.provisioning.registry import Registry

_DAY = 24 * 3600
"""Added to a revocation: a clock that was set back must not let an older token through."""

_FORGET_SECONDS = DOOR_SECONDS + _DAY
"""By then every token of a revoked server has ended by itself."""


_VOID = (
    "SELECT nkey, ended_at FROM servers WHERE nkey NOTNULL AND ended_at > ?"
    " UNION ALL SELECT nkey, ended_at FROM former_keys WHERE ended_at > ?1"
)


@dataclass(frozen=True)
class ClaimsOrder:
    """One version of the FLEET account's JWT that should be on the bus."""

    issued_at: int
    """`iat`: strictly grows, so no node can roll an older version back over a newer."""
    version: int
    revocations: dict[str, int]
    """Public nkey to Unix seconds: tokens issued up to then are refused."""


class ClaimsLog:
    """The registry's word on revocations, in versions."""

    def __init__(self, registry: Registry) -> None:
        self._registry = registry

    async def next_order(self, *, newest_known: int, again: bool = False) -> ClaimsOrder | None:
        """Take the next `iat` for the FLEET account, or None if the bus has everything.

        *newest_known* is the `iat` of the JWT on disk. Whoever takes a later number also sees
        every revocation that an earlier one saw: both are read in one transaction. With *again*
        there is always one: who must count confirmations cannot rely on another's.
        """
        async with transaction(self._registry.database):
            row = await self._row()
            if row[1] == row[2] and not again:
                return None
            issued_at = max(self._registry.now(), row[0] + 1, newest_known + 1)
            await self._registry.database.execute("UPDATE claims SET issued_at = ?", (issued_at,))
            since = self._registry.now() - _FORGET_SECONDS
            rows = await fetch_all(self._registry.database, _VOID, (since,))
            revocations = {str(nkey): int(at) + _DAY for nkey, at in rows}
        return ClaimsOrder(issued_at, row[1], revocations)

    async def pushed(self, order: ClaimsOrder) -> None:
        """Note that the bus confirmed *order*."""
        await self._registry.database.execute(
            "UPDATE claims SET pushed = max(pushed, ?)", (order.version,)
        )

    async def _row(self) -> tuple[int, int, int]:
        query = "SELECT issued_at, wanted, pushed FROM claims"
        row = await fetch_one(self._registry.database, query)
        assert row is not None  # noqa: S101 (the schema puts it there)
        return int(row[0]), int(row[1]), int(row[2])
