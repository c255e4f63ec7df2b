"""The blind evaluation against RFC 9497, and what must not get past it."""

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bus_schemas.errors import ContractError, Refused
from bus_schemas.oprf import ELEMENT_LENGTH, MAX_ELEMENTS, OUTPUT_LENGTH, OprfKey, blind

VECTORS: dict[str, Any] = json.loads(
    (Path(__file__).parents[1] / "vectors" / "rfc9497_voprf_ristretto255.json").read_bytes()
)
RFC_KEY = OprfKey.from_seed(bytes.fromhex(VECTORS["seed"]), bytes.fromhex(VECTORS["key_info"]))
KEY = OprfKey.from_seed(b"\x05" * 32)


def hexes(values: list[str]) -> list[bytes]:
    """Return the bytes of hexadecimal figures."""
    return [bytes.fromhex(value) for value in values]


def test_the_key_is_derived_as_the_rfc_says() -> None:
    """Seed and info must give the public key of RFC 9497 appendix A.1.2."""
    assert RFC_KEY.public_key.hex() == VECTORS["public_key"]


@pytest.mark.parametrize("case", VECTORS["cases"], ids=["one", "long", "batch"])
def test_elements_and_outputs_match_the_rfc(case: dict[str, Any]) -> None:
    """The evaluated element of each blinded one, and each output, must be the RFC's."""
    evaluation = RFC_KEY.evaluate(hexes(case["blinded"]))
    elements = [evaluation[at + 64 : at + 96] for at in range(0, len(evaluation), 96)]
    assert elements == hexes(case["evaluated"])
    assert [RFC_KEY.evaluate_known(value) for value in hexes(case["inputs"])] == (
        hexes(case["outputs"])
    )


@given(inputs=st.lists(st.binary(min_size=1, max_size=200), min_size=1, max_size=8))
def test_blinding_changes_nothing(inputs: list[bytes]) -> None:
    """The blinded way must give the outputs of the open way, in the same order."""
    blinding, blinded = blind(inputs)
    assert {len(element) for element in blinded} == {ELEMENT_LENGTH}
    outputs = blinding.finalize(KEY.evaluate(blinded), KEY.public_key)
    assert outputs == [KEY.evaluate_known(value) for value in inputs]
    assert {len(output) for output in outputs} == {OUTPUT_LENGTH}


def test_the_evaluator_sees_another_point_each_time() -> None:
    """Two blindings of one input must have nothing in common."""
    assert blind([b"x"])[1] != blind([b"x"])[1]


@given(position=st.integers(0, 191), bit=st.integers(0, 7))
def test_a_changed_evaluation_is_refused(position: int, bit: int) -> None:
    """No bit of proof or element may change."""
    blinding, blinded = blind([b"x", b"y"])
    evaluation = bytearray(KEY.evaluate(blinded))
    evaluation[position] ^= 1 << bit
    with pytest.raises(Refused, match="bad_proof"):
        blinding.finalize(bytes(evaluation), KEY.public_key)


def test_swapped_evaluations_are_refused() -> None:
    """Each proof must belong to its own input."""
    blinding, blinded = blind([b"x", b"y"])
    swapped = KEY.evaluate(list(reversed(blinded)))
    with pytest.raises(Refused, match="bad_proof"):
        blinding.finalize(swapped, KEY.public_key)


@pytest.mark.parametrize(
    "public_key",
    [OprfKey.generate().public_key, bytes(32), b"", KEY.public_key + b"\0"],
    ids=["another", "identity", "empty", "trailing"],
)
def test_another_evaluators_key_is_refused(public_key: bytes) -> None:
    """A substituted key must be noticed: it would make tags or unlocks of the thief's making."""
    blinding, blinded = blind([b"x"])
    with pytest.raises(Refused, match="bad_proof"):
        blinding.finalize(KEY.evaluate(blinded), public_key)


@pytest.mark.parametrize("cut", [0, 95, 97, 192])
def test_an_evaluation_of_the_wrong_length_is_refused(cut: int) -> None:
    """One answer for each question, and nothing behind it."""
    blinding, blinded = blind([b"x"])
    evaluation = (KEY.evaluate(blinded) * 3)[:cut]
    with pytest.raises(Refused, match="bad_proof"):
        blinding.finalize(evaluation, KEY.public_key)


@pytest.mark.parametrize(
    "element",
    [b"", bytes(32), b"\xff" * 32, b"\x01" * 31, blind([b"x"])[1][0] + b"\0"],
    ids=["empty", "identity", "non-canonical", "short", "trailing"],
)
def test_what_is_no_element_is_refused(element: bytes) -> None:
    """The identity, a non-canonical point and trailing bytes never reach the secret key."""
    with pytest.raises(ContractError, match="bad_element"):
        KEY.evaluate([element])


@pytest.mark.parametrize("number", [0, MAX_ELEMENTS + 1])
def test_the_number_of_elements_is_bounded(number: int) -> None:
    """No request is empty, none keeps the evaluator busy for long."""
    with pytest.raises(ContractError, match="bad_element"):
        KEY.evaluate(blind([b"x"])[1] * number)
    with pytest.raises(ValueError, match="inputs are blinded at once"):
        blind([b"x"] * number)


def test_a_key_is_its_seed() -> None:
    """A stored seed must bring the same key back; a generated one is new; none is shown."""
    key = OprfKey.generate()
    assert OprfKey.from_seed(key.seed).public_key == key.public_key
    assert OprfKey.generate().seed != key.seed
    assert OprfKey.from_seed(key.seed, b"other").public_key != key.public_key
    assert repr(key) == "OprfKey(info=b'')"


def test_a_short_seed_is_refused() -> None:
    """The library takes 16 bytes as well; the contract is 32."""
    with pytest.raises(ValueError, match="32 bytes"):
        OprfKey.from_seed(b"\x05" * 31)
