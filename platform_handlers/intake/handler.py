"""Answers servers on the subjects of their facts: checks, counts, stores, acknowledges.

Nothing of a server's message but its body gets into the ledger: no header, no reply subject. A
fact is acknowledged when it lies there; whatever happens before, the server sends it again, under
the same id. No answer is given while the ledger cannot be reached.
"""

import asyncio
import time
from collections.abc import Callable
from typing import Final

import structlog
from nats.aio.msg import Msg
from nats.errors import Error as NatsError

from bus_schemas.errors import ByokError
from bus_schemas.event import Contract
from bus_schemas.flows import Act, Role, flows
from bus_schemas.intake import UNUSABLE, Decline, FactDeclined, FactStored, admitted
from bus_schemas.streams import LEDGER
from bus_schemas.transport.connection import Bus
from bus_schemas.transport.jetstream import StreamError, store_raw
from platform_handlers.doors.rules import Door
from platform_handlers.intake import rules
from platform_handlers.intake.starts import StartBook, Starts

_log = structlog.get_logger(__name__)

QUEUE: Final = "intake"
"""Several intakes share the work; each gives every server its own allowance."""


class Intake:
    """One process's share of the facts. *bus* has role INTAKE."""

    def __init__(
        self, bus: Bus, starts: Starts, clock: Callable[[], float] = time.monotonic
    ) -> None:
        """*clock* is in seconds and never goes back."""
        self._bus = bus
        self._starts = StartBook(starts)
        self._clock = clock
        self._door = Door(rules.FACTS)
        self._rubbish = Door(rules.UNUSABLE_FACTS)
        self._working: set[asyncio.Task[None]] = set()

    async def listen(self) -> None:
        """Take facts from now on."""
        for flow in flows():
            if (flow.role, flow.act) == (Role.INTAKE, Act.ANSWER):
                await self._bus.listen(flow.subject.wildcard, self._on_fact, queue=QUEUE)

    async def _on_fact(self, message: Msg) -> None:
        """Let it in or not, at once: what waits here makes all servers wait."""
        server_id = message.subject.rpartition(".")[2]
        away = self._door.enter(server_id, now=self._clock(), cost=rules.cost(message.data))
        if away is None:
            task = asyncio.create_task(self._serve(server_id, message))
            self._working.add(task)
            task.add_done_callback(self._working.discard)
            return
        if away.worth_telling:
            _log.warning("facts_turned_away", server=server_id, count=away.count)
        if away.seconds:  # else it is only one too many at a time, and is sent again unasked
            await _respond(message, rules.over_quota(away.seconds))

    async def _serve(self, server_id: str, message: Msg) -> None:
        try:
            await _respond(message, await self._taken(server_id, message.subject, message.data))
        except ByokError as error:
            _log.warning("fact_unanswered", server=server_id, error=str(error))
        finally:
            self._door.leave(server_id)

    async def _taken(self, server_id: str, subject: str, raw: bytes) -> Contract:
        """Store a fact and return the answer. Raises BusUnavailable, ContractError."""
        found = rules.verdict(raw, subject)
        if isinstance(found, int) and not await self._starts.has(server_id, found):
            found = rules.of_no_start(found)
        if isinstance(found, FactDeclined) and not self._may_be_parked(server_id, found.error):
            return found
        try:
            id_ = rules.message_id(server_id, raw)
            sequence = await store_raw(self._bus, admitted(subject), id_, raw)
        except StreamError as error:
            return rules.refused_by_stream(error.code, error.description)
        return FactStored(stream=LEDGER.name, seq=sequence)

    def _may_be_parked(self, server_id: str, why: Decline) -> bool:
        """Whether rubbish is stored all the same: the first of a day, for operators to see."""
        away = self._rubbish.spend(server_id, now=self._clock())
        if away is not None and away.worth_telling:
            _log.warning("facts_declined", server=server_id, why=why.description, count=away.count)
        return away is None and why.err_code == UNUSABLE and why.description != rules.OVERSIZED


async def _respond(message: Msg, answer: Contract) -> None:
    """Answer, if an answer is wanted; one that gets lost is asked for again."""
    if not message.reply:
        return
    try:
        await message.respond(answer.model_dump_json().encode())
    except (NatsError, OSError) as error:
        _log.warning("answer_lost", subject=message.subject, error=type(error).__name__)
