"""The join token: all a new server must be told, in one line to paste on its console.

`byok-join-1.` and unpadded base64url (RFC 4648 section 5) of the JSON. It is a secret for the
hour it lives: whoever holds it may enrol that one server, once. Pure.
"""

from typing import Annotated, Final, Self

from pydantic import Field, ValidationError

from bus_schemas.encoding import from_base64url, to_base64url
from bus_schemas.errors import Refused
from bus_schemas.event import Contract
from bus_schemas.fields import OwnerId, ServerId
from bus_schemas.requests import EvaluatorKeys, Jwt
from bus_schemas.secret_fields import SecretField, reveal_json

PREFIX: Final = "byok-join-1."
MAX_LENGTH: Final = 16 * 1024


class JoinToken(Contract, extra="forbid"):
    """Where the bus is, whom to trust there, and the right to enrol one server."""

    url: Annotated[str, Field(pattern=r"^tls://[!-~]{1,300}$")]
    """`tls://host:port` of the bus."""
    ca_pem: Annotated[str, Field(max_length=8192, pattern=r"^-----BEGIN CERTIFICATE-----\n")]
    """The only CA the server trusts for the bus, PEM (RFC 7468)."""
    server_id: ServerId
    owner_id: OwnerId
    secret: SecretField
    """256 random bits as base64url; single use, an hour. The platform keeps its hash only."""
    jwt: Jwt
    """NATS user JWT that reaches `byok.v1.enrol.<its name>` and nothing else, an hour."""
    seed: SecretField
    """The nkey seed (`SU…`) of that JWT."""
    evaluator: EvaluatorKeys
    """Pinned by the server. It comes by way of people's hands and not from the issuer, which
    answers on the bus and could hand out keys of its own."""

    def encode(self) -> str:
        """Return the token *with its secrets*, to be printed once."""
        return PREFIX + to_base64url(reveal_json(self))

    @classmethod
    def decode(cls, text: str) -> Self:
        """Return the token in *text*; blanks and line breaks of a paste do not matter.

        Raises Refused(`bad_join_token`) without showing what was pasted.
        """
        packed = "".join(text.split())
        if not packed.startswith(PREFIX) or len(packed) > MAX_LENGTH:
            raise Refused("bad_join_token", f"it must begin with {PREFIX}; paste it whole")
        try:
            return cls.model_validate_json(from_base64url(packed.removeprefix(PREFIX)))
        except (ValidationError, ValueError):
            pass
        # Raised here and not above: a chained ValidationError would carry the secret along.
        raise Refused("bad_join_token", "it is cut off or mistyped; paste it whole")
