"""The MAC by which the evaluator knows its own states again."""

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from bus_schemas.errors import Refused
from bus_schemas.events import RatchetAdvanced
from bus_schemas.nonces import nonce_key
from bus_schemas.ratchet_mac import ratchet_key, with_mac, without_mac

FILE = Path(__file__).parents[1] / "vectors" / "evaluation.json"
VECTORS: dict[str, Any] = json.loads(FILE.read_bytes())
SEALING = bytes.fromhex(VECTORS["evaluator_private_key"])
KEY = ratchet_key(SEALING)
STATES = [
    RatchetAdvanced.model_validate_json(json.dumps(case["state"])) for case in VECTORS["ratchets"]
]
WHOLE = STATES[-1]
OTHERS: dict[str, object] = {
    "server_id": "server-2",
    "committed": 40,
    "committed_check": bytes(32),
    "pending_check": bytes(32),
    "unlocks": (1893455001, 1893455000),
    "incarnation": 44,
    "enrolment": 1,
    "owner_pins": ("A" * 20,),
    "approved_code": "A" * 20,
    "approved_at": 1893456001,
    "recovered_until": 1893459601,
    "mac": bytes(32),
}


def is_own(state: RatchetAdvanced) -> bool:
    """Whether the evaluator takes *state* for its own."""
    try:
        without_mac(KEY, state)
    except Refused as error:
        return (error.reason, state.server_id in error.detail) != ("ratchet_forged", True)
    return True


def test_the_macs_match_the_vectors() -> None:
    """Two evaluators, or two builds, with one sealing key must take each other's states."""
    assert KEY.hex() == VECTORS["ratchet_key"]
    for state, case in zip(STATES, VECTORS["ratchets"], strict=True):
        signed = with_mac(KEY, state)
        assert signed.mac is not None
        assert signed.mac.hex() == case["mac"]
        assert without_mac(KEY, signed) == state


def test_the_key_is_for_states_alone() -> None:
    """A nonce is shown to servers and must be no MAC; another evaluator's MAC is nobody's."""
    assert nonce_key(SEALING) != KEY
    assert not is_own(with_mac(ratchet_key(bytes(32)), WHOLE))


def test_every_field_has_another_value_to_try() -> None:
    """A field that is added must be tried below; the vector has all of them."""
    assert set(OTHERS) == set(RatchetAdvanced.model_fields)
    assert {name for name, value in WHOLE if value is None} == {"mac"}


@pytest.mark.parametrize("field", OTHERS)
def test_no_field_can_be_changed(field: str) -> None:
    """Least of all whom the server obeys, which copy was let in, and whose state it is."""
    signed = with_mac(KEY, WHOLE)
    assert is_own(signed)
    assert not is_own(signed.model_copy(update={field: OTHERS[field]}))


@pytest.mark.parametrize("field", [f for f in OTHERS if f not in {"server_id", "committed"}])
def test_no_field_can_be_left_out(field: str) -> None:
    """A state without pins or without its MAC is another state."""
    default = RatchetAdvanced.model_fields[field].default
    assert not is_own(with_mac(KEY, WHOLE).model_copy(update={field: default}))


_FEW = st.builds(
    RatchetAdvanced,
    server_id=st.sampled_from(["a", "aa"]),
    committed=st.integers(0, 1),
    committed_check=st.sampled_from([None, bytes(32)]),
    pending_check=st.sampled_from([None, bytes(32)]),
    unlocks=st.sampled_from([(), (0,), (0, 0), (1,)]),
    incarnation=st.sampled_from([None, 0, 1]),
    owner_pins=st.sampled_from([None, (), ("A" * 20,), ("A" * 20,) * 2]),
    approved_code=st.sampled_from([None, "A" * 20]),
    approved_at=st.sampled_from([None, 0, 1]),
)


@given(one=_FEW, other=_FEW)
def test_no_two_states_have_one_mac(one: RatchetAdvanced, other: RatchetAdvanced) -> None:
    """Nothing, none and zero differ, and a value cannot slip from one field into the next."""
    assume(one != other)
    assert with_mac(KEY, one).mac != with_mac(KEY, other).mac
