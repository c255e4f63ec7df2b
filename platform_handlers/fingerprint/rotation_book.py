"""Every slot's rotation, and at which tick each is to be looked at next. Pure.

A slot is looked at when a fact is about it, and at the one tick for which it is listed here: a
minute costs as much as there is to say in it, however many slots there are (ADR-29).
"""

from collections import defaultdict
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Final

from bus_schemas.event import Event
from bus_schemas.events import ConfigRequested, FingerprintRenewed
from bus_schemas.events.fingerprint import MAX_SLOTS
from platform_handlers.fingerprint.holders import SlotKey
from platform_handlers.fingerprint.rotations import (
    NOTHING,
    Rotation,
    after,
    listed,
    next_look,
    slot_of,
)

MAX_ROTATIONS: Final = 2 * MAX_SLOTS
"""Of one server: more slots are followed only where the platform itself was asked for them."""


@dataclass
class Rotations:
    """The book; two that were told the same are equal."""

    by_server: dict[str, dict[str, Rotation]] = field(default_factory=dict)
    _looks: defaultdict[int, set[SlotKey]] = field(default_factory=lambda: defaultdict(set))

    def __iter__(self) -> Iterator[tuple[SlotKey, Rotation]]:
        """Yield every slot of which something is known."""
        for server_id, slots in self.by_server.items():
            for slot_id, rotation in slots.items():
                yield SlotKey(server_id, slot_id), rotation

    def get(self, slot: SlotKey) -> Rotation:
        """Return what is known of *slot*."""
        return self.of_server(slot.server_id).get(slot.slot_id, NOTHING)

    def of_server(self, server_id: str) -> Mapping[str, Rotation]:
        """Return what is known of a server's slots, by slot."""
        return self.by_server.get(server_id, {})

    def put(self, slot: SlotKey, rotation: Rotation, tick: int) -> None:
        """Take *rotation* as it stands at *tick*, and list when to look at it again."""
        self._unlist(slot, tick)
        self.by_server.setdefault(slot.server_id, {})[slot.slot_id] = rotation
        look = next_look(rotation, tick)
        if look is not None:
            self._looks[look].add(slot)

    def follow(self, event: Event, tick: int) -> list[SlotKey]:
        """Fold *event*, whose writer may say it, at *tick*; return the slots it moved."""
        if isinstance(event, FingerprintRenewed):
            return self._list(event, tick)
        slot = slot_of(event)
        if slot is None:
            return []
        mine = self.of_server(slot.server_id)
        invented = slot.slot_id not in mine and not isinstance(event, ConfigRequested)
        if invented and len(mine) >= MAX_ROTATIONS:
            return []
        old = self.get(slot)
        return self._move(slot, old, after(old, event, tick), tick)

    def forget(self, server_id: str, tick: int) -> list[SlotKey]:
        """Forget all slots of a server; return them."""
        slots = [SlotKey(server_id, slot_id) for slot_id in self.of_server(server_id)]
        for slot in slots:
            self._unlist(slot, tick)
        self.by_server.pop(server_id, None)
        return slots

    def due(self, tick: int) -> list[SlotKey]:
        """Return the slots to look at in *tick*, once, and list each for the next time."""
        slots = sorted(self._looks.pop(tick, ()))
        for slot in slots:
            self.put(slot, self.get(slot), tick)
        return slots

    def _list(self, event: FingerprintRenewed, tick: int) -> list[SlotKey]:
        held: dict[str, set[int]] = {}
        for entry in event.held:
            held.setdefault(entry.slot_id, set()).add(entry.revision)
        moved: list[SlotKey] = []
        for slot_id, old in list(self.of_server(event.server_id).items()):
            new = listed(old, held.get(slot_id, ()))
            moved += self._move(SlotKey(event.server_id, slot_id), old, new, tick)
        return moved

    def _move(self, slot: SlotKey, old: Rotation, new: Rotation, tick: int) -> list[SlotKey]:
        if new == old:
            return []
        self.put(slot, new, tick)
        return [slot]

    def _unlist(self, slot: SlotKey, tick: int) -> None:
        look = next_look(self.get(slot), tick)
        if look is None:
            return
        self._looks[look].discard(slot)
        if not self._looks[look]:
            del self._looks[look]
