"""The tag inputs of one credential, with those of a sign-in's earlier refresh tokens. Pure.

A copy of a sign-in may have been made before any of its refreshes. So the input of each refresh
token stays for a while after the token itself is gone: a new epoch needs a tag of it, too (ADR-11).
"""

from collections.abc import Sequence
from typing import Annotated, Final

from pydantic import Field

from bus_schemas.event import Contract
from bus_schemas.fields import Basis, CounterFromZero, Key32, Strength
from bus_schemas.tags import TagInput

MAX_GRANTS: Final = 96
"""Refresh tokens whose inputs are kept, with that in use: four days of hourly refreshes."""

GRANT_LIFE_SECONDS: Final = 90 * 24 * 3600


class InputRecord(Contract, extra="forbid"):
    """What is blinded for one tag."""

    basis: Basis
    strength: Strength
    value: Annotated[Key32, Field(repr=False)]
    grant: CounterFromZero = 0
    """Which of a sign-in's refresh tokens it is of, counted from 0, its sealed one."""
    at: CounterFromZero = 0
    """When that token came, Unix seconds; of a sealed one 0."""


def first_inputs(inputs: Sequence[TagInput]) -> tuple[InputRecord, ...]:
    """Return what is kept of a credential that has just been stored."""
    return tuple(
        InputRecord(basis=one.basis, strength=one.strength, value=one.value) for one in inputs
    )


def grants_of(inputs: Sequence[InputRecord]) -> tuple[int, ...]:
    """Return the numbers of the refresh tokens that are remembered, that in use last."""
    return tuple(sorted(one.grant for one in inputs if one.basis is Basis.OAUTH_GRANT))


def grown(
    before: Sequence[InputRecord], now: Sequence[TagInput], *, stored_at: int, at: int
) -> tuple[InputRecord, ...]:
    """Return what is kept once a refresh at *at* has left a set with the inputs *now*.

    Those of earlier tokens stay, oldest first, as long and as many as ADR-27 says. A provider that
    gives no new refresh token leaves all as it was.
    """
    earlier = sorted((i for i in before if i.basis is Basis.OAUTH_GRANT), key=_number)
    newest = earlier[-1]
    [grant] = [one for one in now if one.basis is Basis.OAUTH_GRANT]
    if grant.value == newest.value:
        return tuple(before)
    added = InputRecord(
        basis=grant.basis,
        strength=grant.strength,
        value=grant.value,
        grant=newest.grant + 1,
        at=at,
    )
    young = [one for one in earlier if at - (one.at or stored_at) <= GRANT_LIFE_SECONDS]
    others = [one for one in before if one.basis is not Basis.OAUTH_GRANT]
    return (*young[1 - MAX_GRANTS :], added, *others)


def spent(newest: bytes, kept: Sequence[InputRecord]) -> bool:
    """Whether the refresh token with the input *newest* was used up already.

    *kept* is what another credential of this server remembers. To show such a token to the
    provider again would look like a theft, and would end every token of its family
    (RFC 9700 section 4.14.2).
    """
    grants = grants_of(kept)
    return any(
        one.value == newest and one.grant != grants[-1]
        for one in kept
        if one.basis is Basis.OAUTH_GRANT
    )


def _number(one: InputRecord) -> int:
    return one.grant
