"""What server and evaluator say to each other."""

import json
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey
from pydantic import ValidationError

from bus_schemas.errors import ContractError, Refused
from bus_schemas.evaluation import (
    MAX_REQUEST_BYTES,
    ChallengeReply,
    ChallengeRequest,
    CommitReply,
    CommitRequest,
    EvaluationReply,
    EvaluatorReply,
    EvaluatorRequest,
    FingerprintRequest,
    KeysReply,
    KeysRequest,
    OpenedRequest,
    RefusalReply,
    SealedRequest,
    UnlockReply,
    UnlockRequest,
    check_request_signature,
    open_request,
    read_reply,
    request_info,
    seal_request,
)
from bus_schemas.evaluation_signatures import (
    Question,
    check_commit,
    check_keys,
    check_refusal,
    check_unlock,
    sign_commit,
    sign_keys,
    sign_refusal,
    sign_unlock,
)
from bus_schemas.keys import sign
from bus_schemas.sealed import ENC_LENGTH, SUITE

VECTORS: dict[str, Any] = json.loads(
    (Path(__file__).parents[1] / "vectors" / "evaluation.json").read_bytes()
)
SERVER: str = VECTORS["server_id"]
IDENTITY = Ed25519PrivateKey.from_private_bytes(b"\x02" * 32)
IDENTITY_PUBLIC = bytes.fromhex(VECTORS["identity_public_key"])
EVALUATOR = X25519PrivateKey.from_private_bytes(bytes.fromhex(VECTORS["evaluator_private_key"]))
EVALUATOR_PUBLIC = EVALUATOR.public_key().public_bytes_raw()
SIGNER = Ed25519PrivateKey.from_private_bytes(b"\x0d" * 32)
SIGNER_PUBLIC = bytes.fromhex(VECTORS["evaluator_public_key"])
B = b"\x0a" * 32

UNLOCK = UnlockRequest(g=41, blinded=(B, B), preimage=B, next_preimage=B, nonce=B)
REQUESTS: list[EvaluatorRequest] = [
    ChallengeRequest(),
    KeysRequest(),
    UNLOCK,
    CommitRequest(g=42, preimage=B, owner_pins=("A" * 20,) * 64, nonce=B),
    FingerprintRequest(epoch="2026-a", blinded=(B,) * 64, nonce=B),
]


def sealed(request: EvaluatorRequest = UNLOCK) -> bytes:
    """Seal *request* as the test server."""
    return seal_request(
        request,
        server_id=SERVER,
        identity_key=IDENTITY,
        evaluator_public_key=EVALUATOR_PUBLIC,
    )


def sealed_by_hand(plaintext: bytes) -> bytes:
    """Seal an inside that `seal_request` would never make."""
    raw = SUITE.encrypt(plaintext, EVALUATOR.public_key(), info=request_info(SERVER))
    outer = SealedRequest(v=1, server_id=SERVER, enc=raw[:ENC_LENGTH], ct=raw[ENC_LENGTH:])
    return outer.model_dump_json().encode()


def keys_reply() -> KeysReply:
    """Sign the vector's keys."""
    return sign_keys(
        SIGNER,
        server_id=SERVER,
        fingerprint_public_keys={"2026-b": b"\x10" * 32, "2026-a": b"\x0f" * 32},
        current_epoch="2026-b",
    )


QUESTION = Question.asked(SERVER, VECTORS["request"].encode())
POINTS = (b"\x0e" * 32, b"\x0f" * 32)
UNLOCKED = UnlockReply(
    evaluation=bytes(96 * 2),
    public_keys=POINTS,
    signature=sign_unlock(SIGNER, QUESTION, UNLOCK, POINTS),
    nonce=B,
)
COMMITTED = sign_commit(SIGNER, QUESTION, 43, B)
TURNED_DOWN = sign_refusal(SIGNER, QUESTION, "stale_generation")


def test_the_vector_opens() -> None:
    """A request made by an independent HPKE must open here, signature and all."""
    opened = open_request(VECTORS["request"].encode(), EVALUATOR)
    assert opened.signed.decode() == VECTORS["inner"]
    assert opened.signature.hex() == VECTORS["signature"]
    commit = CommitRequest(
        g=VECTORS["commit"]["g"],
        preimage=bytes.fromhex(VECTORS["commit"]["preimage"]),
        owner_pins=tuple(VECTORS["commit"]["owner_pins"]),
        nonce=bytes.fromhex(VECTORS["commit"]["nonce"]),
    )
    assert opened.request == commit
    assert commit.model_dump_json() == VECTORS["inner"]
    check_request_signature(opened, IDENTITY_PUBLIC)


