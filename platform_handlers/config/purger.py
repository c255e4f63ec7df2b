"""Takes sealed credentials off the bus: those that are stored, and those that are retired."""

from bus_schemas.codec import decode
from bus_schemas.errors import ContractError
from bus_schemas.events import CredentialSealed
from bus_schemas.streams import CONFIG
from bus_schemas.transport.connection import Bus
from bus_schemas.transport.jetstream import api, read_last
from platform_handlers.config.store import ConfigStore, Purge


async def purge_stored(bus: Bus, store: ConfigStore) -> None:
    """Purge everything that waits for it. Raises BusUnavailable, StreamError; then ask again."""
    while waiting := await store.purges():
        for purge in waiting:
            await purge_sealed(bus, purge)
            await store.purged(purge)


async def purge_sealed(bus: Bus, purge: Purge) -> None:
    """Purge one sealed message, unless a newer one has taken its place.

    Raises BusUnavailable, StreamError; then ask again.
    """
    ids = {"server_id": purge.server_id, "slot_id": purge.slot_id}
    subject = CredentialSealed.template.fill(ids)
    last = await read_last(bus, CONFIG.name, subject)
    if last is None or _revision(last.data, subject) > purge.revision:
        return
    # Only up to what was looked at: a newer sealing that has just arrived must stay.
    verb = f"STREAM.PURGE.{CONFIG.name}"
    await api(bus, verb, {"filter": subject, "seq": last.sequence + 1})


def _revision(raw: bytes, subject: str) -> int:
    try:
        event = decode(raw, subject).data
    except ContractError:
        return 0  # nobody can open what nobody can read
    return event.envelope.revision if isinstance(event, CredentialSealed) else 0
