"""The NATS tokens of servers. Pure: keys and time come in as arguments.

A server has two for its one nkey: a working token of an hour, and a door token of 90 days that
can do nothing but ask for the next pair. A machine that is about to enrol has a third kind, for
an hour, whose key the platform makes and throws away.
"""

from dataclasses import dataclass, field

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from bus_schemas.flows import Account, Role
from bus_schemas.nkeys import KeyType, public_nkey, seed_nkey
from bus_schemas.requests import Tokens
from bus_schemas.transport.credentials import Credentials
from platform_handlers.authority.claims import UserPlan, mint_user
from platform_handlers.authority.installation import Installation
from platform_handlers.provisioning.records import DOOR_SECONDS, JOIN_SECONDS, WORKING_SECONDS


@dataclass(frozen=True)
class TokenMint:
    """The scoped signing keys of the fleet; what they sign has exactly its role's permissions."""

    account: str
    """Public nkey of the FLEET account."""
    server: Ed25519PrivateKey = field(repr=False)
    door: Ed25519PrivateKey = field(repr=False)
    enrolling: Ed25519PrivateKey = field(repr=False)

    @classmethod
    def of(cls, installation: Installation) -> "TokenMint":
        """Return the mint of *installation*. Raises OSError."""
        return cls(
            installation.account_id(Account.FLEET.value),
            installation.signing_key(Role.SERVER),
            installation.signing_key(Role.DOOR),
            installation.signing_key(Role.ENROLLING),
        )

    def tokens(self, server_id: str, nkey: str, *, now: int) -> Tokens:
        """Return a fresh pair for one server; *now* in Unix seconds."""

        def mint(key: Ed25519PrivateKey, seconds: int) -> str:
            user = UserPlan(server_id, nkey, self.account, now, expires_at=now + seconds)
            return mint_user(key, user)

        return Tokens(
            working=mint(self.server, WORKING_SECONDS), door=mint(self.door, DOOR_SECONDS)
        )

    def enrolling_credentials(self, key: Ed25519PrivateKey, name: str, *, now: int) -> Credentials:
        """Return credentials under the throw-away *key* that reach the enrolment only.

        *name* is the join token's `joiner_name`.
        """
        nkey = public_nkey(key, KeyType.USER)
        user = UserPlan(name, nkey, self.account, now, expires_at=now + JOIN_SECONDS)
        return Credentials(mint_user(self.enrolling, user), seed_nkey(key, KeyType.USER))
