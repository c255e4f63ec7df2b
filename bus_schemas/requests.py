"""Subjects of the requests, and what enrolment and tokens carry."""

from typing import Annotated

from pydantic import Field

from bus_schemas.authorities import SignedAuthorities
from bus_schemas.event import Contract
from bus_schemas.fields import Key32, KeyFingerprint, Nkey, OwnerId, Reason, ServerId, ShortText
from bus_schemas.secret_fields import SecretField
from bus_schemas.subjects import SubjectTemplate

EVALUATE = SubjectTemplate("byok.v1.evaluate.{server_id}")
TOKEN = SubjectTemplate("byok.v1.token.{server_id}")
APPROVE = SubjectTemplate("byok.v1.approve.{server_id}")
"""The API hands an owner's `approval.Approval` to the evaluator."""
ENROL = SubjectTemplate("byok.v1.enrol.{joiner}")
"""*joiner* is the name in the join token's JWT. With a hole, as all subjects the fleet reaches:
nats-server lets an answer's reply subject wander into an import that has none, asked or not."""

Jwt = Annotated[str, Field(pattern=r"^[A-Za-z0-9_-]+\.[A-Za-z0-9_-]+\.[A-Za-z0-9_-]+$")]


class EvaluatorKeys(Contract):
    """The evaluator's two public keys, which a server pins when it enrols."""

    sealing_key: Key32
    """X25519: requests are HPKE-sealed to it."""
    signing_key: Key32
    """Ed25519: signs the VOPRF public keys of this server and of each epoch."""


class EnrolRequest(Contract):
    """The public halves of the keys a new server made; sent as `reveal_json` writes it."""

    server_id: ServerId
    secret: SecretField
    """From the join token; single use, an hour. Only its hash is kept."""
    nkey: Nkey
    identity_key: Key32


class Tokens(Contract):
    """The two NATS user JWTs of a server, both for its one nkey."""

    working: Jwt
    """An hour; renewed at 60-80 % of its life."""
    door: Jwt
    """90 days; can do nothing but ask for a new working token."""


class RenewalRequest(Contract):
    """A server asks for new tokens. Who it is, its subject says; an empty object is enough."""

    authorities: Annotated[tuple[KeyFingerprint, ...], Field(max_length=64)] = ()
    """Ids of the CAs in its `ca.pem`: so the platform knows whom a change would cut off."""


class Renewal(Tokens):
    """New tokens, and which CAs the platform has."""

    authorities: SignedAuthorities | None = None
    """Believed only as far as it is signed (docs/protocol.md, "Certificate authorities")."""


class EnrolReply(Contract):
    """What an accepted server gets back."""

    owner_id: OwnerId
    tokens: Tokens
    orders_key: Key32 | None = None
    """Ed25519: the platform's order key, pinned by the server; it may stop and lock, no more."""


class RefusedReply(Contract):
    """The request was understood and turned down."""

    refused: Reason
    detail: ShortText = ""
