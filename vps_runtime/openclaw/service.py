"""Resolver and keeper as one part of the runtime, unlocked or locked."""

from collections.abc import Callable, Collection
from dataclasses import dataclass, field
from pathlib import Path

import aiohttp

from bus_schemas.transport.pulse import Work
from vps_runtime.facts.store import Facts
from vps_runtime.keys.calls import Calls
from vps_runtime.keys.keyring import KeyInUse
from vps_runtime.openclaw.keeper import OpenClaw, Parts
from vps_runtime.openclaw.link import Target
from vps_runtime.resolver.delivery import GRACE_SECONDS, Delivery
from vps_runtime.resolver.rules import Current
from vps_runtime.resolver.server import Door, Resolver
from vps_runtime.state import StateFolder

_STUCK_SECONDS = 300.0


@dataclass(frozen=True)
class OpenClawOptions:
    """What an operator may set about OpenClaw."""

    target: Target | None = None
    """None if no OpenClaw takes keys from here."""
    grace: float = GRACE_SECONDS
    """Seconds that a turn may go on with the key it began with."""
    socket: Path | None = None
    """Of the resolver; in the state folder unless set."""
    slots: frozenset[str] = frozenset()
    """Whose keys may be given out; of any other the gateway alone has the key."""

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

            def current(slot_id: str) -> KeyInUse | None:
                # The agent's shell can ask for any slot, inside a window, too.
                return use.current(slot_id) if slot_id in options.slots else None

            resolver = Resolver(door, use.delivery, current, use.known)
            parts = Parts(resolver, use.delivery, current, use.calls)
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

    def works(self) -> tuple[Work, ...]:
        """Return the tasks, each to be started once; none needs the bus."""
        if self._pair is None:
            return ()
        openclaw, resolver = self._pair
        return (
            Work("resolver", resolver.run(), _STUCK_SECONDS),
            Work("openclaw", openclaw.run(), _STUCK_SECONDS),
        )


def taking_back(
    options: OpenClawOptions, door: Door, facts: Facts, session: aiohttp.ClientSession
) -> KeysByExec:
    """Return who takes back from OpenClaw, by its next reload, every key that it was given."""
    delivery = Delivery(facts, options.grace)
    use = Use(delivery, lambda _slot: None, lambda: delivery.slots)
    return KeysByExec(options, door, use, session)
