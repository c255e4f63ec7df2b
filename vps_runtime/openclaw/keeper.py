"""Keeps a running OpenClaw on the keys that may be used now: it takes them anew when they change.

Only for slots whose keys it asks for (`resolver`); through the gateway nothing has to be reloaded.
"""

import asyncio
import contextlib
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import aiohttp
import structlog

from bus_schemas.errors import ByokError
from bus_schemas.events.health import Presence
from bus_schemas.transport.back_off import BackOff
from bus_schemas.transport.wake import woken
from vps_runtime.keys.calls import Calls
from vps_runtime.keys.keyring import KeyInUse
from vps_runtime.openclaw.link import (
    Connection,
    OpenClawRefused,
    Target,
    connected,
)
from vps_runtime.openclaw.protocol import (
    CONFIG,
    PROBE,
    RELOAD,
    STATUS,
    TRIED,
    asking,
    models_took,
    probed_status,
    provider_name,
    reload_took,
)
from vps_runtime.resolver.delivery import Delivery
from vps_runtime.resolver.rules import Current
from vps_runtime.resolver.server import Resolver

_log = structlog.get_logger(__name__)

_RELOAD_SECONDS = 20.0
_PROBE_SECONDS = 60.0
_LOOK_SECONDS = 60.0
"""Without a wake; nothing is missed, but who watches this task wants to see it step."""
_MISSED_SECONDS = 30.0
"""At most so often is OpenClaw's own asking a reason to reload."""


@dataclass
class NotTaken(ByokError):
    """OpenClaw did not take what it was to take; trying again may help."""

    detail: str

    def __str__(self) -> str:
        return self.detail


@dataclass(frozen=True)
class Parts:
    """What the keeper works with."""

    resolver: Resolver
    delivery: Delivery
    current: Current
    calls: Calls


