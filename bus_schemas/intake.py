"""How a server's fact gets into the ledger: the intake takes it, counts it and stores it (ADR-18).

A server asks on the fact's own subject, and the intake answers as a stream would: with the place
in the ledger once the fact lies there, or with an error. It stores under a prefix that only it may
publish on; the ledger takes the prefix off.
"""

from typing import Annotated, Final

from pydantic import Field

from bus_schemas.event import Contract
from bus_schemas.fields import Counter, ShortText

_PREFIX: Final = "byok.v1."
ADMITTED: Final = "byok.v1.admitted."
"""What comes on `byok.v1.admitted.<rest>` is stored on `byok.v1.<rest>`."""

MAX_FACT_BYTES: Final = 16 * 1024
"""Largest envelope of a server's fact: the longest list of held revisions, and some room."""
UNIT_BYTES: Final = 1024
UNITS_A_DAY: Final = 2_000
"""What one server may put into the ledger in a day; a fact counts one for each begun KiB."""

OVER_QUOTA: Final = 42900
"""`err_code`: the server has told enough for now. The same fact is taken later."""
TOO_EARLY: Final = 42500
"""`err_code`: this platform does not know the fact's type yet, or no such start of the server.

It is taken after an upgrade, or when the evaluator has counted so far."""
UNUSABLE: Final = 40000
"""`err_code`: nobody could read this. It is never taken, however often it is sent."""


def admitted(pattern: str) -> str:
    """Return where the intake publishes what belongs on *pattern*, a subject or a template's."""
    return ADMITTED + pattern.removeprefix(_PREFIX)


class FactStored(Contract):
    """The fact is in the ledger, on the disk: what JetStream itself would answer."""

    stream: str
    """The stream that keeps it."""
    seq: Counter
    """Its sequence there."""


class Decline(Contract):
    """Why a fact was not stored, in the form of JetStream's own errors."""

    code: Annotated[int, Field(ge=400, le=599)]
    """As in HTTP: 4xx the server's doing, 5xx the stream's."""
    err_code: Annotated[int, Field(ge=0)]
    """42900 over the quota, 42500 too early, 40000 unusable; else the stream's own."""
    description: ShortText
    """One sentence for people."""


class FactDeclined(Contract):
    """The fact is not in the ledger."""

    error: Decline
    retry_after: Annotated[int, Field(ge=0)] = 0
    """Seconds after which the same fact may be taken; only with 42900 and 42500."""
