"""What the API shows of a server's slots: the desired document, and the server's own words."""

from bus_schemas.api import SlotStep, SlotView, StepView
from bus_schemas.events import ConfigDesired
from bus_schemas.events.config import DesiredSlot
from bus_schemas.fields import Utc
from bus_schemas.keys import SignedSealingKey
from platform_handlers.config.projection import Progress
from platform_handlers.config.store import ConfigStore
from platform_handlers.config.writer import ConfigWriter


class ConfigView:
    """Read access to what servers should hold and do hold."""

    def __init__(self, store: ConfigStore, writer: ConfigWriter) -> None:
        self._store = store
        self._writer = writer

    async def sealing_key(self, server_id: str) -> SignedSealingKey | None:
        """Return the newest key the server has announced."""
        return await self._store.sealing_key(server_id)

    async def pins(self, server_id: str) -> tuple[str, ...] | None:
        """Return the fingerprints of the owner keys the server says it obeys."""
        return await self._store.pins(server_id)

    async def slots_of(self, server_id: str) -> list[SlotView]:
        """Return the server's slots, by id. Raises BusUnavailable."""
        document = await self._writer.document(server_id)
        if document is None or not isinstance(document.data, ConfigDesired):
            return []
        progress = await self._store.progress(server_id)
        return [
            slot_view(slot, progress.get(slot.slot_id), written_at=document.time)
            for slot in document.data.slots
        ]

    async def newest_revision(self, server_id: str, slot_id: str) -> int:
        """Return the newest sealed revision of a slot, 0 for none. Raises BusUnavailable."""
        slots = await self.slots_of(server_id)
        return next((slot.revision for slot in slots if slot.slot_id == slot_id), 0)


def slot_view(slot: DesiredSlot, progress: Progress | None, *, written_at: Utc) -> SlotView:
    """Return one slot as its owner may see it; the document rules, the ledger lags. Pure."""
    steps = progress.steps if progress and progress.revision >= slot.revision else ()
    sent = StepView(step=SlotStep.SENT, revision=slot.revision, at=written_at)
    return SlotView(
        slot_id=slot.slot_id,
        provider=slot.provider,
        kind=slot.kind,
        revision=slot.revision,
        steps=steps or (sent,),
    )
