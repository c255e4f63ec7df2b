"""What of the evaluator's replies is signed, and for which question (docs/protocol.md).

A forged reply may cost a server time and nothing else: keys, unlocks, commits and refusals are
signed by the evaluator's pinned Ed25519 key, over a domain of their own and, but for `keys`, over
the very request that they answer. Evaluations under an epoch's key carry their own proofs (`oprf`).

Pure. The signature leaves a reply's *nonce* out: a false one costs another question.
"""

import hashlib
from dataclasses import dataclass
from typing import Final, Protocol, Self

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from bus_schemas.encoding import u64
from bus_schemas.evaluation import CommitReply, KeysReply, RefusalReply, UnlockReply
from bus_schemas.keys import sign, verify
from bus_schemas.unlock import unlock_check

KEYS_DOMAIN: Final = "byok/evaluator-keys/v1"
UNLOCK_DOMAIN: Final = "byok/evaluator-unlock/v1"
COMMIT_DOMAIN: Final = "byok/evaluator-commit/v1"
REFUSAL_DOMAIN: Final = "byok/evaluator-refusal/v1"


class Claim(Protocol):
    """What an unlock claims to have: a disk of generation g, and the share of the next one."""

    @property
    def g(self) -> int:
        """The generation."""

    @property
    def preimage(self) -> bytes:
        """s_g."""

    @property
    def next_preimage(self) -> bytes:
        """s_{g+1}."""


@dataclass(frozen=True, slots=True)
class Question:
    """Which request a reply is signed for: no two sealed requests have the same bytes."""

    server_id: str
    digest: bytes
    """SHA-256 of the request as it crossed the bus, 32 bytes."""

    @classmethod
    def asked(cls, server_id: str, raw: bytes) -> Self:
        """Return the question that *raw* is, as sent or as it arrived."""
        return cls(server_id, hashlib.sha256(raw).digest())


def sign_keys(
    evaluator_key: Ed25519PrivateKey,
    *,
    server_id: str,
    fingerprint_public_keys: dict[str, bytes],
    current_epoch: str,
    nonce: bytes | None = None,
) -> KeysReply:
    """Return the evaluator's answer to `keys`; the signature leaves *nonce* out."""
    parts = _key_parts(server_id, fingerprint_public_keys, current_epoch)
    return KeysReply(
        fingerprint_public_keys=fingerprint_public_keys,
        current_epoch=current_epoch,
        signature=sign(evaluator_key, KEYS_DOMAIN, *parts),
        nonce=nonce,
    )


def check_keys(reply: KeysReply, *, server_id: str, evaluator_public_key: bytes) -> None:
    """Raise Refused(`bad_signature`) unless the pinned evaluator gave these keys to *server_id*."""
    parts = _key_parts(server_id, reply.fingerprint_public_keys, reply.current_epoch)
    verify(evaluator_public_key, reply.signature, KEYS_DOMAIN, *parts)


def sign_unlock(
    evaluator_key: Ed25519PrivateKey,
    question: Question,
    claim: Claim,
    public_keys: tuple[bytes, bytes],
) -> bytes:
    """Return the signature of the `UnlockReply` that has these *public_keys*."""
    return sign(evaluator_key, UNLOCK_DOMAIN, *_unlock_parts(question, claim, public_keys))


def check_unlock(
    reply: UnlockReply, question: Question, claim: Claim, *, evaluator_public_key: bytes
) -> None:
    """Raise Refused(`bad_signature`) unless the pinned evaluator has these keys for *claim*."""
    parts = _unlock_parts(question, claim, reply.public_keys)
    verify(evaluator_public_key, reply.signature, UNLOCK_DOMAIN, *parts)


def sign_commit(
    evaluator_key: Ed25519PrivateKey, question: Question, incarnation: int, nonce: bytes
) -> CommitReply:
    """Return the evaluator's answer to `commit`; the signature leaves *nonce* out."""
    signature = sign(evaluator_key, COMMIT_DOMAIN, *_commit_parts(question, incarnation))
    return CommitReply(incarnation=incarnation, signature=signature, nonce=nonce)


def check_commit(reply: CommitReply, question: Question, *, evaluator_public_key: bytes) -> None:
    """Raise Refused(`bad_signature`) unless the pinned evaluator counts so many incarnations."""
    parts = _commit_parts(question, reply.incarnation)
    verify(evaluator_public_key, reply.signature, COMMIT_DOMAIN, *parts)


def sign_refusal(evaluator_key: Ed25519PrivateKey, question: Question, reason: str) -> RefusalReply:
    """Return the evaluator's refusal of one request."""
    signature = sign(evaluator_key, REFUSAL_DOMAIN, *_refusal_parts(question, reason))
    return RefusalReply(reason=reason, signature=signature)


def check_refusal(reply: RefusalReply, question: Question, *, evaluator_public_key: bytes) -> None:
    """Raise Refused(`bad_signature`) unless the pinned evaluator turned down this very request."""
    parts = _refusal_parts(question, reply.reason)
    verify(evaluator_public_key, reply.signature, REFUSAL_DOMAIN, *parts)


def _key_parts(server_id: str, by_epoch: dict[str, bytes], current: str) -> list[bytes | str]:
    epochs = [part for epoch in sorted(by_epoch) for part in (epoch, by_epoch[epoch])]
    return [server_id, current, *epochs]


def _unlock_parts(
    question: Question, claim: Claim, public_keys: tuple[bytes, bytes]
) -> list[bytes | str]:
    checks = (unlock_check(claim.preimage), unlock_check(claim.next_preimage))
    return [question.server_id, question.digest, u64(claim.g), *checks, *public_keys]


def _commit_parts(question: Question, incarnation: int) -> list[bytes | str]:
    return [question.server_id, question.digest, u64(incarnation)]


def _refusal_parts(question: Question, reason: str) -> list[bytes | str]:
    return [question.server_id, question.digest, reason]
