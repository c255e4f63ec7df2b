"""Writes desired documents: the sealed credential first, then the document that asks for it.

A server that is nudged by the document then always finds the credential. Both are written with
compare-and-set, and one writer process takes one server's requests in turn. Should a second
writer run by mistake, the loser may have put its sealed message over the winner's: the winner
looks once more, and the loser puts back what it replaced.
"""

import asyncio
import contextlib
import time
from collections import defaultdict
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final, Protocol

import structlog

from bus_schemas.codec import decode
from bus_schemas.envelope import Envelope
from bus_schemas.errors import Refused
from bus_schemas.event import Event
from bus_schemas.events import ConfigDesired, ConfigRequested, CredentialSealed
from bus_schemas.providers import load_providers
from bus_schemas.sealed import SealedEnvelope
from bus_schemas.streams import CONFIG
from bus_schemas.transport.connection import Bus
from bus_schemas.transport.fresh import fresh
from bus_schemas.transport.jetstream import Conflict, Expect, read_last, store
from bus_schemas.transport.target import BusUnavailable
from platform_handlers.config.plan import Situation, lifetime, plan

_log = structlog.get_logger(__name__)

_ATTEMPTS: Final = 5


class ServerOwners(Protocol):
    """Who owns which server."""

    async def owner_of_active_server(self, server_id: str) -> str | None:
        """Return the owner; None unless the server is active."""
        ...


@dataclass(frozen=True)
class Last:
    """The last message of a subject; sequence 0 and no envelope if there is none."""

    sequence: int
    envelope: Envelope[Event] | None

    @property
    def sealed(self) -> SealedEnvelope | None:
        """The sealed credential in it, if it is one."""
        event = self.envelope.data if self.envelope else None
        return event.envelope if isinstance(event, CredentialSealed) else None


@dataclass
class _Turn:
    """One request, and what it put its own sealed message over."""

    envelope: SealedEnvelope
    base_revision: int
    replaced: SealedEnvelope | None = None


class ConfigWriter:
    """Puts sealings into documents, as `OrderWriter` puts orders. *bus* has role CONFIG."""

    def __init__(
        self, bus: Bus, owners: ServerOwners, *, clock: Callable[[], float] = time.time
    ) -> None:
        self._bus = bus
        self._owners = owners
        self._clock = clock
        self._turns: defaultdict[str, asyncio.Lock] = defaultdict(asyncio.Lock)

    async def accept(self, envelope: SealedEnvelope, base_revision: int) -> ConfigDesired:
        """Ask the server to take *envelope*; the same envelope again gives the same answer.

        Raises Refused (`server_not_active`, and those of `plan`) and BusUnavailable: ask again
        with the same envelope.
        """
        turn = _Turn(envelope, base_revision)
        async with self._turns[envelope.server_id]:
            for _ in range(_ATTEMPTS):
                try:
                    return await self._attempt(turn)
                except Conflict as conflict:
                    _log.info("config_conflict", subject=conflict.subject)
                except Refused:
                    await self._put_back(turn)
                    raise
        raise BusUnavailable(f"another writer keeps changing the document of {envelope.server_id}")

    async def document(self, server_id: str) -> Envelope[Event] | None:
        """Return the newest desired document in its envelope. Raises BusUnavailable."""
        return (await self._last(_document_subject(server_id))).envelope

    async def _attempt(self, turn: _Turn) -> ConfigDesired:
        envelope, server_id = turn.envelope, turn.envelope.server_id
        owner = await self._owners.owner_of_active_server(server_id)
        if owner is None:
            raise Refused("server_not_active", f"{server_id} is not active")
        last = await self._last(_document_subject(server_id))
        current = last.envelope.data if last.envelope else None
        now = int(self._clock())
        situation = Situation(
            owner, current if isinstance(current, ConfigDesired) else None, load_providers(), now
        )
        wanted = plan(situation, envelope, turn.base_revision)
        if wanted is not current:
            await self._put_sealed(turn)
            # After a conflict with our own message, whose acknowledgement got lost, the plan made
            # anew finds the envelope in the document: it is not written twice.
            await store(self._bus, fresh(wanted), Expect(last.sequence))
        await self._look_again(turn)
        # Told again on a repeat: the first time it may not have come so far.
        [slot] = [slot for slot in wanted.slots if slot.slot_id == envelope.slot_id]
        requested = ConfigRequested(
            server_id=server_id, owner_id=owner, generation=wanted.generation, slot=slot
        )
        await store(self._bus, fresh(requested, correlationid=envelope.envelope_id))
        return wanted

    async def _put_sealed(self, turn: _Turn) -> None:
        """Have the envelope as the slot's sealed message. Raises Conflict, BusUnavailable."""
        last = await self._last(_sealed(turn.envelope).subject)
        if last.sealed != turn.envelope:
            await self._store_sealed(turn.envelope, last.sequence)
            turn.replaced = last.sealed

    async def _look_again(self, turn: _Turn) -> None:
        """Undo what a slower writer did; a message that is gone was stored and purged already."""
        last = await self._last(_sealed(turn.envelope).subject)
        if last.sealed not in (None, turn.envelope):
            await self._store_sealed(turn.envelope, last.sequence)

    async def _put_back(self, turn: _Turn) -> None:
        """After a refusal, put the winner's credential back if ours lies in its place."""
        if turn.replaced is None:
            return
        last = await self._last(_sealed(turn.envelope).subject)
        if last.sealed == turn.envelope:
            with contextlib.suppress(Conflict):  # the winner has done it itself
                await self._store_sealed(turn.replaced, last.sequence)

    async def _store_sealed(self, envelope: SealedEnvelope, on_top_of: int) -> None:
        expect = Expect(on_top_of, ttl_seconds=lifetime(envelope, now=int(self._clock())))
        message = fresh(_sealed(envelope), correlationid=envelope.envelope_id)
        await store(self._bus, message, expect)

    async def _last(self, subject: str) -> Last:
        message = await read_last(self._bus, CONFIG.name, subject)
        if message is None:
            return Last(0, None)
        return Last(message.sequence, decode(message.data, message.subject))


def _document_subject(server_id: str) -> str:
    return ConfigDesired.template.fill({"server_id": server_id})


def _sealed(envelope: SealedEnvelope) -> CredentialSealed:
    return CredentialSealed(
        server_id=envelope.server_id, slot_id=envelope.slot_id, envelope=envelope
    )
