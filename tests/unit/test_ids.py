"""Event ids."""

import uuid

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bus_schemas.ids import derived_id, uuid7


def test_uuid7_matches_the_rfcs_example() -> None:
    """RFC 9562 appendix A.6."""
    made = uuid7(0x017F22E279B0, bytes.fromhex("0CC318C4DC0C0C07398F"))
    assert made == "017f22e2-79b0-7cc3-98c4-dc0c0c07398f"


@given(st.integers(0, 2**48 - 1), st.binary(min_size=10, max_size=10))
def test_uuid7_carries_its_time_version_and_variant(unix_ms: int, random: bytes) -> None:
    """Whatever the random bytes are, they never leak into the fixed bits."""
    made = uuid.UUID(uuid7(unix_ms, random))
    assert made.int >> 80 == unix_ms
    assert made.version == 7
    assert made.variant == uuid.RFC_4122


@pytest.mark.parametrize("length", [0, 9, 11])
def test_uuid7_takes_ten_random_bytes(length: int) -> None:
    """Fewer would be guessable, more would spill into the time."""
    with pytest.raises(ValueError, match=f"10 random bytes, got {length}"):
        uuid7(0, bytes(length))


def test_a_derived_id_is_the_same_everywhere() -> None:
    """Two makers of one event must agree, today and in the next release."""
    assert derived_id("banner", "cause") == "8b4bfae6-61cd-592c-9eea-3ef9e7d9826c"
    assert uuid.UUID(derived_id("banner")).version == 5


def test_different_names_give_different_ids() -> None:
    """Order and borders of the names count."""
    made = {derived_id(*names) for names in (("a", "b"), ("b", "a"), ("ab",), ("a",), ())}
    assert len(made) == 5