@pytest.mark.parametrize("request_", REQUESTS, ids=lambda request: request.op)
def test_every_request_arrives(request_: EvaluatorRequest) -> None:
    """What a server seals, the evaluator reads, knows the sender of and has room for."""
    raw = sealed(request_)
    opened = open_request(raw, EVALUATOR)
    assert (opened.server_id, opened.request) == (SERVER, request_)
    check_request_signature(opened, IDENTITY_PUBLIC)
    assert len(raw) < MAX_REQUEST_BYTES


def test_a_preimage_shows_nowhere() -> None:
    """The bus and the logs must learn no preimage."""
    raw = sealed()
    opened = open_request(raw, EVALUATOR)
    assert "preimage" not in repr(UNLOCK)
    assert "preimage" not in repr(opened)
    assert b"preimage" not in raw


@pytest.mark.parametrize(
    "change",
    [{"server_id": "server-2"}, {"signature": b"\x07" * 64}, {"signed": b'{"op":"keys"}'}],
)
def test_a_changed_request_is_refused(change: dict[str, object]) -> None:
    """The signature covers the server and every byte of the request."""
    opened = open_request(sealed(), EVALUATOR).model_copy(update=change)
    with pytest.raises(Refused, match="bad_signature"):
        check_request_signature(opened, IDENTITY_PUBLIC)


def test_another_servers_signature_is_refused() -> None:
    """One server must not speak for another."""
    other = Ed25519PrivateKey.generate().public_key().public_bytes_raw()
    with pytest.raises(Refused, match="bad_signature"):
        check_request_signature(open_request(sealed(), EVALUATOR), other)


def test_a_request_moved_to_another_server_does_not_open() -> None:
    """The server's id outside the seal is bound by HPKE's info."""
    moved = sealed().replace(SERVER.encode(), b"server-2")
    with pytest.raises(Refused, match="does_not_open"):
        open_request(moved, EVALUATOR)


def test_another_evaluator_cannot_read() -> None:
    """Only the pinned evaluator learns what is asked."""
    with pytest.raises(Refused, match="does_not_open"):
        open_request(sealed(), X25519PrivateKey.generate())


@pytest.mark.parametrize(
    "raw",
    [
        b"",
        b"{}",
        sealed().replace(b'"v":1', b'"v":2'),
        sealed().replace(b'"v":1', b'"v":1,"more":1'),
        sealed() + b" " * MAX_REQUEST_BYTES,
        sealed_by_hand(b"short"),
        sealed_by_hand(bytes(64) + b'{"op":"delete"}'),
        sealed_by_hand(bytes(64) + b'{"op":"unlock","preimage":"made-up-canary"}'),
    ],
)
def test_what_is_no_request_is_refused_without_a_word_of_it(raw: bytes) -> None:
    """A malformed request is parked, and its error carries nothing of the inside."""
    with pytest.raises(ContractError, match="bad_request") as caught:
        open_request(raw, EVALUATOR)
    assert caught.value.__context__ is None
    assert "canary" not in str(caught.value)


@pytest.mark.parametrize("number", [0, 65])
def test_the_number_of_fingerprints_is_bounded(number: int) -> None:
    """One request holds 1 to 64 elements."""
    with pytest.raises(ValidationError):
        FingerprintRequest(epoch="2026-a", blinded=(B,) * number, nonce=B)


@pytest.mark.parametrize(
    "reply",
    [
        ChallengeReply(nonce=B),
        keys_reply().model_copy(update={"nonce": B}),
        EvaluationReply(evaluation=bytes(96 * 64), nonce=B),
        UNLOCKED,
        COMMITTED,
        TURNED_DOWN,
    ],
    ids=lambda reply: reply.reply,
)
def test_every_reply_arrives(reply: EvaluatorReply) -> None:
    """What the evaluator answers, the server reads as the same kind of answer."""
    assert read_reply(reply.model_dump_json().encode()) == reply


@pytest.mark.parametrize("raw", [b"", b"{}", b'{"reply":"commit"}', b'{"reply":"other"}'])
def test_what_is_no_reply_is_refused(raw: bytes) -> None:
    """A malformed reply is a broken contract, not a crash."""
    with pytest.raises(ContractError, match="bad_reply"):
        read_reply(raw)


def test_the_signed_keys_match_the_vector() -> None:
    """Epochs are signed in the order of their names, whatever the order in the JSON."""
    reply = read_reply(VECTORS["keys_reply"].encode())
    assert reply == keys_reply()
    check_keys(keys_reply(), server_id=SERVER, evaluator_public_key=SIGNER_PUBLIC)


