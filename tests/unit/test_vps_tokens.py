"""When a token is renewed, and which new ones are believed."""

import json

import pytest

from bus_schemas.encoding import to_base64url
from bus_schemas.errors import Refused
from bus_schemas.transport.target import BusDenied, BusUnavailable, TokenRefused
from vps_runtime.connection.rules import TokenClaims, check_issued, read_claims, turned_away

CLAIMS = TokenClaims("acme-1", "UABC", issued_at=1000, expires_at=4600)


def jwt(**claims: object) -> str:
    """Return an unsigned token with *claims*."""
    return f"e30.{to_base64url(json.dumps(claims).encode())}.c2ln"


def test_the_claims_are_read() -> None:
    """Name, key and times; a token without an end never ends."""
    assert read_claims(jwt(name="acme-1", sub="UABC", iat=1000, exp=4600)) == CLAIMS
    endless = read_claims(jwt(name="acme-1", sub="UABC", iat=1000))
    assert endless.expires_at is None
    assert endless.usable(2**40)
    assert endless.rest(0, 0.5) is endless.fresh_rest(0.5) is None


@pytest.mark.parametrize(
    "text", ["", "a.b", "a.!!.c", jwt(name="x"), f"a.{to_base64url(b'[1]')}.c", "a.bnVsbA.c"]
)
def test_nonsense_is_refused_without_repeating_it(text: str) -> None:
    """A token is a secret even when it is malformed."""
    with pytest.raises(Refused, match=r"^bad_token: not a NATS user JWT$"):
        read_claims(text)


def test_a_token_is_renewed_between_60_and_80_percent() -> None:
    """The spread sets a fleet apart; overdue is due at once."""
    assert CLAIMS.rest(1000, 0.0) == pytest.approx(2160)
    assert CLAIMS.rest(1000, 1.0) == pytest.approx(2880)
    assert CLAIMS.rest(9999, 0.5) == 0


def test_a_fast_clock_does_not_make_a_fresh_token_overdue() -> None:
    """Of a token issued this moment only its life counts, else it would be renewed for ever."""
    assert CLAIMS.fresh_rest(0.0) == pytest.approx(2160)


def test_a_token_near_its_end_is_not_signed_in_with() -> None:
    """The last seconds are not worth a refused connection."""
    assert CLAIMS.usable(4590)
    assert not CLAIMS.usable(4596)


@pytest.mark.parametrize("other", [("acme-2", "UABC"), ("acme-1", "UXYZ")])
def test_a_token_for_somebody_else_never_replaces_ours(other: tuple[str, str]) -> None:
    """It would lock the server out."""
    check_issued(CLAIMS, server_id="acme-1", nkey="UABC")
    with pytest.raises(Refused, match="wrong_token"):
        check_issued(CLAIMS, server_id=other[0], nkey=other[1])


@pytest.mark.parametrize(
    "state", ["server_revoked", "server_deprovisioned", "server_pending", "unknown_server"]
)
def test_the_issuers_word_that_there_is_no_way_back(state: str) -> None:
    """Nothing here mends it: to knock every minute and to cry each time helps nobody."""
    assert turned_away(Refused(state, "acme-1 is gone")) == "acme-1 is gone"
    assert turned_away(Refused(state)) == state
    assert "revoked" in (turned_away(TokenRefused("refused")) or "")


@pytest.mark.parametrize(
    "error",
    [BusUnavailable("x"), BusDenied("a wrong certificate"), Refused("wrong_token"), OSError()],
)
def test_what_may_pass_is_no_dismissal(error: Exception) -> None:
    """A bus that is away, a certificate or a full disk are other people's troubles, or ours."""
    assert turned_away(error) is None
