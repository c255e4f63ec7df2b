"""A NATS user's JWT and seed, in the `.creds` text form that every NATS client reads."""

import re
from dataclasses import dataclass, field

from bus_schemas.errors import Refused
from bus_schemas.nkeys import key_from_seed

_FORM = re.compile(
    r"-----BEGIN NATS USER JWT-----\s+(?P<jwt>[\w-]+\.[\w-]+\.[\w-]+)\s+-+END NATS USER JWT-+"
    r".*?-----BEGIN USER NKEY SEED-----\s+(?P<seed>SU[A-Z2-7]+)\s+-+END USER NKEY SEED-+",
    re.DOTALL | re.ASCII,
)


@dataclass(frozen=True)
class Credentials:
    """What one user signs in with; the seed never shows in a repr."""

    jwt: str
    seed: str = field(repr=False)

    def to_text(self) -> str:
        """Return the `.creds` form."""
        return (
            f"-----BEGIN NATS USER JWT-----\n{self.jwt}\n------END NATS USER JWT------\n\n"
            f"-----BEGIN USER NKEY SEED-----\n{self.seed}\n------END USER NKEY SEED------\n"
        )

    def sign(self, nonce: bytes) -> bytes:
        """Return the Ed25519 signature over the server's nonce."""
        return key_from_seed(self.seed).sign(nonce)


def parse_credentials(text: str) -> Credentials:
    """Return the credentials in *text*. Raises Refused(`bad_credentials_file`), showing nothing."""
    match = _FORM.search(text)
    if match is None:
        raise Refused("bad_credentials_file", "it must hold one NATS user JWT and one seed")
    return Credentials(match["jwt"], match["seed"])
