"""Whose sealings a server obeys."""

from pathlib import Path

import pytest

from bus_schemas.errors import Refused
from vps_runtime.enrolment.pins import (
    MAX_PINS,
    Pins,
    read_pins,
    write_pins,
)

ONE, TWO = "A" * 20, "B" * 19 + "7"


def test_pins_are_a_sorted_set() -> None:
    """Pinning twice is pinning once; what is not pinned cannot be removed."""
    pins = Pins().with_key(TWO).with_key(ONE).with_key(TWO)
    assert pins.pinned == (ONE, TWO)
    assert pins.without_key(ONE).pinned == (TWO,)
    with pytest.raises(Refused, match="not_pinned"):
        Pins().without_key(ONE)


def test_there_is_an_upper_limit() -> None:
    """More pins than the fact about them can carry are refused."""
    alphabet = "ABCDEFGHIJKLMNOPQRSTUVWXYZ234567"
    many = tuple(f"{a}{b}" + "A" * 18 for a in "AB" for b in alphabet)
    assert len(many) == MAX_PINS
    with pytest.raises(Refused, match="too_many_pins"):
        Pins(pinned=many).with_key("C" * 20)


def test_the_file_comes_back_and_damage_is_told(tmp_path: Path) -> None:
    """A missing file obeys nobody; a damaged one is said to be damaged."""
    path = tmp_path / "pins.json"
    assert read_pins(path) == Pins()
    write_pins(path, Pins(pinned=(ONE,)))
    assert read_pins(path).pinned == (ONE,)
    path.write_text('{"v": 1, "pinned": ["x"]}')
    with pytest.raises(Refused, match="pins_damaged"):
        read_pins(path)
    path.unlink()
    path.mkdir()
    with pytest.raises(Refused, match=r"pins_damaged: .*cannot be read"):
        read_pins(path)
