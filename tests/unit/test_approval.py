"""The owner's word for one copy of a disk, and the evaluator's nonces."""

import json
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from bus_schemas.approval import Approval, check_approval, copy_code, sign_approval
from bus_schemas.errors import Refused
from bus_schemas.nonces import check_nonce, nonce, nonce_key

FOLDER = Path(__file__).parents[1] / "vectors"
UNLOCK: dict[str, Any] = json.loads((FOLDER / "unlock.json").read_bytes())
EVALUATION: dict[str, Any] = json.loads((FOLDER / "evaluation.json").read_bytes())
SERVER: str = UNLOCK["server_id"]
CHECK = bytes.fromhex(UNLOCK["chk"])
OWNER = Ed25519PrivateKey.from_private_bytes(bytes.fromhex(UNLOCK["approval"]["owner_seed"]))
KEY = nonce_key(bytes.fromhex(EVALUATION["evaluator_private_key"]))


def word() -> Approval:
    """Return the vector's approval."""
    issued_at = UNLOCK["approval"]["issued_at"]
    return sign_approval(OWNER, server_id=SERVER, code=UNLOCK["code"], issued_at=issued_at)


def test_the_code_matches_the_vector() -> None:
    """Server, evaluator and any second implementation must name a disk alike."""
    assert copy_code(SERVER, UNLOCK["g"], CHECK) == UNLOCK["code"]


@pytest.mark.parametrize(
    ("server_id", "g", "check"),
    [("server-2", 41, CHECK), (SERVER, 42, CHECK), (SERVER, 41, bytes(32))],
)
def test_another_disk_has_another_code(server_id: str, g: int, check: bytes) -> None:
    """Whoever approves one copy must not let in another."""
    assert copy_code(server_id, g, check) != UNLOCK["code"]


def test_the_approval_matches_the_vector() -> None:
    """The signature is over server, code and time."""
    approval = word()
    assert approval.signature.hex() == UNLOCK["approval"]["signature"]
    assert approval.public_key.hex() == UNLOCK["approval"]["public_key"]
    check_approval(approval)


@pytest.mark.parametrize(
    "change",
    [
        {"server_id": "server-2"},
        {"code": "A" * 20},
        {"issued_at": 1893456001},
        {"public_key": Ed25519PrivateKey.generate().public_key().public_bytes_raw()},
        {"public_key": bytes(32)},
        {"signature": bytes(64)},
    ],
)
def test_a_changed_approval_is_refused(change: dict[str, object]) -> None:
    """Neither another server, copy or time, nor another signer."""
    with pytest.raises(Refused, match="bad_signature"):
        check_approval(word().model_copy(update=change))


def test_the_nonces_match_the_vectors() -> None:
    """Two evaluators with one sealing key must take each other's nonces."""
    assert KEY.hex() == EVALUATION["nonce_key"]
    for case in EVALUATION["nonces"]:
        made = nonce(KEY, case["server_id"], case["sequence"])
        assert made.hex() == case["nonce"]
        check_nonce(KEY, case["server_id"], case["sequence"], made)


@pytest.mark.parametrize(("server_id", "sequence"), [("server-1", 42), ("server-2", 41)])
def test_a_nonce_is_of_one_server_and_one_state(server_id: str, sequence: int) -> None:
    """Whatever advances the ratchet makes it stale; a neighbour's was never good."""
    with pytest.raises(Refused, match="stale_nonce"):
        check_nonce(KEY, server_id, sequence, nonce(KEY, "server-1", 41))
