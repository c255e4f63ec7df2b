"""Refreshes the sign-ins in use: before their access token ends, and when somebody asks.

The order makes a kill at any point lose nothing that could be kept (ADR-27):

1. note that the refresh token is about to be shown;
2. show it, once more if the answer is lost;
3. put the new set into the vault, at one stroke;
4. only then use it, forget the note, tell its tag.

Who is killed between 2 and 3 has the old token alone, and shows it again after the start. A
provider that gives no grace then ends the sign-in; the note is how we know that it was our doing.
"""

import asyncio
import contextlib
import random
import time
from collections.abc import Callable

import structlog

from bus_schemas.credential import OAuthSet
from bus_schemas.errors import ByokError, Refused
from bus_schemas.events.health import Validity
from bus_schemas.fields import CredentialKind
from bus_schemas.transport.back_off import BackOff
from bus_schemas.transport.database import StorageFull
from bus_schemas.transport.wake import woken
from vps_runtime.keys.keyring import Keyring
from vps_runtime.oauth.answers import SPENT, Ended, Outcome, Renewed, TryAgain, blamed
from vps_runtime.oauth.endpoint import TokenEndpoint
from vps_runtime.oauth.restraint import RENEWED, Name, Restraint
from vps_runtime.oauth.rules import (
    NOT_HELD,
    NOT_STORED,
    STOPPED,
    RefreshNote,
    due_at,
    note_key,
    note_of,
    stale_notes,
)
from vps_runtime.orders.rules import may_be_used
from vps_runtime.rotation.held import serves
from vps_runtime.rotation.rules import Verdict
from vps_runtime.unlocked import UnlockedServer
from vps_runtime.vault.credentials import Held
from vps_runtime.vault.store import DiskFull

_log = structlog.get_logger(__name__)

_LOOK_SECONDS = 30.0
"""How soon a clock that was set is noticed."""
_LAST_WAIT_SECONDS = 5.0
"""An answer that is on its way at the end is waited for so long: else it would be lost."""

_FIRST_PAUSE_SECONDS = 1.0
_LONGEST_PAUSE_SECONDS = 60.0


