"""What is fuzzed: every parser that a stranger's bytes reach, and what must never come out of it.

A target takes any bytes. It returns if they were refused in the words of the contract, or if they
say the same as a seed; whatever else happens is a finding: another exception, a Rust panic, a
forgery taken for real. The same targets run in the suite (`test_fuzz_corpus.py`) and under
`make fuzz`, where coverage leads the mutations.
"""

import json
from collections.abc import Callable, Iterable
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey
from cryptography.hazmat.primitives.serialization import load_pem_private_key
from pydantic import ValidationError

from bus_schemas import evaluation, evaluation_signatures, orders, requests, sealed
from bus_schemas.approval import Approval, check_approval
from bus_schemas.authorities import (
    SignedAuthorities,
    admit,
    read_authorities,
    sign_authorities,
)
from bus_schemas.codec import decode, encode
from bus_schemas.credential import CredentialPayload
from bus_schemas.errors import ContractError, Refused
from bus_schemas.events.config import Order
from bus_schemas.join_token import JoinToken
from bus_schemas.keys import verify
from bus_schemas.oprf import OprfKey, blind
from platform_handlers.authority.tls import make_ca
from tests.oracle import protocol
from vps_runtime.connection.rules import read_claims
from vps_runtime.vault import record

_TESTS: Final = Path(__file__).parents[1]
_OWNER_SEED: Final = b"\x01" * 32
_IDENTITY_SEED: Final = b"\x02" * 32
_EPHEMERAL: Final = b"\x04" * 32


@dataclass(frozen=True)
class Target:
    """One parser under fire."""

    name: str
    run: Callable[[bytes], None]
    seeds: Callable[[], Iterable[bytes]]
    """Good inputs for the mutations to start from; each must pass."""
    share: float = 0.1
    """Of all inputs of a run: what is quick to refuse gets more of them."""


class Accepted(AssertionError):
    """Something was taken that nobody with the right key had made."""


def _vectors(name: str) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((_TESTS / "vectors" / f"{name}.json").read_bytes())
    return found


def _private_key(pem: bytes) -> ec.EllipticCurvePrivateKey:
    key = load_pem_private_key(pem, password=None)
    assert isinstance(key, ec.EllipticCurvePrivateKey)
    return key


# --- the codec: a subject, a line end, a message ---


def _codec(data: bytes) -> None:
    subject, _, raw = data.partition(b"\n")
    with suppress(ContractError):
        envelope = decode(raw, subject.decode("latin-1"))
        again = decode(encode(envelope), envelope.data.subject)
        if again != envelope:
            raise Accepted("decoding what was encoded gives something else")


def _codec_seeds() -> Iterable[bytes]:
    for path in sorted((_TESTS / "contract" / "golden").glob("*.json")):
        golden = json.loads(path.read_bytes())
        yield _subject_of(path, golden).encode() + b"\n" + path.read_bytes()


def _subject_of(path: Path, golden: dict[str, Any]) -> str:
    from bus_schemas.catalog import catalog  # noqa: PLC0415 (only the seeds need it)

    template = catalog()[golden["type"]].template
    return template.fill({name: str(golden["data"][name]) for name in template.names})


# --- sealed credentials ---

_SEALED = _vectors("sealed")
_SEALING_KEY = X25519PrivateKey.from_private_bytes(bytes.fromhex(_SEALED["sealing_private_key"]))
_ENVELOPE = sealed.SealedEnvelope.model_validate(_SEALED["envelope"])


def _envelope(data: bytes) -> None:
    with suppress(ContractError, Refused, ValidationError):
        found = sealed.SealedEnvelope.model_validate_json(data)
        sealed.open_sealed(found, sealing_private_key=_SEALING_KEY)
        if found != _ENVELOPE and found.sender_public_key == _ENVELOPE.sender_public_key:
            raise Accepted("an envelope that the owner never signed")


def _sealed_payload(data: bytes) -> None:
    """What a hostile *owner* can put inside a good seal."""
    fields = {k: v for k, v in _SEALED["envelope"].items() if k not in _SECRET_FIELDS}
    receiver = _SEALING_KEY.public_key().public_bytes_raw()
    made = protocol.envelope(fields, data, receiver, _EPHEMERAL, _OWNER_SEED)
    with suppress(ContractError, Refused, ValidationError):
        found = sealed.SealedEnvelope.model_validate_json(made)
        payload = sealed.open_sealed(found, sealing_private_key=_SEALING_KEY)
        if CredentialPayload.read_json(payload.reveal_json()) != payload:
            raise Accepted("a credential that does not survive being stored")


_SECRET_FIELDS = {"v", "sender_public_key", "enc", "ct", "sig"}


# --- the vault ---

