"""Byte layouts."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bus_schemas.encoding import from_base64url, lp, to_base64url, u64


def test_a_length_prefix_is_two_bytes_big_endian() -> None:
    """The layout that every derivation and signature is built from."""
    assert lp(b"abc") == b"\x00\x03abc"
    assert lp("é") == b"\x00\x02\xc3\xa9"
    assert lp(b"") == b"\x00\x00"
    assert lp(bytes(65_535))[:2] == b"\xff\xff"


def test_a_field_that_does_not_fit_its_prefix_is_refused() -> None:
    """A wrapped length would let two field lists give the same bytes."""
    with pytest.raises(ValueError, match="at most 65535 bytes, got 65536"):
        lp(bytes(65_536))


@given(st.lists(st.binary(max_size=300)), st.lists(st.binary(max_size=300)))
def test_different_field_lists_never_give_the_same_bytes(a: list[bytes], b: list[bytes]) -> None:
    """Moving a byte from one field to the next must change the whole."""
    assert (b"".join(map(lp, a)) == b"".join(map(lp, b))) == (a == b)


def test_an_integer_is_eight_bytes_big_endian() -> None:
    """Revisions and times in signatures."""
    assert u64(1) == b"\x00" * 7 + b"\x01"
    assert u64(2**64 - 1) == b"\xff" * 8


@pytest.mark.parametrize("value", [-1, 2**64])
def test_an_integer_out_of_range_is_refused(value: int) -> None:
    """Nothing is cut off silently."""
    with pytest.raises(OverflowError):
        u64(value)


@given(st.binary())
def test_base64url_has_an_inverse(raw: bytes) -> None:
    """And its text is safe in URLs and JWTs: no padding, no + or /."""
    text = to_base64url(raw)
    assert from_base64url(text) == raw
    assert not set(text) & set("+/=")


@pytest.mark.parametrize(
    "text",
    [
        "QQ==",  # padded
        "QQ=",
        "QR",  # stray bits
        "+/+/",  # the other alphabet
        "A",
        "QU I",
        "QUI\n",
        "QÜ",
        "\uff21\uff21",
    ],
)
def test_base64url_has_one_spelling(text: str) -> None:
    """Two texts for the same bytes would let a signed token be respelt."""
    with pytest.raises(ValueError, match=r"base64|ASCII|padding|character|multiple"):
        from_base64url(text)
