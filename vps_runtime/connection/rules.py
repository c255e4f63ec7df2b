"""When a token is renewed, which new ones are believed, and when there is no way back. Pure.

Left to others: asking, storing, signing in. The times in a token are the issuer's; they are read
here without checking its signature, since only nats-server's opinion of that counts.
"""

import json
from dataclasses import dataclass

from bus_schemas.encoding import from_base64url
from bus_schemas.errors import Refused
from bus_schemas.transport.target import TokenRefused

_EARLIEST = 0.6
_LATEST = 0.8
_LEEWAY_SECONDS = 5
"""A token this near its end is not worth signing in with."""


_FOR_GOOD = frozenset(
    {"server_revoked", "server_deprovisioned", "server_pending", "unknown_server"}
)
"""What the issuer says of a server that is none, or of whose machine another took the place."""


@dataclass(frozen=True)
class TokenClaims:
    """The claims of a NATS user JWT that matter to its holder; times in Unix seconds."""

    name: str
    nkey: str
    issued_at: int
    expires_at: int | None

    def usable(self, now: float) -> bool:
        """Whether nats-server will take it at *now*, as far as this machine's clock tells."""
        return self.expires_at is None or now < self.expires_at - _LEEWAY_SECONDS

    def rest(self, now: float, spread: float) -> float | None:
        """Return the seconds until renewal is due at 60-80 % of its life, 0 when overdue.

        *spread* (0-1) sets a fleet apart. None for a token that never ends. A clock that is
        ahead must not make every token look overdue: `fresh_rest` is for those just issued.
        """
        life = self.fresh_rest(spread)
        return None if life is None else max(0.0, self.issued_at + life - now)

    def fresh_rest(self, spread: float) -> float | None:
        """Return the same for a token issued this moment, whatever this machine's clock says."""
        if self.expires_at is None:
            return None
        life = max(0, self.expires_at - self.issued_at)
        return life * (_EARLIEST + (_LATEST - _EARLIEST) * spread)


def read_claims(jwt: str) -> TokenClaims:
    """Return the claims in *jwt*. Raises Refused(`bad_token`), showing nothing of it."""
    try:
        body = json.loads(from_base64url(jwt.split(".")[1]))
        expires = body.get("exp")
        return TokenClaims(
            str(body["name"]),
            str(body["sub"]),
            int(body["iat"]),
            None if expires is None else int(expires),
        )
    except (ValueError, IndexError, KeyError, TypeError, AttributeError):
        raise Refused("bad_token", "not a NATS user JWT") from None


def check_issued(claims: TokenClaims, *, server_id: str, nkey: str) -> None:
    """Raise Refused(`wrong_token`) unless the token is this server's, for its own key.

    A token for another key would replace a good one and lock the server out.
    """
    if (claims.name, claims.nkey) != (server_id, nkey):
        raise Refused("wrong_token", f"the issuer sent a token that is not for {server_id}")


def turned_away(error: BaseException) -> str | None:
    """Return why *error*, met with the door token, means that no token of ours opens any more.

    None for whatever passes or can be mended here. nats-server tells nobody why it refuses a
    token, so what it may be is said.
    """
    if isinstance(error, TokenRefused):
        return "it was revoked, another machine took its place, or it was off for 90 days"
    if isinstance(error, Refused) and error.reason in _FOR_GOOD:
        return error.detail or error.reason
    return None