_VAULT = _vectors("vault")
_ROOT = bytes.fromhex(_VAULT["root_key"])
_RECORD = bytes.fromhex(_VAULT["record"])
_PLACE = record.RecordName(_VAULT["server"], _VAULT["slot"], _VAULT["revision"])


def _vault_record(data: bytes) -> None:
    with suppress(ContractError, Refused):
        record.open_record(_ROOT, data, _PLACE)
        if data != _RECORD:
            raise Accepted("a record that the vault never wrote")


# --- enrolment ---


def _enrolment(data: bytes) -> None:
    with suppress(ValidationError):
        found = requests.EnrolRequest.model_validate_json(data)
        repr(found)
    for model in (requests.EnrolReply, requests.Tokens, requests.RefusedReply):
        with suppress(ValidationError):
            model.model_validate_json(data)
    text = data.decode("latin-1")
    with suppress(Refused):
        read_claims(text)
    with suppress(Refused):
        JoinToken.decode(text)


def _enrolment_seeds() -> Iterable[bytes]:
    secret = "x" * 43
    request = {
        "server_id": "server-1",
        "secret": secret,
        "nkey": "U" + "A" * 55,
        "identity_key": protocol.b64(b"\x02" * 32),
    }
    yield json.dumps(request).encode()
    yield b'{"refused": "join_token_used", "detail": "used at noon"}'
    claims = protocol.b64(b'{"name":"server-1","sub":"U","iat":1,"exp":2}').rstrip("=")
    yield f"e30.{claims}.e30".encode()
    yield json.dumps({"working": f"e30.{claims}.e30", "door": f"e30.{claims}.e30"}).encode()


# --- the evaluator ---

_EVALUATION = _vectors("evaluation")
_EVALUATOR = X25519PrivateKey.from_private_bytes(
    bytes.fromhex(_EVALUATION["evaluator_private_key"])
)
_IDENTITY = bytes.fromhex(_EVALUATION["identity_public_key"])
_INNER = _EVALUATION["inner"].encode()
_KEY = OprfKey.from_seed(b"\x05" * 32)
_BLINDING, _BLINDED = blind([b"x"])
_ANSWER = _KEY.evaluate(_BLINDED)
_QUESTION = evaluation_signatures.Question.asked("server-1", b"asked")
_CLAIM = evaluation.UnlockRequest(
    g=1,
    blinded=(_BLINDED[0], _BLINDED[0]),
    preimage=b"\x0a" * 32,
    next_preimage=b"\x0a" * 32,
    nonce=b"\x0a" * 32,
)


def _evaluator_request(data: bytes) -> None:
    with suppress(ContractError, Refused):
        opened = evaluation.open_request(data, _EVALUATOR)
        evaluation.check_request_signature(opened, _IDENTITY)
        if opened.signed != _INNER:
            raise Accepted("a request that the server never signed")


def _evaluator_request_seeds() -> Iterable[bytes]:
    yield _EVALUATION["request"].encode()


def _evaluator_inner(data: bytes) -> None:
    """What a hostile *server* can put inside a good seal, evaluated as it would be."""
    public = _EVALUATOR.public_key().public_bytes_raw()
    raw = protocol.evaluator_request("server-1", data, _IDENTITY_SEED, public, _EPHEMERAL)
    with suppress(ContractError, Refused):
        opened = evaluation.open_request(raw, _EVALUATOR)
        evaluation.check_request_signature(opened, _IDENTITY)
        blinded = getattr(opened.request, "blinded", ())
        if blinded:
            _KEY.evaluate(blinded)


def _evaluator_inner_seeds() -> Iterable[bytes]:
    text, number = protocol.b64(b"\x0a" * 32), protocol.b64(_BLINDED[0])
    yield _INNER
    yield b'{"op": "challenge"}'
    yield b'{"op": "keys"}'
    fingerprint = {"op": "fingerprint", "epoch": "2026-a", "blinded": [number], "nonce": text}
    yield json.dumps(fingerprint).encode()
    rest = {"preimage": text, "next_preimage": text, "nonce": text}
    yield json.dumps({"op": "unlock", "g": 1, "blinded": [number, number], **rest}).encode()


