"""Fingerprints, signatures and the signed sealing key."""

import json
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from pydantic import ValidationError

from bus_schemas.errors import ContractError, Refused
from bus_schemas.keys import (
    SEALING_KEY_DOMAIN,
    SignedSealingKey,
    fingerprint_typed,
    in_fours,
    owner_fingerprint,
    server_fingerprint,
    sign,
    sign_sealing_key,
    signed_message,
    verify,
    verify_sealing_key,
)

VECTORS: dict[str, Any] = json.loads(
    (Path(__file__).parents[1] / "vectors" / "keys.json").read_bytes()
)
IDENTITY = Ed25519PrivateKey.from_private_bytes(bytes.fromhex(VECTORS["identity_seed"]))
IDENTITY_PUBLIC = bytes.fromhex(VECTORS["identity_public_key"])
NOT_AFTER = datetime(2030, 1, 1, tzinfo=UTC)
SMALL_ORDER = [
    # y = 0, 1, p - 1, p, p + 1 and the two of order 8; with and without the sign of x.
    "00" * 32,
    "00" * 31 + "80",
    "01" + "00" * 31,
    "01" + "00" * 30 + "80",
    "ec" + "ff" * 30 + "7f",
    "ec" + "ff" * 31,
    "ed" + "ff" * 30 + "7f",
    "ed" + "ff" * 31,
    "ee" + "ff" * 30 + "7f",
    "ee" + "ff" * 31,
    "26e8958fc2b227b045c3f489f2ef98f0d5dfac05d3c63339b13802886d53fc05",
    "26e8958fc2b227b045c3f489f2ef98f0d5dfac05d3c63339b13802886d53fc85",
    "c7176a703d4dd84fba3c0b760d10670f2a2053fa2c39ccc64ec7fd7792ac037a",
    "c7176a703d4dd84fba3c0b760d10670f2a2053fa2c39ccc64ec7fd7792ac03fa",
]


def sealing_key() -> SignedSealingKey:
    """Sign the vector's sealing key; the fraction of a second must fall away."""
    return sign_sealing_key(
        IDENTITY,
        server_id=VECTORS["server_id"],
        key_id=VECTORS["sealing_key"]["key_id"],
        public_key=bytes.fromhex(VECTORS["sealing_key"]["public_key"]),
        not_after=NOT_AFTER + timedelta(microseconds=7),
    )


def check(key: SignedSealingKey, *, at: datetime = NOT_AFTER - timedelta(seconds=1)) -> None:
    """Verify *key* as the owner's side would."""
    verify_sealing_key(
        key, server_id=VECTORS["server_id"], identity_public_key=IDENTITY_PUBLIC, at=at
    )


def test_fingerprints_match_the_vectors() -> None:
    """Every implementation must show people the same twenty characters."""
    assert (
        owner_fingerprint(bytes.fromhex(VECTORS["owner_public_key"]))
        == (VECTORS["owner_fingerprint"])
    )
    assert (
        server_fingerprint(VECTORS["server_id"], IDENTITY_PUBLIC) == (VECTORS["server_fingerprint"])
    )


def test_the_sealing_key_matches_the_vectors() -> None:
    """The bytes under a sealing key's signature are fixed (RFC 8032 signatures repeat)."""
    assert sealing_key().signature.hex() == VECTORS["sealing_key"]["signature"]
    assert sealing_key().not_after == NOT_AFTER
    check(sealing_key())


def test_a_sealing_key_survives_the_wire() -> None:
    """Encoding and decoding a sealing key must change nothing."""
    key = sealing_key()
    assert SignedSealingKey.model_validate_json(key.model_dump_json()) == key


@pytest.mark.parametrize(
    "change",
    [
        {"key_id": "key-2"},
        {"public_key": b"\x07" * 32},
        {"not_after": NOT_AFTER + timedelta(seconds=1)},
        {"signature": b"\x07" * 64},
    ],
)
def test_a_changed_sealing_key_is_refused(change: dict[str, object]) -> None:
    """No field of a sealing key may change without the signature failing."""
    with pytest.raises(Refused, match="bad_signature"):
        check(sealing_key().model_copy(update=change))


def test_another_servers_sealing_key_is_refused() -> None:
    """A key signed for one server must not be passed off as another's."""
    with pytest.raises(Refused, match="wrong_server"):
        check(sealing_key().model_copy(update={"server_id": "server-2"}))


def test_an_expired_sealing_key_is_refused() -> None:
    """Nobody seals to a key whose private half may be gone."""
    with pytest.raises(Refused, match="sealing_key_expired"):
        check(sealing_key(), at=NOT_AFTER)


def test_a_fraction_of_a_second_is_refused() -> None:
    """What the signature does not cover must not be in the message."""
    wire = sealing_key().model_dump() | {"not_after": NOT_AFTER + timedelta(microseconds=1)}
    with pytest.raises(ValidationError, match="whole second"):
        SignedSealingKey.model_validate(wire)


def test_a_signature_is_bound_to_its_domain_and_parts() -> None:
    """A signature made for one purpose, or over parts cut elsewhere, must not verify."""
    signature = sign(IDENTITY, "byok/test/v1", "ab", b"c")
    verify(IDENTITY_PUBLIC, signature, "byok/test/v1", "ab", b"c")
    for domain, parts in (("byok/test/v1", ("a", b"bc")), (SEALING_KEY_DOMAIN, ("ab", b"c"))):
        with pytest.raises(Refused, match="bad_signature"):
            verify(IDENTITY_PUBLIC, signature, domain, *parts)


def test_the_signed_bytes_are_the_documented_ones() -> None:
    """Domain, a zero byte, then each part behind its length."""
    assert signed_message("byok/test/v1", "ab", b"c") == b"byok/test/v1\0\0\x02ab\0\x01c"


@pytest.mark.parametrize("public_key", SMALL_ORDER)
def test_a_key_of_small_order_verifies_nothing(public_key: str) -> None:
    """The all-zero key and its kin accept forgeries in OpenSSL, so they are refused by name."""
    forged = b"\x01" + bytes(63)
    with pytest.raises(Refused, match="small order"):
        verify(bytes.fromhex(public_key), forged, "byok/test/v1")


def test_a_key_of_the_wrong_length_verifies_nothing() -> None:
    """A cut key is a bad signature, not a crash."""
    with pytest.raises(Refused, match="bad_signature"):
        verify(b"\x05" * 31, bytes(64), "byok/test/v1")


FINGERPRINT = "B" * 19 + "7"


@pytest.mark.parametrize(
    "typed",
    [FINGERPRINT, FINGERPRINT.lower(), f" {FINGERPRINT[:5]}-{FINGERPRINT[5:]}\n"],
    ids=["as-is", "lower-case", "grouped"],
)
def test_a_fingerprint_may_be_typed_in_groups(typed: str) -> None:
    """Spaces, hyphens and lower case are how people type twenty characters."""
    assert fingerprint_typed(typed) == FINGERPRINT


@pytest.mark.parametrize("typed", ["", "A" * 19, "A" * 21, "1" * 20, "Ä" * 20])
def test_what_is_no_fingerprint_is_refused(typed: str) -> None:
    """A typing error must not become a pin that nobody's key has."""
    with pytest.raises(ContractError, match="bad_fingerprint"):
        fingerprint_typed(typed)


def test_every_screen_shows_the_same_groups() -> None:
    """What people compare across two screens looks the same on both, and can be typed as shown."""
    assert in_fours(FINGERPRINT) == "BBBB BBBB BBBB BBBB BBB7"
    assert fingerprint_typed(in_fours(FINGERPRINT)) == FINGERPRINT
