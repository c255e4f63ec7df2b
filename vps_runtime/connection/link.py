"""Keeps the server signed in: renewal in time, and the way back in by the door token.

A night without power, an issuer that was down for hours or a clock that is wrong end alike: the
working token no longer opens, the door token still does, and no person is needed.
"""

import asyncio
import contextlib
import math
import random
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

import structlog

from bus_schemas.errors import ByokError
from bus_schemas.requests import Renewal
from bus_schemas.transport.back_off import BackOff
from bus_schemas.transport.connection import Bus
from bus_schemas.transport.target import BusDenied, BusTarget, TokenRefused
from vps_runtime.connection.authorities import take_authorities
from vps_runtime.connection.issuer import ask_for_tokens
from vps_runtime.connection.rules import turned_away
from vps_runtime.connection.standing import Standing
from vps_runtime.connection.tokens import TokenStore

_log = structlog.get_logger(__name__)


@dataclass(frozen=True)
class Patience:
    """How long the link waits for what; all in seconds."""

    look: float = 1.0
    """Between two looks at how it stands."""
    lost: float = 30.0
    """So long without a link, and the door is tried although our clock calls the token good."""
    first: float = 1.0
    longest: float = 60.0
    """Between attempts, doubled each time."""
    first_turned_away: float = 60.0
    longest_turned_away: float = 3600.0
    """The same while no token of ours opens: only the platform's operators can change that."""


@dataclass(frozen=True)
class Clock:
    """What the link takes the time from; all in seconds."""

    now: Callable[[], float] = time.time
    """The time of day, Unix, which a token's times are compared with."""
    monotonic: Callable[[], float] = time.monotonic
    """Never goes back, so every wait is measured with it."""
    sleep: Callable[[float], Awaitable[None]] = asyncio.sleep


class Link:
    """The one working connection, and the task that keeps its token fresh."""

    def __init__(
        self,
        target: BusTarget,
        server_id: str,
        tokens: TokenStore,
        *,
        standing: Standing | None = None,
        patience: Patience | None = None,
        clock: Clock | None = None,
    ) -> None:
        """*standing* remembers, for others to see, when the platform lets us in no more."""
        self._target = target
        self._server_id = server_id
        self._tokens = tokens
        self._clock = clock or Clock()
        self._standing = standing or Standing()
        self._patience = wait = patience or Patience()
        self._back_off = BackOff(first=wait.first, longest=wait.longest)
        self._outside = BackOff(first=wait.first_turned_away, longest=wait.longest_turned_away)
        self._spread = random.random()  # noqa: S311 (sets a fleet's renewals apart)
        self._lost_since: float | None = None
        self._not_before = -math.inf
        self._said = ""
        self._due_at = self._after(tokens.working_claims().rest(self._clock.now(), self._spread))
        self._begun = False
        self.bus = Bus(target, server_id, tokens.working)

    async def open(self) -> None:
        """Begin to connect, by the door first if the working token is over.

        Raises ByokError when the door is shut too; the caller decides whether to try again.
        """
        if self._usable():
            self.begin()
        else:
            await self._renew()

    def begin(self) -> None:
        """Begin to connect, or leave that to `keep` where the door comes first. Never fails."""
        if self._usable():
            self._start()

    def _start(self) -> None:
        self._begun = True
        self.bus.open_in_background()

    async def close(self) -> None:
        """Close the connection for good."""
        await self.bus.close()

    async def keep(self) -> None:
        """Renew for ever, and come back in by the door; cancel to stop.

        Trouble is retried with jittered back-off, and said when it is new: a night without the
        platform is a few lines.
        """
        while True:
            await self._clock.sleep(self._patience.look)
            if self._due():
                await self._try()

    async def _try(self) -> None:
        try:
            await self._renew()
            self._standing.rose()
        except (ByokError, OSError) as error:
            self._not_before = self._clock.monotonic() + self._pause_after(error)
        else:
            # Should these be refused, too, it must not begin anew at once.
            self._not_before = self._clock.monotonic() + self._back_off.pause()
            if self.bus.connected:
                self._back_off.over()
            self._outside.over()
            self._said = ""
            _log.info("token_renewed")

    def _pause_after(self, error: Exception) -> float:
        """Say what is new in *error*; return how long to wait."""
        why = turned_away(error)
        if why is not None:
            with contextlib.suppress(OSError):  # a full disk: it is in the log at least
                self._standing.fell(why)
            return self._outside.pause()
        if self._said != str(error):
            self._said = str(error)
            _log.warning("token_not_renewed", error=self._said)
        return self._back_off.pause()

    def _usable(self) -> bool:
        return self._tokens.working_claims().usable(self._clock.now())

    def _due(self) -> bool:
        now = self._clock.monotonic()
        if self.bus.connected:
            if self._lost_since is not None:
                self._back_off.over()
            self._lost_since = None
        elif self._lost_since is None:
            self._lost_since = now
        if now < self._not_before:
            return False
        if self.bus.connected:
            return now >= self._due_at or self._standing.turned_away is not None
        lost = self._lost_since is not None and now - self._lost_since >= self._patience.lost
        # Refused although our clock calls the token good: it is the clock, or we are out.
        refused = isinstance(self.bus.trouble, TokenRefused)
        return lost or refused or not self._usable() or now >= self._due_at

    async def _renew(self) -> None:
        if self.bus.connected:
            new = await ask_for_tokens(self.bus, self._server_id)
        else:
            new = await by_the_door(self._target, self._server_id, self._tokens)
        self._tokens.replace(new)  # stored before it is used: a crash here loses nothing
        take_authorities(self._target.ca_file, new.authorities)
        if self._begun:
            await self._sign_in_anew()
        else:
            self._start()  # whatever our clock says of them: they are new
        # Only now: what could not be signed in with is asked for again.
        self._due_at = self._after(self._tokens.working_claims().fresh_rest(self._spread))

    def _after(self, seconds: float | None) -> float:
        return math.inf if seconds is None else self._clock.monotonic() + seconds

    async def _sign_in_anew(self) -> None:
        try:
            await self.bus.renew()
        except TokenRefused as error:  # and the door took us: it is not we who are turned away
            message = "the tokens that were just issued are refused; is the platform's clock right?"
            raise BusDenied(message) from error


async def by_the_door(target: BusTarget, server_id: str, tokens: TokenStore) -> Renewal:
    """Return new tokens, asked for with the door token; nothing is stored.

    Raises BusUnavailable, BusDenied, Refused, ContractError.
    """
    door = Bus(target, server_id, tokens.door)
    await door.open()
    try:
        return await ask_for_tokens(door, server_id)
    finally:
        await door.close()
