"""What a subscriber sees: the newest event of every banner, from a durable of its own."""

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, field

from bus_schemas.codec import decode
from bus_schemas.events import BannerEvent
from bus_schemas.events.banner import BannerState
from bus_schemas.streams import BANNERS
from bus_schemas.transport.connection import Bus
from bus_schemas.transport.durable import deliveries

Standing = dict[str, BannerEvent]


def rows(banners: Standing) -> list[dict[str, object]]:
    """Return what `--json` prints of *banners*, by code, owner and server."""
    ordered = sorted(banners.values(), key=lambda b: (b.code, b.owner_id, b.server_id))
    return [
        {
            "owner": banner.owner_id,
            "server": banner.server_id,
            "slot": banner.slot_id,
            "code": banner.code.value,
            "severity": banner.severity.value,
            "colour": banner.colour.value,
            "state": banner.state.value,
            "own_servers": list(banner.sharing.own_servers),
            "other_owners": banner.sharing.other_owners,
        }
        for banner in ordered
    ]


def count(banners: Standing, code: str, *, standing: bool) -> int:
    """Return how many banners with *code* stand, or have been cleared."""
    return sum(
        b.code == code and (b.state is not BannerState.CLEARED) is standing
        for b in banners.values()
    )


@dataclass
class Watch:
    """Follows the banner stream as any subscriber would."""

    banners: Standing = field(default_factory=dict)
    _changed: asyncio.Event = field(default_factory=asyncio.Event)

    async def run(self, bus: Bus, durable: str) -> None:
        """Receive for ever."""
        async for delivery in deliveries(bus, BANNERS.name, durable):
            event = decode(delivery.data, delivery.subject).data
            if isinstance(event, BannerEvent):
                known = self.banners.get(event.banner_id)
                if known is None or event.revision > known.revision:
                    self.banners[event.banner_id] = event
                    self._changed.set()
            await delivery.ack()

    async def until(self, enough: Callable[[Standing], bool], *, seconds: float) -> bool:
        """Wait until *enough* holds; False when it did not in time."""
        try:
            async with asyncio.timeout(seconds):
                while not enough(self.banners):
                    self._changed.clear()
                    await self._changed.wait()
        except TimeoutError:
            return False
        return True
