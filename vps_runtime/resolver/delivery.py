"""Remembers which revisions were given out and whether they may still be used (`calls.KeyUser`)."""

import asyncio
import time
from collections.abc import Callable, Mapping

from vps_runtime.facts.store import Facts, Telling
from vps_runtime.resolver import plan

GRACE_SECONDS = 600.0
"""How long a turn may go on with the key it began with."""


class Delivery:
    """What was given out, in the memory of the server: a restart forgets none of it."""

    def __init__(
        self,
        facts: Facts,
        grace: float = GRACE_SECONDS,
        clock: Callable[[], float] = time.time,
    ) -> None:
        """*grace* in seconds; *clock* in Unix seconds."""
        self._facts = facts
        self.grace = grace
        """Seconds."""
        self._clock = clock
        self._on_settled: list[Callable[[], None]] = []

    def on_settled(self, callback: Callable[[], None]) -> None:
        """Call *callback* when something that was given out is used no more."""
        self._on_settled.append(callback)

    @property
    def slots(self) -> list[str]:
        """The slots whose keys were ever given out."""
        return plan.handed_slots(self._facts.told)

    def uses_older(self, slot_id: str, revision: int) -> bool:
        """Whether something below *revision* may still be used (`KeyUser`)."""
        handed = plan.handed_of(slot_id, self._facts.told)
        return plan.uses_older(handed, revision, self._clock())

    async def giving(self, revisions: Mapping[str, int]) -> None:
        """Note *revisions* by slot, before they are given out. Raises StorageFull."""
        if not revisions:
            return

        def decide(told: Mapping[str, str]) -> Telling:
            after = {}
            for slot, revision in revisions.items():
                before = plan.handed_of(slot, told) or plan.Handed()
                after[slot] = plan.given(plan.still(before, self._clock()), revision)
            return _kept(after)

        await self._facts.decide(decide)

    async def taken(self, given: Mapping[str, int | None]) -> None:
        """Note that the taker now has of each slot what is *given*, and of all others nothing.

        Raises StorageFull.
        """

        def decide(told: Mapping[str, str]) -> Telling:
            now = self._clock()
            after = {}
            for slot in plan.handed_slots(told):
                before = plan.handed_of(slot, told) or plan.Handed()
                after[slot] = plan.replaced(before, given.get(slot), at=now, grace=self.grace)
            return _kept(after)

        await self._facts.decide(decide)
        asyncio.get_running_loop().call_later(self.grace, self._settled)

    async def nobody_takes(self) -> None:
        """Note that nobody is given keys any more; what is out ends with its grace."""
        if self.slots:
            await self.taken({})

    def _settled(self) -> None:
        for callback in self._on_settled:
            callback()


def _kept(handed: Mapping[str, plan.Handed]) -> Telling:
    kept = {
        plan.handed_key(slot): one.model_dump_json(exclude_defaults=True)
        for slot, one in handed.items()
    }
    return Telling(remember=kept)
