"""When a sign-in is refreshed, and what is remembered of it. Pure (ADR-27).

Left to others: what an answer means (`answers`), asking (`endpoint`), the vault and the memory, one
refresh at a time (`refresher`).

One key of the memory (`Facts.told`) for each credential: `oauth/<slot>/<revision>`, a
`RefreshNote` as JSON, written before a refresh token is shown to anybody.
"""

from collections.abc import Collection, Mapping
from typing import Annotated, Final

from pydantic import Field

from bus_schemas.event import Contract
from bus_schemas.fields import CounterFromZero, Reason

NOT_HELD: Final = "not_held"
"""The credential has left the vault."""
NOT_STORED: Final = "storage_full"
"""The disk takes nothing, so nothing was shown to the provider."""
STOPPED: Final = "slot_stopped"
"""An order stands against using it, and a refresh would be a use."""

_KEY: Final = "oauth/"
_LONGEST_MARGIN: Final = 900.0
_LEAST_SECONDS: Final = 30.0
"""Between two refreshes, however short-lived the tokens are."""
_FREE: Final = 3
_STREAK_ENDS: Final = 600.0
_CLOCK_JUMP: Final = 300.0
_FIRST_PAUSE: Final = 5.0
_LONGEST_PAUSE: Final = 300.0
_LONGEST_ASKED: Final = 3600.0
"""Of a `Retry-After`, in seconds."""


class RefreshNote(Contract, extra="forbid"):
    """What is to be known of a refresh by whoever starts after a crash."""

    grant: CounterFromZero
    """Which refresh token was shown; a note about an earlier one says nothing any more."""
    ended: Reason | None = None
    """Why the sign-in is over; None while the answer is outstanding, or was lost."""
    status: Annotated[int, Field(ge=100, le=999)] | None = None
    """Of that answer."""


def due_at(
    expires_at: float | None, obtained_at: float, now: float, *, jitter: float
) -> float | None:
    """Return when to refresh, in Unix seconds; None for "when the provider refuses it".

    *jitter* is from 0 to 1. Before the end by a fifth to three tenths of the token's life, at most
    a quarter of an hour: late enough to be rare, early enough for an outage. Without an end there
    is no early: each refresh uses a token up, and its answer may be lost.
    """
    if expires_at is None:
        return None
    if now < obtained_at - _CLOCK_JUMP:  # set back: how old the token is nobody knows
        return now
    life = max(expires_at - obtained_at, 0.0)
    margin = min(life * (0.2 + 0.1 * jitter), _LONGEST_MARGIN)
    return max(expires_at - margin, obtained_at + _LEAST_SECONDS)


def patience(streak: int) -> float:
    """Return the seconds after a refresh in which nobody gets another one by asking.

    A provider that refuses every token would else use up a refresh token a call, and the memory of
    the earlier ones with them. *streak* counts those asked for in a row, this one included.
    """
    return min(_LEAST_SECONDS * 2.0 ** (streak - _FREE), _LONGEST_ASKED) if streak >= _FREE else 0.0


def streak_after(streak: int, since: float) -> int:
    """Return the streak once another one was asked for, *since* seconds after the last one."""
    return streak + 1 if since < 2 * patience(streak) + _STREAK_ENDS else 1


def pause(failures: int, asked: float | None, *, jitter: float) -> float:
    """Return the seconds until the next attempt, after so many *failures* in a row, from 1 on.

    *asked* is what the endpoint wished for; *jitter* is from 0 to 1.
    """
    own = min(_FIRST_PAUSE * 2.0 ** min(failures - 1, 20), _LONGEST_PAUSE) * (0.5 + jitter)
    return max(own, min(asked or 0.0, _LONGEST_ASKED))


def note_key(slot_id: str, revision: int) -> str:
    """Return where the memory keeps the note about a credential."""
    return f"{_KEY}{slot_id}/{revision}"


def note_of(slot_id: str, revision: int, grant: int, told: Mapping[str, str]) -> RefreshNote | None:
    """Return what is noted about the refresh token in use, the *grant*-th of its sign-in."""
    value = told.get(note_key(slot_id, revision))
    note = RefreshNote.model_validate_json(value) if value else None
    return note if note and note.grant == grant else None


def stale_notes(held: Collection[tuple[str, int]], told: Mapping[str, str]) -> list[str]:
    """Return the keys of notes about credentials that the vault holds no more."""
    there = {note_key(*one) for one in held}
    return [key for key in told if key.startswith(_KEY) and key not in there]
