"""What a server and the blind evaluator say to each other (docs/protocol.md, "Evaluator").

A request is signed by the server's identity key and HPKE-sealed (RFC 9180) to the evaluator's
pinned X25519 key, so that the bus and its logs learn no unlock preimage. Inside the seal lies
`signature || JSON`; the signature is over the JSON bytes as sent, so nothing is canonicalised.

What a server acts on in a reply is signed; see `evaluation_signatures`.

Pure. Left to the evaluator: the subject's server is `server_id`, which identity key that server
has, the nonce, the preimage, the hourly limit. Left to the server: the proofs (`oprf`).
"""

from typing import Annotated, Final, Literal, Self

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey
from pydantic import Field, TypeAdapter, ValidationError, model_validator

from bus_schemas.encoding import lp
from bus_schemas.errors import ContractError, Refused
from bus_schemas.event import Contract
from bus_schemas.fields import (
    CounterFromZero,
    EpochId,
    Key32,
    KeyFingerprint,
    Reason,
    ServerId,
    Signature,
)
from bus_schemas.keys import sign, verify
from bus_schemas.oprf import MAX_ELEMENTS
from bus_schemas.sealed import ENC_LENGTH, SUITE

MAX_REQUEST_BYTES: Final = 16 * 1024
REQUEST_DOMAIN: Final = "byok/evaluator-request/v1"

_SIGNATURE_LENGTH = 64

Bytes32 = Annotated[bytes, Field(min_length=32, max_length=32)]
Nonce = Bytes32
"""Issued by the evaluator, good until its state of the server changes (`nonces`)."""


class ChallengeRequest(Contract, extra="forbid"):
    """Asks for a nonce."""

    op: Literal["challenge"] = "challenge"


class KeysRequest(Contract, extra="forbid"):
    """Asks for the public keys to verify proofs with."""

    op: Literal["keys"] = "keys"


class UnlockRequest(Contract, extra="forbid"):
    """Asks for the evaluations that open generation g and wrap generation g + 1."""

    op: Literal["unlock"] = "unlock"
    g: CounterFromZero
    """Generation of the share on the server's disk."""
    blinded: tuple[Bytes32, Bytes32]
    """Blinded x_g, then blinded x_{g+1}."""
    preimage: Annotated[Bytes32, Field(repr=False)]
    """s_g; SHA-256 of it under its domain is the chk_g that the evaluator keeps."""
    next_preimage: Annotated[Bytes32, Field(repr=False)]
    """s_{g+1}: a start that was begun is gone on with only by who holds its next share."""
    nonce: Nonce


class CommitRequest(Contract, extra="forbid"):
    """Says that generation g is on the disk now, so that the one before is stale."""

    op: Literal["commit"] = "commit"
    g: CounterFromZero
    """The new generation."""
    preimage: Annotated[Bytes32, Field(repr=False)]
    """s_g of the new generation: only who holds the new share can commit it."""
    owner_pins: Annotated[tuple[KeyFingerprint, ...] | None, Field(max_length=64)]
    """Owner keys pinned on the server: whose approval of a restored disk it would take.

    None while it cannot read them: the evaluator keeps those that it knows.
    """
    nonce: Nonce


class FingerprintRequest(Contract, extra="forbid"):
    """Asks for evaluations under an epoch's key."""

    op: Literal["fingerprint"] = "fingerprint"
    epoch: EpochId
    blinded: Annotated[tuple[Bytes32, ...], Field(min_length=1, max_length=MAX_ELEMENTS)]
    nonce: Nonce


EvaluatorRequest = Annotated[
    ChallengeRequest | KeysRequest | UnlockRequest | CommitRequest | FingerprintRequest,
    Field(discriminator="op"),
]


class SealedRequest(Contract, extra="forbid"):
    """A request as it crosses the bus."""

    v: Literal[1]
    server_id: ServerId
    enc: Annotated[bytes, Field(min_length=ENC_LENGTH, max_length=ENC_LENGTH)]
    ct: Annotated[bytes, Field(min_length=1, max_length=MAX_REQUEST_BYTES)]


class OpenedRequest(Contract, extra="forbid"):
    """A request out of its seal; nobody vouches for it before `check_request_signature`."""

    server_id: ServerId
    request: EvaluatorRequest
    signed: Annotated[bytes, Field(repr=False)]
    """The JSON bytes as sent."""
    signature: Signature


class ChallengeReply(Contract):
    """A nonce for the next request."""

    reply: Literal["challenge"] = "challenge"
    nonce: Nonce
    """Nobody vouches for it: a forged one costs the server another question."""


class KeysReply(Contract):
    """The evaluator's public keys for fingerprints, signed for one server by its pinned key."""

    reply: Literal["keys"] = "keys"
    fingerprint_public_keys: Annotated[dict[EpochId, Key32], Field(min_length=1, max_length=8)]
    """Of each k_epoch in use."""
    current_epoch: EpochId
    signature: Signature
    nonce: Nonce | None = None
    """For the next request, to save a `challenge`; not signed."""

    @model_validator(mode="after")
    def _current_is_listed(self) -> Self:
        if self.current_epoch not in self.fingerprint_public_keys:
            raise ValueError("current_epoch has no key")
        return self


