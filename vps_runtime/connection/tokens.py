"""The two tokens on disk: stored whole before they are used."""

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from bus_schemas.nkeys import KeyType, key_from_seed, public_nkey
from bus_schemas.requests import Tokens
from bus_schemas.transport.credentials import Credentials
from bus_schemas.transport.private_files import write_private
from vps_runtime.connection.rules import TokenClaims, check_issued, read_claims
from vps_runtime.state import NotEnrolled, StateFolder


class TokenStore:
    """The newest tokens of one server and the one nkey both are for."""

    def __init__(self, state: StateFolder) -> None:
        """Read them from *state*. Raises NotEnrolled."""
        self._path = state.tokens
        self._server_id = state.read_settings().server_id
        self._seed = state.read_nkey_seed()
        try:
            key: Ed25519PrivateKey = key_from_seed(self._seed)
            self._tokens = Tokens.model_validate_json(self._path.read_bytes())
        except (OSError, ValueError):
            message = f"the tokens or the nkey in {state.root} are missing or damaged; enrol anew"
            raise NotEnrolled(message) from None
        self._nkey = public_nkey(key, KeyType.USER)

    def working(self) -> Credentials:
        """Return what the server works with."""
        return Credentials(self._tokens.working, self._seed)

    def door(self) -> Credentials:
        """Return what it can only ask for a new working token with."""
        return Credentials(self._tokens.door, self._seed)

    def working_claims(self) -> TokenClaims:
        """Return name and times of the working token."""
        return read_claims(self._tokens.working)

    def door_claims(self) -> TokenClaims:
        """Return name and times of the door token."""
        return read_claims(self._tokens.door)

    def replace(self, tokens: Tokens) -> None:
        """Store *tokens*, then use them. Raises Refused (`bad_token`, `wrong_token`), OSError."""
        for jwt in (tokens.working, tokens.door):
            check_issued(read_claims(jwt), server_id=self._server_id, nkey=self._nkey)
        pair = Tokens(working=tokens.working, door=tokens.door)  # and not what came along with it
        write_private(self._path, pair.model_dump_json().encode())
        self._tokens = pair
