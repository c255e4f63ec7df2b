"""Keeps the server signed in: renewal in time, and the way back in by the door token.

A night without power, an issuer that was down for hours or a clock that is wrong end alike: the
working token no longer opens, the door token still does, and no person is needed.
"""

import asyncio
import math
import random
import time

import structlog

from bus_schemas.errors import ByokError
from bus_schemas.requests import Tokens
from bus_schemas.transport.back_off import BackOff
from bus_schemas.transport.connection import Bus
from bus_schemas.transport.target import BusTarget
from vps_runtime.connection.issuer import ask_for_tokens
from vps_runtime.connection.tokens import TokenStore

_log = structlog.get_logger(__name__)

_LOST_SECONDS = 30.0
"""So long without a link, and the door is tried although our clock calls the token good."""

_FIRST_PAUSE = 1.0
_LONGEST_PAUSE = 60.0
_LOOK_SECONDS = 1.0


class Link:
    """The one working connection, and the task that keeps its token fresh."""

    def __init__(self, target: BusTarget, server_id: str, tokens: TokenStore) -> None:
        self._target = target
        self._server_id = server_id
        self._tokens = tokens
        self._spread = random.random()  # noqa: S311 (sets a fleet's renewals apart)
        self._lost_since: float | None = None
        self._due_at = _after(tokens.working_claims().rest(time.time(), self._spread))
        self.bus = Bus(target, server_id, tokens.working)

    async def open(self) -> None:
        """Begin to connect, by the door first if the working token is over.

        Raises ByokError when the door is shut too; the caller decides whether to try again.
        """
        if not self._tokens.working_claims().usable(time.time()):
            self._take(await by_the_door(self._target, self._server_id, self._tokens))
        self.bus.open_in_background()

    async def close(self) -> None:
        """Close the connection for good."""
        await self.bus.close()

    async def keep(self) -> None:
        """Renew for ever; cancel to stop. Trouble is retried with jittered back-off."""
        back_off = BackOff(first=_FIRST_PAUSE, longest=_LONGEST_PAUSE)
        while True:
            await asyncio.sleep(_LOOK_SECONDS)
            if not self._due():
                continue
            try:
                await self._renew()
            except (ByokError, OSError) as error:
                pause = back_off.pause()
                _log.warning("token_not_renewed", error=str(error), seconds=round(pause, 1))
                await asyncio.sleep(pause)
            else:
                back_off.over()

    def _due(self) -> bool:
        now = time.monotonic()
        if self.bus.connected:
            self._lost_since = None
        elif self._lost_since is None:
            self._lost_since = now
        lost = self._lost_since is not None and now - self._lost_since >= _LOST_SECONDS
        return lost or now >= self._due_at

    async def _renew(self) -> None:
        if self.bus.connected:
            new = await ask_for_tokens(self.bus, self._server_id)
        else:
            new = await by_the_door(self._target, self._server_id, self._tokens)
        self._take(new)
        await self.bus.renew()
        _log.info("token_renewed")

    def _take(self, new: Tokens) -> None:
        self._tokens.replace(new)  # stored before it is used: a crash here loses nothing
        self._due_at = _after(self._tokens.working_claims().fresh_rest(self._spread))
        self._lost_since = None


def _after(seconds: float | None) -> float:
    return math.inf if seconds is None else time.monotonic() + seconds


async def by_the_door(target: BusTarget, server_id: str, tokens: TokenStore) -> Tokens:
    """Return new tokens, asked for with the door token; nothing is stored.

    Raises BusUnavailable, BusDenied, Refused, ContractError.
    """
    door = Bus(target, server_id, tokens.door)
    await door.open()
    try:
        return await ask_for_tokens(door, server_id)
    finally:
        await door.close()
