"""The tag inputs that stay of a sign-in's earlier refresh tokens."""

from bus_schemas.fields import Basis, Strength
from bus_schemas.tags import TagInput
from vps_runtime.vault.grants import (
    GRANT_LIFE_SECONDS,
    MAX_GRANTS,
    InputRecord,
    first_inputs,
    grants_of,
    grown,
    spent,
)

STORED = 1_800_000_000
ACCOUNT = TagInput(Basis.OAUTH_ACCOUNT, Strength.OPAQUE, bytes(32))


def grant(number: int) -> TagInput:
    """Return the input of a refresh token."""
    return TagInput(Basis.OAUTH_GRANT, Strength.SECRET, number.to_bytes(32, "big"))


def refreshed(times: int, every: int = 3600) -> tuple[InputRecord, ...]:
    """Return what is kept after so many refreshes, one each *every* seconds."""
    kept = first_inputs([grant(1), ACCOUNT])
    for n in range(1, times + 1):
        kept = grown(kept, [grant(n + 1), ACCOUNT], stored_at=STORED, at=STORED + n * every)
    return kept


def test_each_refresh_token_is_remembered_in_order() -> None:
    """The account is there once, and the token in use is the last."""
    kept = refreshed(2)
    assert grants_of(kept) == (0, 1, 2)
    assert [one.value for one in kept] == [
        *(grant(n).value for n in (1, 2, 3)),
        ACCOUNT.value,
    ]
    assert kept[1].at == STORED + 3600


def test_a_token_that_stays_adds_nothing() -> None:
    """Not every provider gives a new one."""
    kept = refreshed(1)
    assert grown(kept, [grant(2), ACCOUNT], stored_at=STORED, at=STORED + 9000) == kept


def test_the_oldest_go_after_96() -> None:
    """As many as the platform keeps; their numbers go on."""
    kept = refreshed(200, every=60)
    assert grants_of(kept) == tuple(range(201 - MAX_GRANTS, 201))
    assert len(kept) == MAX_GRANTS + 1


def test_the_oldest_go_after_90_days() -> None:
    """The one in use stays however old it is; a sealed one counts from when it was stored."""
    kept = refreshed(10, every=GRANT_LIFE_SECONDS // 2)
    assert grants_of(kept) == (8, 9, 10)
    late = STORED + GRANT_LIFE_SECONDS + 1
    first = first_inputs([grant(1)])
    assert grants_of(grown(first, [grant(2)], stored_at=STORED, at=late)) == (1,)
    assert grants_of(grown(first, [grant(2)], stored_at=STORED, at=late - 1)) == (0, 1)


def test_a_used_up_token_is_recognised() -> None:
    """The one in use is none; an API key has no such thing."""
    kept = refreshed(2)
    assert spent(grant(1).value, kept)
    assert spent(grant(2).value, kept)
    assert not spent(grant(3).value, kept)
    assert not spent(grant(9).value, kept)
    key = TagInput(Basis.API_KEY, Strength.SECRET, grant(1).value)
    assert not spent(grant(1).value, first_inputs([key]))
    assert grants_of(first_inputs([key])) == ()