class Refresher:
    """The one task that refreshes, and the only holder of refresh tokens on this server."""

    def __init__(
        self,
        server: UnlockedServer,
        keyring: Keyring,
        endpoint: TokenEndpoint,
        clock: Callable[[], float] = time.time,
        elapsed: Callable[[], float] = time.monotonic,
    ) -> None:
        """*clock* gives Unix seconds, *elapsed* those of a clock that nobody sets."""
        self._server = server
        self._keyring = keyring
        self._endpoint = endpoint
        self._clock = clock
        self._restraint = Restraint(elapsed)
        self._on_refreshed: list[Callable[[], None]] = []
        self._on_ended: list[Callable[[Held], None]] = []
        self._in_turn: dict[str, asyncio.Lock] = {}
        self._flights: dict[Name, asyncio.Task[Verdict]] = {}
        self._broken: BaseException | None = None
        self._jitter = random.random()  # noqa: S311 (keeps a fleet out of step)
        self._wake = asyncio.Event()
        keyring.refresh_by(self.refreshed)
        keyring.on_changed(self._wake.set)

    def on_refreshed(self, callback: Callable[[], None]) -> None:
        """Call *callback* when a new refresh token is stored: its tag is to be told."""
        self._on_refreshed.append(callback)

    def on_ended(self, callback: Callable[[Held], None]) -> None:
        """Call *callback* with a sign-in that is over until somebody signs in anew."""
        self._on_ended.append(callback)

    def ended(self, held: Held) -> Verdict | None:
        """Return why *held*'s sign-in is over, whatever is left of its access token; else None."""
        now = self._server.credentials.get(held.slot_id, held.revision)
        note = self._note(now) if now else None
        if note is None or note.ended is None:
            return None
        return Verdict(Validity.INVALID, note.status, note.ended)

    async def refreshed(self, held: Held) -> Verdict:
        """Refresh *held* now, or join the refresh that is going on; say what came of it.

        `valid`: it has new tokens, stored and opened. `invalid`: only a new sign-in helps, and the
        reason says why. `unknown`: the endpoint told nothing, or is not to be asked now.
        """
        now = self._server.credentials.get(held.slot_id, held.revision)
        if now is None:
            return Verdict(Validity.UNKNOWN, None, NOT_HELD)
        flight = self._flights.get((held.slot_id, held.revision))
        if flight is None:
            known = self._known(now)
            if known is not None:
                return known
            self._restraint.asked((held.slot_id, held.revision))
            flight = self._begin(now)
        # Who no longer waits must not break the refresh off: its answer would be lost.
        return await asyncio.shield(flight)

    async def run(self) -> None:
        """Refresh what is due, for ever; cancel to stop."""
        try:
            while True:
                self._wake.clear()
                await self._forget_stale()
                wait = self._begin_due()
                await woken(self._wake, wait)
                if self._broken is not None:
                    raise self._broken
        finally:
            await self._land()

    async def _land(self) -> None:
        """Give what is on its way a moment to arrive and be stored."""
        if flights := set(self._flights.values()):
            _, late = await asyncio.wait(flights, timeout=_LAST_WAIT_SECONDS)
            for flight in late:
                flight.cancel()
            await asyncio.gather(*late, return_exceptions=True)

    async def _forget_stale(self) -> None:
        facts = self._server.facts
        if gone := stale_notes(self._server.credentials.held.keys(), facts.told):
            with contextlib.suppress(StorageFull):  # they wait; nothing is read in them
                await facts.tell(forget=gone)

    def _begin_due(self) -> float:
        """Begin what is due; return the seconds until something else may be."""
        now, soonest = self._clock(), _LOOK_SECONDS
        for held in self._server.usable.values():
            key = self._keyring.current(held.slot_id)
            if key is None or key.kind is not CredentialKind.OAUTH or self.ended(held) is not None:
                continue
            if (held.slot_id, held.revision) in self._flights:
                continue
            due = due_at(key.expires_at, held.obtained_at, now, jitter=self._jitter)
            if due is None:
                continue
            wait = max(due - now, self._restraint.held_off((held.slot_id, held.revision)))
            if wait > 0:
                soonest = min(soonest, wait)
            else:
                _ = self._begin(held)
        return soonest

    def _begin(self, held: Held) -> asyncio.Task[Verdict]:
        name = (held.slot_id, held.revision)
        flight = asyncio.create_task(self._fly(held), name=f"refresh {held.slot_id}")
        self._flights[name] = flight

        def over(_: asyncio.Task[Verdict]) -> None:
            del self._flights[name]
            if not flight.cancelled() and (error := flight.exception()):
                self._broken = error
            self._wake.set()

        flight.add_done_callback(over)
        return flight

    def _known(self, held: Held) -> Verdict | None:
        """Return the verdict for which nobody has to be asked; None if there is none."""
        if (ended := self.ended(held)) is not None:
            return ended
        if not self._may_be_shown(held):
            return Verdict(Validity.UNKNOWN, None, STOPPED)
        return self._restraint.verdict((held.slot_id, held.revision))

    async def _fly(self, held: Held) -> Verdict:
        try:
            oauth = await self._sign_in(held)
            # In turn: one sign-in in two slots would else be shown twice at the same moment. Its
            # endpoint may be written in two ways; the client it is bound to cannot (RFC 6749 6).
            async with self._in_turn.setdefault(oauth.client_id, asyncio.Lock()):
                return await self._carry_out(held, await self._outcome(held, oauth))
        except (ByokError, OSError) as error:  # what did not get as far as the endpoint
            _log.warning("refresh_failed", slot=held.slot_id, error=str(error))
            reason = error.reason if isinstance(error, Refused) else NOT_STORED
            return self._later(held, TryAgain(reason))

    async def _sign_in(self, held: Held) -> OAuthSet:
        oauth = (await self._server.credentials.payload(held)).oauth
        if oauth is None:
            raise Refused("bad_payload", f"slot {held.slot_id} holds no sign-in")
        return oauth

    async def _outcome(self, held: Held, oauth: OAuthSet) -> Outcome:
        """Ask the endpoint; once more if the answer is lost, while a provider may have patience.

        Raises Refused(`vault_record_damaged`), StorageFull: then nothing was shown to anybody.
        """
        facts = self._server.facts
        if await self._server.credentials.is_spent(held):
            return Ended(SPENT, None)
        unsure = self._note(held) is not None
        key = note_key(held.slot_id, held.revision)
        note = RefreshNote(grant=held.grants[-1])
        await facts.tell(remember={key: note.model_dump_json()})
        outcome = await self._shown(held, oauth)
        if isinstance(outcome, TryAgain) and outcome.lost and outcome.after is None:
            unsure = True
            outcome = await self._shown(held, oauth)
        if isinstance(outcome, Ended):
            return blamed(outcome, unsure=unsure)
        if isinstance(outcome, TryAgain) and not (outcome.lost or unsure):
            await facts.tell(forget=[key])
        return outcome

    async def _shown(self, held: Held, oauth: OAuthSet) -> Outcome:
        """Show the refresh token once, unless an order has come while it waited for its turn."""
        if not self._may_be_shown(held):
            return TryAgain(STOPPED)
        return await self._endpoint.refresh(oauth, asked_at=self._clock())

    def _may_be_shown(self, held: Held) -> bool:
        rotation = self._server.rotation(held.slot_id)
        in_use = serves(rotation, held.revision)  # what is retired may be held for a while
        return in_use and may_be_used(held.slot_id, self._server.facts.told)

    async def _carry_out(self, held: Held, outcome: Outcome) -> Verdict:
        match outcome:
            case Renewed():
                await self._keep(held, outcome.oauth)
                note = note_key(held.slot_id, held.revision)
                await self._server.facts.tell(forget=[note])
                _log.info("sign_in_refreshed", slot=held.slot_id, revision=held.revision)
                return RENEWED
            case Ended():
                return await self._end(held, outcome)
            case TryAgain():
                return self._later(held, outcome)

    async def _keep(self, held: Held, oauth: OAuthSet) -> Held:
        """Store the new set, and only then let it be used. Raises Refused(`not_held`)."""
        self._restraint.succeeded((held.slot_id, held.revision))
        back_off = BackOff(first=_FIRST_PAUSE_SECONDS, longest=_LONGEST_PAUSE_SECONDS)
        while True:
            try:
                kept = await self._server.credentials.renew(held, oauth, at=int(self._clock()))
                break
            except (DiskFull, OSError) as error:  # the only tokens that still work are in here
                _log.error("refreshed_tokens_wait_for_the_disk", error=str(error))
                await asyncio.sleep(back_off.pause())
        await self._keyring.open(kept)
        for callback in self._on_refreshed:
            callback()
        return kept

    async def _end(self, held: Held, outcome: Ended) -> Verdict:
        if outcome.keep is not None:
            held = await self._keep(held, outcome.keep)
        note = RefreshNote(grant=held.grants[-1], ended=outcome.reason, status=outcome.status)
        key = note_key(held.slot_id, held.revision)
        await self._server.facts.tell(remember={key: note.model_dump_json()})
        _log.warning("sign_in_ended", slot=held.slot_id, reason=outcome.reason)
        for callback in self._on_ended:
            callback(held)
        return Verdict(Validity.INVALID, outcome.status, outcome.reason)

    def _later(self, held: Held, outcome: TryAgain) -> Verdict:
        verdict, wait = self._restraint.failed((held.slot_id, held.revision), outcome)
        _log.warning("refresh_waits", slot=held.slot_id, reason=outcome.reason, seconds=round(wait))
        return verdict

    def _note(self, held: Held) -> RefreshNote | None:
        return note_of(held.slot_id, held.revision, held.grants[-1], self._server.facts.told)
