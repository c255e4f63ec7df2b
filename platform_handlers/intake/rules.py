"""What the intake makes of one server's fact. Pure: the bus and the clock are the handler's."""

import hashlib
from typing import Final

from bus_schemas.codec import UnknownEvent, decode
from bus_schemas.errors import ContractError
from bus_schemas.event import ServerFact
from bus_schemas.events import RatchetAdvanced
from bus_schemas.intake import (
    MAX_FACT_BYTES,
    OVER_QUOTA,
    TOO_EARLY,
    UNIT_BYTES,
    UNITS_A_DAY,
    UNUSABLE,
    Decline,
    FactDeclined,
)
from platform_handlers.doors.rules import Allowance

_FIVE_MINUTES = 300
_HOUR = 3600
_DAY = 24 * _HOUR

OVERSIZED: Final = "oversized"

FACTS: Final = Allowance(burst=UNITS_A_DAY, per_second=UNITS_A_DAY / _DAY, at_once=16)
"""An honest server has one on its way at a time; some more may still be, after reconnects."""

UNUSABLE_FACTS: Final = Allowance(burst=1, per_second=1 / _DAY, at_once=1)
"""One a day is stored all the same: readers park it, and its pointer tells that there are such."""


def cost(raw: bytes) -> int:
    """Return how many units a fact of *raw* takes: one for each begun KiB."""
    return max(1, -(-len(raw) // UNIT_BYTES))


def verdict(raw: bytes, subject: str) -> FactDeclined | int:
    """Return the answer to a fact that readers of this build could not use.

    Of a good one, return the start that it names: the caller asks whether there was that.

    A type that this build does not know is no fault: the platform is upgraded, and the server still
    has the fact (ADR-4).
    """
    if len(raw) > MAX_FACT_BYTES:
        return unusable(OVERSIZED)
    try:
        event = decode(raw, subject).data
    except UnknownEvent as error:
        return too_early(error.type)
    except ContractError as error:
        return unusable(error.reason)
    return event.incarnation if isinstance(event, ServerFact) else 0


def newest_start(state: RatchetAdvanced) -> int:
    """Return how often the server of *state* was started."""
    return state.committed if state.incarnation is None else state.incarnation


def message_id(server_id: str, raw: bytes) -> str:
    """Return the `Nats-Msg-Id`, the same for the same fact sent again.

    Not the envelope's: a server could send an id that somebody else's message will have.
    """
    return f"{server_id}/{hashlib.sha256(raw).hexdigest()}"


def over_quota(seconds: float) -> FactDeclined:
    """Answer a fact that is one too many, to be sent again after *seconds*."""
    wait = int(seconds) + 1
    words = f"the platform takes {UNITS_A_DAY} KiB of facts a day from each server"
    return _declined(429, OVER_QUOTA, words, wait)


def too_early(type_: str) -> FactDeclined:
    """Answer a fact of a type that this build does not know."""
    words = f"this platform does not know {type_} yet; it has to be upgraded first"
    return _declined(425, TOO_EARLY, words, _HOUR)


def of_no_start(incarnation: int) -> FactDeclined:
    """Answer a fact of a start that the evaluator's ratchet does not tell of.

    Not as unusable: after a restore the ratchet may be behind an honest server, until that has been
    let in again (`byok evaluator recover`).
    """
    words = f"the evaluator knows of no start {incarnation} of this server"
    return _declined(425, TOO_EARLY, words, _FIVE_MINUTES)


def unusable(reason: str) -> FactDeclined:
    """Answer a fact that is never taken."""
    return _declined(400, UNUSABLE, reason)


def refused_by_stream(err_code: int, description: str) -> FactDeclined:
    """Pass on what the ledger said, such as that it is full."""
    return _declined(503, err_code, description[:500])


def _declined(code: int, err_code: int, words: str, wait: int = 0) -> FactDeclined:
    error = Decline(code=code, err_code=err_code, description=words)
    return FactDeclined(error=error, retry_after=wait)
