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
from pathlib import Path
from typing import Any, Final

from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey
from pydantic import ValidationError

from bus_schemas import evaluation, requests, sealed
from bus_schemas.codec import decode, encode
from bus_schemas.credential import CredentialPayload
from bus_schemas.errors import ContractError, Refused
from bus_schemas.join_token import JoinToken
from bus_schemas.keys import verify
from bus_schemas.oprf import OprfKey, blind
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
    rest = {"preimage": text, "next_check": text, "nonce": text}
    yield json.dumps({"op": "unlock", "g": 1, "blinded": [number, number], **rest}).encode()


def _evaluator_answer(data: bytes) -> None:
    """What a hostile *bus* can answer a server: a reply, or an evaluation."""
    with suppress(ContractError, Refused):
        reply = evaluation.read_reply(data)
        if isinstance(reply, evaluation.KeysReply):
            evaluation.check_keys(reply, server_id="server-1", evaluator_public_key=_IDENTITY)
            raise Accepted("keys that the evaluator never signed")
    with suppress(ContractError, Refused):
        _BLINDING.finalize(data[:96], _KEY.public_key)
        if data[:96] != _ANSWER:
            raise Accepted("an evaluation without its proof")


def _evaluator_answer_seeds() -> Iterable[bytes]:
    yield _ANSWER
    yield _EVALUATION["keys_reply"].encode()


def _signature(data: bytes) -> None:
    """A key and a signature over nothing that either of them ever signed."""
    with suppress(Refused):
        verify(data[:32], data[32:96], "byok/fuzz/v1", data[96:])
        raise Accepted("a signature out of the air")


TARGETS: Final = (
    Target("codec", _codec, _codec_seeds, 0.3),
    Target("envelope", _envelope, lambda: [_ENVELOPE.model_dump_json().encode()], 0.1),
    Target("sealed-payload", _sealed_payload, lambda: [_SEALED["payload"].encode()], 0.01),
    Target("vault-record", _vault_record, lambda: [_RECORD], 0.2),
    Target("enrolment", _enrolment, _enrolment_seeds, 0.2),
    Target("evaluator-request", _evaluator_request, _evaluator_request_seeds, 0.1),
    Target("evaluator-inner", _evaluator_inner, _evaluator_inner_seeds, 0.02),
    Target("evaluator-answer", _evaluator_answer, _evaluator_answer_seeds, 0.04),
    Target("signature", _signature, lambda: [b"\x03" * 100], 0.03),
)
