"""Gathers signs of how the link, the agent and the providers are, for the next report."""

import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass

from bus_schemas.events.health import LinkHealth, Presence
from vps_runtime.health.rules import (
    AGENT,
    PROVIDER,
    Losses,
    Sensor,
    link_health,
    lost,
    presence,
    sign,
    worst,
)


@dataclass(frozen=True, slots=True)
class Summary:
    """Three facts, each for itself; None where nobody counts, or nothing was met yet."""

    link: LinkHealth | None = None
    agent: Presence | None = None
    provider: Presence | None = None
    """Of all in use, the worst."""


class Signs:
    """What was met since the start. In memory: an old sign says nothing of now."""

    def __init__(
        self,
        *,
        clock: Callable[[], float] = time.monotonic,
        online: Callable[[], bool] = lambda: True,
    ) -> None:
        """*online* says whether this server itself reaches anything: else nobody is `down`."""
        self._clock = clock
        self._online = online
        self._agent: Sensor | None = None
        self._providers: dict[str, Sensor] = {}
        self._losses = Losses()

    def link_lost(self) -> None:
        """Note that the connection to the bus went away, or came back after it did."""
        self._losses = lost(self._losses, self._clock())

    def agent(self, *, up: bool) -> None:
        """Note that the agent called or answered, or that it could not be reached."""
        self._agent = sign(self._agent or Sensor(), up=up, at=self._clock(), rule=AGENT)

    def provider(self, slot_id: str, answered: bool) -> None:  # noqa: FBT001 (Calls.on_reach)
        """Note whether the provider of *slot_id* answered a call at all."""
        if not answered and not self._online():
            return
        before = self._providers.get(slot_id, Sensor())
        self._providers[slot_id] = sign(before, up=answered, at=self._clock(), rule=PROVIDER)

    def summary(self, slots: Iterable[str]) -> Summary:
        """Return how everything is now, for a server whose credentials are in *slots*."""
        now, mine = self._clock(), set(slots)
        met = (sensor for slot, sensor in self._providers.items() if slot in mine)
        return Summary(
            link=link_health(self._losses, now),
            agent=None if self._agent is None else presence(self._agent, now, AGENT),
            provider=worst(presence(sensor, now, PROVIDER) for sensor in met),
        )