@pytest.mark.parametrize(
    "change",
    [
        {"current_epoch": "2026-a"},
        {"fingerprint_public_keys": {"2026-b": b"\x10" * 32}},
        {"fingerprint_public_keys": {"2026-b": b"\x0f" * 32, "2026-a": b"\x10" * 32}},
        {"signature": b"\x07" * 64},
    ],
)
def test_changed_keys_are_refused(change: dict[str, object]) -> None:
    """Who could swap a public key could learn or forge evaluations."""
    with pytest.raises(Refused, match="bad_signature"):
        check_keys(
            keys_reply().model_copy(update=change),
            server_id=SERVER,
            evaluator_public_key=SIGNER_PUBLIC,
        )


def test_keys_of_another_server_are_refused() -> None:
    """The unlock key of one server must not be given to another."""
    with pytest.raises(Refused, match="bad_signature"):
        check_keys(keys_reply(), server_id="server-2", evaluator_public_key=SIGNER_PUBLIC)


def check(reply: EvaluatorReply, question: Question, claim: UnlockRequest = UNLOCK) -> None:
    """Hold an answer against the pinned evaluator's key."""
    if isinstance(reply, UnlockReply):
        check_unlock(reply, question, claim, evaluator_public_key=SIGNER_PUBLIC)
    elif isinstance(reply, CommitReply):
        check_commit(reply, question, evaluator_public_key=SIGNER_PUBLIC)
    else:
        assert isinstance(reply, RefusalReply)
        check_refusal(reply, question, evaluator_public_key=SIGNER_PUBLIC)


ANSWERS: list[EvaluatorReply] = [UNLOCKED, COMMITTED, TURNED_DOWN]


@pytest.mark.parametrize("reply", ANSWERS, ids=lambda reply: reply.reply)
def test_the_signed_answers_match_the_vectors(reply: EvaluatorReply) -> None:
    """What a server acts on is signed for the very request that it sent."""
    figures = VECTORS["answers"][reply.reply]
    assert reply.model_dump()["signature"].hex() == figures["signature"]
    check(reply, QUESTION)


@pytest.mark.parametrize("reply", ANSWERS, ids=lambda reply: reply.reply)
def test_an_answer_to_another_request_is_refused(reply: EvaluatorReply) -> None:
    """A recorded refusal would stop a server, a recorded count would make it seem older."""
    again = VECTORS["request"].encode() + b" "
    for question in (Question.asked(SERVER, again), Question("server-2", QUESTION.digest)):
        with pytest.raises(Refused, match="bad_signature"):
            check(reply, question)


@pytest.mark.parametrize(
    ("reply", "change"),
    [
        (UNLOCKED, {"public_keys": (POINTS[1], POINTS[0])}),
        (COMMITTED, {"incarnation": 2**53 - 1}),
        (TURNED_DOWN, {"reason": "server_not_active"}),
    ],
)
def test_a_changed_answer_is_refused(reply: EvaluatorReply, change: dict[str, object]) -> None:
    """The bus can change no key, no count and no reason."""
    with pytest.raises(Refused, match="bad_signature"):
        check(reply.model_copy(update=change), QUESTION)


@pytest.mark.parametrize(
    "change", [{"g": 42}, {"preimage": POINTS[0]}, {"next_preimage": POINTS[1]}]
)
def test_keys_for_another_claim_are_refused(change: dict[str, object]) -> None:
    """They are the keys of this disk's generations, or of none."""
    with pytest.raises(Refused, match="bad_signature"):
        check(UNLOCKED, QUESTION, UNLOCK.model_copy(update=change))


def test_the_current_epoch_has_a_key() -> None:
    """An answer without the key it calls current is of no use."""
    with pytest.raises(ValidationError, match="current_epoch"):
        KeysReply.model_validate(keys_reply().model_dump() | {"current_epoch": "2027-a"})


def test_an_opened_request_keeps_the_bytes_as_sent() -> None:
    """The signature is over the bytes sent, so they are never written anew before the check."""
    spaced = b'{ "op": "challenge" }'
    plaintext = sign(IDENTITY, "byok/evaluator-request/v1", SERVER, spaced) + spaced
    opened = open_request(sealed_by_hand(plaintext), EVALUATOR)
    check_request_signature(opened, IDENTITY_PUBLIC)
    assert isinstance(opened, OpenedRequest)
    assert opened.request == ChallengeRequest()
