"""Resolver and keeper as one part of the runtime, unlocked or locked."""

from collections.abc import Callable, Collection, Coroutine
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import aiohttp

from vps_runtime.calls import Calls
from vps_runtime.openclaw.keeper import OpenClaw, Parts
from vps_runtime.openclaw.link import Target
from vps_runtime.resolver.delivery import GRACE_SECONDS, Delivery
from vps_runtime.resolver.rules import Current
from vps_runtime.resolver.server import Door, Resolver
from vps_runtime.state import StateFolder

_STUCK_SECONDS = 300.0

Row = tuple[str, Coroutine[Any, Any, None], float]


@dataclass(frozen=True)
class OpenClawOptions:
    """What an operator may set about OpenClaw."""

    target: Target | None = None
    """None if no OpenClaw takes keys from here."""
    grace: float = GRACE_SECONDS
    """Seconds that a turn may go on with the key it began with."""
    socket: Path | None = None
    """Of the resolver; in the state folder unless set."""

    def door(self, state: StateFolder, user: int) -> Door:
        """Return where the processes of *user* ask for keys."""
        return Door(self.socket or state.resolver_socket, user)


@dataclass(frozen=True)
class Use:
    """What keys there are, and who is told of their use."""

    delivery: Delivery
    current: Current
    known: Callable[[], Collection[str]]
    """All slots of this server, with or without a usable key."""
    calls: Calls = field(default_factory=Calls)


class KeysByExec:
    """Hands keys out to OpenClaw, if there is one."""

    def __init__(
        self, options: OpenClawOptions, door: Door, use: Use, session: aiohttp.ClientSession
    ) -> None:
        self._pair: tuple[OpenClaw, Resolver] | None = None
        self._delivery = use.delivery
        if options.target:
            resolver = Resolver(door, use.delivery, use.current, use.known)
            parts = Parts(resolver, use.delivery, use.current, use.calls)
            self._pair = OpenClaw(options.target, session, parts), resolver

    async def begin(self) -> None:
        """Without an OpenClaw nobody takes keys any more. Raises StorageFull."""
        if self._pair is None:
            await self._delivery.nobody_takes()

    def on_presence(self, callback: Callable[[bool], None]) -> None:
        """Call *callback* with whether OpenClaw answers, at each sign of it."""
        if self._pair:
            self._pair[0].on_presence(callback)

    def wake(self) -> None:
        """Say that what may be used may have changed."""
        if self._pair:
            self._pair[0].wake()

    def rows(self) -> tuple[Row, ...]:
        """Return the tasks, each to be started once; none needs the bus."""
        if self._pair is None:
            return ()
        openclaw, resolver = self._pair
        return (
            ("resolver", resolver.run(), _STUCK_SECONDS),
            ("openclaw", openclaw.run(), _STUCK_SECONDS),
        )