class OpenClaw:
    """The one task that talks to OpenClaw."""

    def __init__(self, target: Target, session: aiohttp.ClientSession, parts: Parts) -> None:
        self._target = target
        self._session = session
        self._resolver = parts.resolver
        self._delivery = parts.delivery
        self._current = parts.current
        self._calls = parts.calls
        self._has: dict[str, KeyInUse | None] = {}
        """What it took last of each slot it asks for; None where it was told `revoked`."""
        self._due = True
        self._missed_at = -_MISSED_SECONDS
        self._wake = asyncio.Event()
        self.presence = Presence.UNKNOWN
        """Whether OpenClaw answers; unknown until the first try."""
        self._on_presence: list[Callable[[bool], None]] = []
        parts.resolver.on_missed(self._missed)

    def on_presence(self, callback: Callable[[bool], None]) -> None:
        """Call *callback* with whether OpenClaw answers, at each sign of it."""
        self._on_presence.append(callback)

    def wake(self) -> None:
        """Say that what may be used may have changed."""
        self._wake.set()

    def _missed(self) -> None:
        """Reload once after OpenClaw asked by itself, as it does when its configuration changed.

        Whoever runs as its user can bring this about. That gains nothing: the same user can as
        well make OpenClaw start over, which opens a window, too.
        """
        if time.monotonic() - self._missed_at >= _MISSED_SECONDS:
            self._missed_at = time.monotonic()
            self._due = True
            self.wake()

    async def run(self) -> None:
        """Connect, reload, reload again whenever keys change, for ever; cancel to stop."""
        back_off = BackOff(first=0.5, longest=5.0)  # it is on this machine
        said = ""
        while True:
            try:
                async with connected(self._session, self._target) as connection:
                    _log.info("openclaw_connected", version=connection.version)
                    if connection.version not in TRIED:
                        _log.warning("openclaw_version_untried", version=connection.version)
                    said = ""
                    back_off.over()
                    await self._keep(connection)
            except* (ByokError, OSError) as group:
                words = str(group.exceptions[0])
                if words != said:  # an OpenClaw that is off for a night is told once
                    _log.warning("openclaw_away", error=words)
                said = words
            self._met(up=False)
            await asyncio.sleep(back_off.pause())

    async def _keep(self, connection: Connection) -> None:
        """Serve one connection until it ends; that raises."""
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(connection.listen(), name="openclaw listens")
            self._due = bool(self._delivery.slots) or await self._asks_us(connection)
            back_off = BackOff(first=1.0, longest=60.0)
            while True:
                self._met(up=True)
                self._wake.clear()
                pause = _LOOK_SECONDS
                if self._due or self._changed():
                    try:
                        taken = await self._reload_twice(connection)
                        back_off.over()
                        tasks.create_task(self._probe(connection, taken), name="openclaw probe")
                    except (NotTaken, OpenClawRefused) as error:
                        _log.warning("openclaw_reload_failed", error=str(error))
                        pause = back_off.pause()
                await woken(self._wake, pause)

    async def _asks_us(self, connection: Connection) -> bool:
        """Whether OpenClaw asks for any key at all: else nothing has to be reloaded."""
        try:
            return bool(asking(await connection.ask(CONFIG)))
        except OpenClawRefused:
            return True

    def _met(self, *, up: bool) -> None:
        self.presence = Presence.UP if up else Presence.DOWN
        for callback in self._on_presence:
            callback(up)

    def _changed(self) -> bool:
        return any(self._current(slot) != had for slot, had in self._has.items())

    async def _reload_twice(self, connection: Connection) -> dict[str, KeyInUse]:
        try:
            return await self._reload(connection)
        except (NotTaken, OpenClawRefused) as error:
            _log.info("openclaw_reload_again", error=str(error))
            return await self._reload(connection)

    async def _reload(self, connection: Connection) -> dict[str, KeyInUse]:
        """Have OpenClaw take its keys anew; return what is new to it. Raises NotTaken."""
        self._due = True  # until it is done, whatever comes in between
        asked = time.monotonic()
        with self._resolver.open_window() as window:
            answer = await connection.ask(RELOAD, seconds=_RELOAD_SECONDS)
        revoked = sum(key is None for key in window.given.values())
        if window.twice:
            slots = ", ".join(sorted(window.twice))
            detail = f"the key of {slots} was asked for twice: somebody else runs the resolver"
            raise NotTaken(detail)
        took = reload_took(answer, revoked=revoked)
        if not (took or models_took(await connection.ask(STATUS), revoked=revoked)):
            raise NotTaken(f"OpenClaw kept {answer.get('warningCount')} credentials as they were")
        await self._delivery.taken(
            {slot: key.revision if key else None for slot, key in window.given.items()}
        )
        new = {
            slot: key
            for slot, key in window.given.items()
            if key is not None and self._has.get(slot) != key
        }
        self._has, self._due = window.given, False
        _log.info(
            "openclaw_reloaded",
            slots=len(window.given),
            revoked=revoked,
            seconds=round(time.monotonic() - asked, 3),
        )
        return new

    async def _probe(self, connection: Connection, taken: Mapping[str, KeyInUse]) -> None:
        """Have OpenClaw make a tiny call with each key that is new to it: the applied receipt."""
        if not taken:
            return
        with contextlib.suppress(OpenClawRefused):
            asks = asking(await connection.ask(CONFIG))
            for slot, key in taken.items():
                name = provider_name(slot, key.provider, asks)
                if name:
                    await self._probe_one(connection, name, key)

    async def _probe_one(self, connection: Connection, provider: str, key: KeyInUse) -> None:
        if self._has.get(key.slot_id) != key:
            return  # there is a newer one already; its own probe follows
        self._calls.began(key.slot_id, key.revision)
        status = None
        try:
            with self._resolver.checked(key.slot_id):
                which = {"provider": provider}
                answer = await connection.ask(PROBE, which, seconds=_PROBE_SECONDS)
            status = probed_status(answer) if self._has.get(key.slot_id) == key else None
            _log.info("openclaw_probed", slot=key.slot_id, said=str(answer.get("status"))[:20])
        finally:
            if status is None:
                self._calls.failed(key.slot_id, key.revision)
            else:
                self._calls.answered(key.slot_id, key.revision, status)