def _evaluator_answer(data: bytes) -> None:
    """What a hostile *bus* can answer a server: a reply, or an evaluation."""
    with suppress(ContractError, Refused):
        reply = evaluation.read_reply(data)
        if isinstance(reply, evaluation.KeysReply):
            evaluation_signatures.check_keys(
                reply, server_id="server-1", evaluator_public_key=_IDENTITY
            )
            raise Accepted("keys that the evaluator never signed")
        if isinstance(reply, evaluation.UnlockReply):
            evaluation_signatures.check_unlock(
                reply, _QUESTION, _CLAIM, evaluator_public_key=_IDENTITY
            )
            raise Accepted("unlock keys that the evaluator never signed")
        if isinstance(reply, evaluation.CommitReply):
            evaluation_signatures.check_commit(reply, _QUESTION, evaluator_public_key=_IDENTITY)
            raise Accepted("a count that the evaluator never signed")
        if isinstance(reply, evaluation.RefusalReply):
            evaluation_signatures.check_refusal(reply, _QUESTION, evaluator_public_key=_IDENTITY)
            raise Accepted("a refusal that the evaluator never signed")
    with suppress(ContractError, Refused):
        _BLINDING.finalize(data[:96], _KEY.public_key)
        if data[:96] != _ANSWER:
            raise Accepted("an evaluation without its proof")


def _evaluator_answer_seeds() -> Iterable[bytes]:
    yield _ANSWER
    yield _EVALUATION["keys_reply"].encode()
    signed = {
        kind: {"reply": kind, "signature": protocol.b64(bytes.fromhex(answer["signature"]))}
        for kind, answer in _EVALUATION["answers"].items()
    }
    points = [protocol.b64(b"\x0e" * 32), protocol.b64(b"\x0f" * 32)]
    body = {"evaluation": protocol.b64(_ANSWER * 2), "public_keys": points}
    yield json.dumps(signed["unlock"] | body).encode()
    yield json.dumps(signed["commit"] | {"incarnation": 43}).encode()
    yield json.dumps(signed["refusal"] | {"reason": "stale_generation"}).encode()


def _signature(data: bytes) -> None:
    """A key and a signature over nothing that either of them ever signed."""
    with suppress(Refused):
        verify(data[:32], data[32:96], "byok/fuzz/v1", data[96:])
        raise Accepted("a signature out of the air")


# --- what owners and the platform sign ---

_AT = datetime(2026, 11, 23, tzinfo=UTC)
_CA = make_ca("byok fuzz", now=_AT)
_CAS = read_authorities(_CA.certificate)
_LIST = sign_authorities(_CAS, _private_key(_CA.key))
_ADDRESSEE = orders.Addressee("owner-1", "server-1", _IDENTITY)
_ORDER_FIELDS = {
    "order_id": "0190a1b2-0000-7000-8000-000000000002",
    "n": 1,
    "kind": "lock",
    "not_after": "2030-01-01T00:00:00Z",
}
_ORDER = protocol.order(_OWNER_SEED, ("owner-1", "server-1", _IDENTITY), _ORDER_FIELDS).encode()
_APPROVAL = protocol.approval(_OWNER_SEED, "server-1", "A" * 20, 1).encode()
_OWNER = _ENVELOPE.sender_public_key


def _signed_words(data: bytes) -> None:
    """An order, an approval, a list of CAs: each obeyed only as it was signed."""
    with suppress(ContractError, Refused, ValidationError):
        order = Order.model_validate_json(data)
        orders.check_order(order, _ADDRESSEE)
        if order != Order.model_validate_json(_ORDER) and order.signer == _OWNER:
            raise Accepted("an order that the owner never gave")
    with suppress(ContractError, Refused, ValidationError):
        word = Approval.model_validate_json(data)
        check_approval(word)
        if word != Approval.model_validate_json(_APPROVAL) and word.public_key == _OWNER:
            raise Accepted("an approval that the owner never gave")
    with suppress(ContractError, Refused, ValidationError):
        offered = SignedAuthorities.model_validate_json(data)
        if admit(_CAS, offered, at=_AT) != _CAS:
            raise Accepted("a CA that ours did not introduce")


def _signed_words_seeds() -> Iterable[bytes]:
    yield _ORDER
    yield _APPROVAL
    yield _LIST.model_dump_json().encode()


TARGETS: Final = (
    Target("codec", _codec, _codec_seeds, 0.2),
    Target("envelope", _envelope, lambda: [_ENVELOPE.model_dump_json().encode()], 0.1),
    Target("sealed-payload", _sealed_payload, lambda: [_SEALED["payload"].encode()], 0.01),
    Target("vault-record", _vault_record, lambda: [_RECORD], 0.2),
    Target("enrolment", _enrolment, _enrolment_seeds, 0.2),
    Target("evaluator-request", _evaluator_request, _evaluator_request_seeds, 0.1),
    Target("evaluator-inner", _evaluator_inner, _evaluator_inner_seeds, 0.02),
    Target("evaluator-answer", _evaluator_answer, _evaluator_answer_seeds, 0.04),
    Target("signed-words", _signed_words, _signed_words_seeds, 0.1),
    Target("signature", _signature, lambda: [b"\x03" * 100], 0.03),
)
