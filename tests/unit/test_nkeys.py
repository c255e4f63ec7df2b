"""Text forms of NATS keys."""

import base64
import binascii
import traceback

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from hypothesis import given
from hypothesis import strategies as st

from bus_schemas.nkeys import KeyType, key_from_seed, public_bytes, public_nkey, seed_nkey

# The example pair of the NATS documentation, "NKeys": a user's.
SEED = "SUACSSL3UAHUDXKFSNVUZRF5UHPMWZ6BFDTJ7M6USDXIEDNPPQYYYCU3VY"
PUBLIC = "UDXU4RCSJNZOIQHZNWXHXORDPRTGNJAHAHFRGZNEEJCPQTT2M7NLCNF4"

KEYS = st.binary(min_size=32, max_size=32).map(Ed25519PrivateKey.from_private_bytes)


def encoded(body: bytes) -> str:
    """Return the text form of *body* with a right checksum."""
    checksum = binascii.crc_hqx(body, 0).to_bytes(2, "little")
    return base64.b32encode(body + checksum).decode().rstrip("=")


def test_the_documented_pair() -> None:
    """Any other NATS tool must read our keys and we theirs."""
    key = key_from_seed(SEED)
    assert public_nkey(key, KeyType.USER) == PUBLIC
    assert seed_nkey(key, KeyType.USER) == SEED
    assert public_bytes(PUBLIC) == key.public_key().public_bytes_raw()


@pytest.mark.parametrize(
    ("kind", "letter"), [(KeyType.OPERATOR, "O"), (KeyType.ACCOUNT, "A"), (KeyType.USER, "U")]
)
@given(key=KEYS)
def test_the_first_letters_tell_the_kind(
    kind: KeyType, letter: str, key: Ed25519PrivateKey
) -> None:
    """People and servers tell keys apart by them, and a seed by its S."""
    public, seed = public_nkey(key, kind), seed_nkey(key, kind)
    assert public[0] == letter
    assert seed[:2] == f"S{letter}"
    assert (len(public), len(seed)) == (56, 58)
    assert public_bytes(public) == key.public_key().public_bytes_raw()
    assert key_from_seed(seed).private_bytes_raw() == key.private_bytes_raw()


@pytest.mark.parametrize(
    "wrong",
    [
        SEED[:-1],
        SEED[:-1] + ("A" if SEED[-1] != "A" else "B"),  # checksum
        SEED[:20] + ("A" if SEED[20] != "A" else "B") + SEED[21:],  # one key character
        SEED.lower(),
        SEED + "A",
        SEED.replace("S", "\u0405", 1),  # a Cyrillic look-alike
        encoded(bytes([18 << 3 | 5, 0]) + bytes(31)),  # too short
        encoded(bytes([20 << 3, 0]) + bytes(32)),  # no seed's prefix
        PUBLIC,
        "",
    ],
)
def test_a_wrong_seed_is_refused_without_showing_it(wrong: str) -> None:
    """Errors travel into logs; one changed character of a seed gives it away."""
    with pytest.raises(ValueError, match="not an nkey seed") as caught:
        key_from_seed(wrong)
    said = "".join(traceback.format_exception(caught.value)) + repr(caught.value)
    assert len(wrong) < 9 or wrong[3:9] not in said
    assert caught.value.__context__ is None


@pytest.mark.parametrize(
    "wrong", [PUBLIC[:-1], PUBLIC[:-1] + "A", PUBLIC.lower(), SEED, "", "\u00dc" * 56]
)
def test_a_wrong_public_key_is_refused(wrong: str) -> None:
    """A seed in its place too, and without showing it."""
    with pytest.raises(ValueError, match="not a public nkey") as caught:
        public_bytes(wrong)
    assert caught.value.__context__ is None


@given(st.text(max_size=70))
def test_arbitrary_text_is_refused_by_a_value_error(text: str) -> None:
    """Credentials files are edited by people."""
    for read in (key_from_seed, public_bytes):
        with pytest.raises(ValueError, match="nkey"):
            read(text)
