"""A refusal never repeats the key, however it is cut into parts."""

from hypothesis import given
from hypothesis import strategies as st

from vps_runtime.gateway.mask import Mask

SECRET = "aab-aac"


def masked(parts: list[bytes]) -> bytes:
    """Return what comes out."""
    mask = Mask(SECRET)
    return b"".join([*(mask.feed(part) for part in parts), mask.rest()])


@given(st.lists(st.text("abc-").map(str.encode)), st.integers(0, 50), st.integers(0, 50))
def test_the_secret_is_gone_and_the_length_is_the_same(
    parts: list[bytes], place: int, cut: int
) -> None:
    """In one part, across two, beside its own beginnings."""
    whole = b"".join(parts)
    whole = whole[:place] + SECRET.encode() + whole[place:]
    found = masked([whole[:cut], whole[cut:]])
    assert SECRET.encode() not in found
    assert len(found) == len(whole)


@given(st.lists(st.text("xyz-").map(str.encode)))
def test_anything_else_is_left_alone(parts: list[bytes]) -> None:
    """Every byte comes out, in order."""
    assert masked(parts) == b"".join(parts)


def test_nothing_is_held_back_that_cannot_begin_the_secret() -> None:
    """The parts of a long answer go on as they come."""
    mask = Mask(SECRET)
    assert mask.feed(b"data: 1\n\n") == b"data: 1\n\n"
    assert mask.feed(b"data: aab") == b"data: "
    assert mask.feed(b"-x") == b"aab-x"
