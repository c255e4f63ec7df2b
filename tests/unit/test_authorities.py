"""Which CAs a client trusts after it has heard a signed list of them."""

import contextlib
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from functools import partial

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.x509.oid import NameOID
from hypothesis import given
from hypothesis import strategies as st

from bus_schemas.authorities import (
    SignedAuthorities,
    admit,
    authority_id,
    read_authorities,
    sign_authorities,
    write_authorities,
)
from bus_schemas.errors import Refused
from platform_handlers.authority.tls import Pair, make_ca

NOW = datetime(2026, 11, 23, 10, tzinfo=UTC)
DAY = timedelta(days=1)


def authority(days: int) -> tuple[x509.Certificate, ec.EllipticCurvePrivateKey]:
    """Return a CA made so many days after NOW, and its key."""
    return opened(make_ca("byok CA", now=NOW + days * DAY))


def opened(pair: Pair) -> tuple[x509.Certificate, ec.EllipticCurvePrivateKey]:
    """Return certificate and key of a pair."""
    key = serialization.load_pem_private_key(pair.key, password=None)
    assert isinstance(key, ec.EllipticCurvePrivateKey)
    return x509.load_pem_x509_certificate(pair.certificate), key


OLD, OLD_KEY = authority(0)
NEXT, NEXT_KEY = authority(100)
THIRD, THIRD_KEY = authority(200)
STRANGER, STRANGER_KEY = authority(1)
ADDED = sign_authorities([OLD, NEXT], OLD_KEY)
RETIRED = sign_authorities([NEXT], NEXT_KEY)
ADDED_AGAIN = sign_authorities([NEXT, THIRD], NEXT_KEY)
RETIRED_AGAIN = sign_authorities([THIRD], THIRD_KEY)
AT = NOW + 201 * DAY


def hear(
    trusted: Sequence[x509.Certificate], offered: SignedAuthorities, at: datetime = AT
) -> list[x509.Certificate]:
    """Return what is trusted afterwards."""
    return list(admit(trusted, offered, at=at))


def test_a_trusted_ca_introduces_the_next_and_the_next_retires_it() -> None:
    """The whole of a rotation, from a client's side."""
    assert hear([OLD], ADDED) == [OLD, NEXT]
    assert hear([OLD, NEXT], ADDED) == [OLD, NEXT]
    assert hear([OLD, NEXT], RETIRED) == [NEXT]


@given(st.lists(st.sampled_from([ADDED, RETIRED, ADDED_AGAIN, RETIRED_AGAIN]), max_size=8))
def test_old_lists_that_come_again_change_nothing(replayed: list[SignedAuthorities]) -> None:
    """After a rotation is over, no order of repeats brings a CA back or takes one away."""
    trusted = [THIRD]
    for offered in replayed:
        with contextlib.suppress(Refused):
            trusted = hear(trusted, offered)
    assert trusted == [THIRD]


def test_a_repeat_in_the_middle_of_the_next_rotation_takes_nothing_away() -> None:
    """The list that retired the first CA says nothing of what came after its signer."""
    assert hear([NEXT, THIRD], RETIRED) == [NEXT, THIRD]


@pytest.mark.parametrize(
    ("trusted", "offered", "reason"),
    [
        ([OLD], sign_authorities([STRANGER], STRANGER_KEY), "unknown_authority"),
        ([OLD], RETIRED, "unknown_authority"),
        (
            [OLD],
            ADDED.model_copy(update={"certificates": (ADDED.certificates[0], b"\x30")}),
            "bad_signature",
        ),
        ([OLD], sign_authorities([OLD, NEXT], STRANGER_KEY), "bad_signature"),
        (
            [OLD],
            sign_authorities([STRANGER], STRANGER_KEY).model_copy(
                update={"signer": authority_id(OLD)}
            ),
            "bad_signature",
        ),
    ],
)
def test_a_list_of_a_stranger_is_refused(
    trusted: list[x509.Certificate], offered: SignedAuthorities, reason: str
) -> None:
    """Whoever sits on the bus cannot make a client trust a CA of theirs."""
    with pytest.raises(Refused) as refused:
        hear(trusted, offered)
    assert refused.value.reason == reason


def test_who_trusts_all_that_is_listed_needs_no_signature_he_knows() -> None:
    """A server that joined in the middle holds the new CA alone; an old list is no alarm."""
    only_next = sign_authorities([OLD, NEXT], OLD_KEY).model_copy(
        update={"certificates": (NEXT.public_bytes(serialization.Encoding.DER),)}
    )
    assert hear([NEXT], only_next) == [NEXT]