class UnlockReply(Contract):
    """The evaluations of both generations, each under the key of its own."""

    reply: Literal["unlock"] = "unlock"
    evaluation: Annotated[bytes, Field(max_length=96 * 2)]
    """Proof and element of x_g, then of x_{g+1}; see `oprf`."""
    public_keys: tuple[Key32, Key32]
    """What each was evaluated under: the key of (g, chk_g), then that of (g + 1, chk_{g+1})."""
    signature: Signature
    nonce: Nonce | None = None
    """For the next request, to save a `challenge`; not signed."""


class EvaluationReply(Contract):
    """The evaluated elements."""

    reply: Literal["evaluation"] = "evaluation"
    evaluation: Annotated[bytes, Field(max_length=96 * MAX_ELEMENTS)]
    """Proof and element for each blinded element, in order; see `oprf`."""
    nonce: Nonce | None = None
    """For the next request, to save a `challenge`."""


class CommitReply(Contract):
    """The commit is stored."""

    reply: Literal["commit"] = "commit"
    incarnation: CounterFromZero
    """How often this server has been unlocked."""
    signature: Signature
    nonce: Nonce | None = None
    """For the next request, to save a `challenge`; not signed."""


class RefusalReply(Contract):
    """The evaluator checked the request and turned it down."""

    reply: Literal["refusal"] = "refusal"
    reason: Reason
    signature: Signature
    """Who believed an unsigned one could be stopped for good by one message."""


EvaluatorReply = Annotated[
    ChallengeReply | KeysReply | UnlockReply | EvaluationReply | CommitReply | RefusalReply,
    Field(discriminator="reply"),
]

_REQUEST: TypeAdapter[EvaluatorRequest] = TypeAdapter(EvaluatorRequest)
_REPLY: TypeAdapter[EvaluatorReply] = TypeAdapter(EvaluatorReply)


def seal_request(
    request: EvaluatorRequest,
    *,
    server_id: str,
    identity_key: Ed25519PrivateKey,
    evaluator_public_key: bytes,
) -> bytes:
    """Return the bytes to send: signed by *identity_key*, readable by the evaluator only."""
    signed = request.model_dump_json().encode()
    plaintext = sign(identity_key, REQUEST_DOMAIN, server_id, signed) + signed
    recipient = X25519PublicKey.from_public_bytes(evaluator_public_key)
    sealed = SUITE.encrypt(plaintext, recipient, info=request_info(server_id))
    outer = SealedRequest(v=1, server_id=server_id, enc=sealed[:ENC_LENGTH], ct=sealed[ENC_LENGTH:])
    return outer.model_dump_json().encode()


def open_request(raw: bytes, evaluator_private_key: X25519PrivateKey) -> OpenedRequest:
    """Return what a server sealed; the caller looks up its identity key and checks the signature.

    Raises ContractError(`bad_request`) when the bytes make no sense, Refused(`does_not_open`)
    when they were not sealed to this key.
    """
    if len(raw) > MAX_REQUEST_BYTES:
        raise ContractError("bad_request", f"more than {MAX_REQUEST_BYTES} bytes")
    try:
        outer = SealedRequest.model_validate_json(raw)
        plaintext = SUITE.decrypt(
            outer.enc + outer.ct, evaluator_private_key, info=request_info(outer.server_id)
        )
        signed = plaintext[_SIGNATURE_LENGTH:]
        return OpenedRequest(
            server_id=outer.server_id,
            request=_REQUEST.validate_json(signed),
            signed=signed,
            signature=plaintext[:_SIGNATURE_LENGTH],
        )
    except InvalidTag:
        raise Refused("does_not_open", f"sealed by {outer.server_id} to another key") from None
    except ValidationError:
        pass
    # Raised here and not above: a chained ValidationError would carry the preimage along.
    raise ContractError("bad_request", "not a request of version 1")


def check_request_signature(opened: OpenedRequest, identity_public_key: bytes) -> None:
    """Raise Refused(`bad_signature`) unless that server's identity key signed the request."""
    verify(identity_public_key, opened.signature, REQUEST_DOMAIN, opened.server_id, opened.signed)


def request_info(server_id: str) -> bytes:
    """Return HPKE's `info` of a request."""
    return REQUEST_DOMAIN.encode() + b"\0" + lp(server_id)


def read_reply(raw: bytes) -> EvaluatorReply:
    """Return the evaluator's reply. Raises ContractError(`bad_reply`)."""
    try:
        return _REPLY.validate_json(raw)
    except ValidationError as error:
        raise ContractError("bad_reply", f"{error.error_count()} faults") from None
