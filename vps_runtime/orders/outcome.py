"""What an order does to the memory, seen in the very transaction that answers it."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field

from bus_schemas.events.config import Order
from vps_runtime.facts.store import Draft
from vps_runtime.orders.rules import APPLIED, about_rotation, effect, rotation_after
from vps_runtime.rotation.store import telling


@dataclass(frozen=True, slots=True)
class Outcome:
    """What obeying an order tells, adds to the memory and takes out of it, or why it is refused."""

    refused: str | None = None
    drafts: Sequence[Draft] = ()
    adds: Mapping[str, str] = field(default_factory=dict)
    takes: Collection[str] = ()

    @property
    def word(self) -> str:
        """What the memory keeps of the answer."""
        return self.refused or APPLIED


def outcome_of(order: Order, told: Mapping[str, str], refused: str | None) -> Outcome:
    """Return what becomes of *order*, of which is known why it is *refused*, if it is. Pure."""
    if refused:
        return Outcome(refused)
    if not about_rotation(order):
        adds, takes = effect(order)
        return Outcome(adds=adds, takes=takes)
    change = rotation_after(order, told)
    if change.refused:
        return Outcome(change.refused)
    step = telling(order.slot_id or "", change, told)
    return Outcome(drafts=step.drafts, adds=step.remember)