def test_an_expired_ca_introduces_nobody() -> None:
    """A key that was given up long ago must not speak for the platform."""
    with pytest.raises(Refused, match="authority_expired"):
        hear([OLD], ADDED, OLD.not_valid_after_utc)


def test_an_older_ca_is_never_introduced() -> None:
    """What was retired stays so, even with the new CA's signature."""
    assert hear([NEXT], sign_authorities([NEXT, THIRD], NEXT_KEY)) == [NEXT, THIRD]
    ders = tuple(c.public_bytes(serialization.Encoding.DER) for c in (OLD, NEXT))
    signer = authority_id(NEXT)
    signed = SignedAuthorities(certificates=ders, signer=signer, signature=b"")
    message = b"byok/authorities/v1\0" + b"".join(
        len(part).to_bytes(2, "big") + part for part in (signer.encode(), *ders)
    )
    by_next = signed.model_copy(
        update={"signature": NEXT_KEY.sign(message, ec.ECDSA(hashes.SHA256()))}
    )
    assert hear([NEXT], by_next) == [NEXT]


def forged(
    *, ca: bool = True, path_length: int | None = 0, own: bool = True, basic: bool = True
) -> x509.Certificate:
    """Return a certificate that is not quite a CA of ours."""
    key, name = ec.generate_private_key(ec.SECP256R1()), "x"
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
    builder = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(subject)
        .public_key(key.public_key())
        .serial_number(1)
        .not_valid_before(NOW + DAY)
        .not_valid_after(NOW + 1000 * DAY)
    )
    if basic:
        constraints = x509.BasicConstraints(ca=ca, path_length=path_length)
        builder = builder.add_extension(constraints, critical=True)
    return builder.sign(key if own else STRANGER_KEY, hashes.SHA256())


@pytest.mark.parametrize(
    "made",
    [
        partial(forged, ca=False, path_length=None),
        partial(forged, path_length=None),
        partial(forged, own=False),
        partial(forged, basic=False),
        lambda: opened(make_ca("later", now=AT + DAY))[0],
    ],
)
def test_only_a_proper_ca_is_introduced(made: partial[x509.Certificate]) -> None:
    """Self-signed, for leaves only, in its life; else a trusted CA's slip would be everybody's."""
    with pytest.raises(Refused, match="bad_authority"):
        hear([OLD], sign_authorities([OLD, made()], OLD_KEY))


def test_a_list_that_holds_something_else_is_refused() -> None:
    """Signed or not."""
    ders = (OLD.public_bytes(serialization.Encoding.DER), b"not a certificate")
    signer = authority_id(OLD)
    message = b"byok/authorities/v1\0" + b"".join(
        len(part).to_bytes(2, "big") + part for part in (signer.encode(), *ders)
    )
    signature = OLD_KEY.sign(message, ec.ECDSA(hashes.SHA256()))
    offered = SignedAuthorities(certificates=ders, signer=signer, signature=signature)
    with pytest.raises(Refused, match="bad_authority"):
        hear([OLD], offered)


@pytest.mark.parametrize("kind", ["rsa", "ed25519"])
def test_a_trusted_ca_of_another_kind_signs_no_list(kind: str) -> None:
    """A person may have put one into the file; it is good for TLS and for nothing else."""
    key = (
        rsa.generate_private_key(public_exponent=65537, key_size=2048)
        if kind == "rsa"
        else ed25519.Ed25519PrivateKey.generate()
    )
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "other")])
    other = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(subject)
        .public_key(key.public_key())
        .serial_number(1)
        .not_valid_before(NOW)
        .not_valid_after(NOW + 1000 * DAY)
        .sign(key, hashes.SHA256() if kind == "rsa" else None)
    )
    offered = ADDED.model_copy(update={"signer": authority_id(other)})
    with pytest.raises(Refused, match="bad_signature"):
        hear([OLD, other], offered)


def test_a_file_is_read_back_oldest_first_whatever_its_order() -> None:
    """Every TLS client takes the file as it is; we sort it."""
    assert read_authorities(write_authorities([NEXT, OLD])) == (OLD, NEXT)
    with pytest.raises(ValueError, match=r".+"):
        read_authorities(b"nothing")


def test_the_list_survives_the_wire() -> None:
    """JSON there and back is the same list, and names its CAs."""
    again = SignedAuthorities.model_validate_json(ADDED.model_dump_json())
    assert again == ADDED
    assert again.ids() == {authority_id(OLD), authority_id(NEXT)}
