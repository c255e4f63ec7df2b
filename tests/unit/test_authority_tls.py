"""The installation's certificates."""

from datetime import UTC, datetime, timedelta
from ipaddress import ip_address

import pytest
from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.x509.verification import PolicyBuilder, Store, VerificationError

from platform_handlers.authority.tls import (
    Pair,
    belong_together,
    hosts_of,
    make_ca,
    make_server_certificate,
)

NOW = datetime(2026, 11, 23, 10, tzinfo=UTC)
CA = make_ca("byok CA", now=NOW)
LEAF = make_server_certificate(CA, "byok server", ["localhost", "127.0.0.1", "::1"], now=NOW)


def loaded(pair: Pair) -> x509.Certificate:
    """Return the pair's certificate."""
    return x509.load_pem_x509_certificate(pair.certificate)


def accept(pair: Pair, ca: Pair, host: x509.GeneralName, at: datetime) -> None:
    """Verify as a TLS client would (RFC 5280). Raises VerificationError."""
    assert isinstance(host, x509.DNSName | x509.IPAddress)
    verifier = PolicyBuilder().store(Store([loaded(ca)])).time(at).build_server_verifier(host)
    verifier.verify(loaded(pair), [])


@pytest.mark.parametrize(
    "host",
    [
        x509.DNSName("localhost"),
        x509.IPAddress(ip_address("127.0.0.1")),
        x509.IPAddress(ip_address("::1")),
    ],
)
def test_a_client_that_trusts_the_ca_accepts_each_host(host: x509.GeneralName) -> None:
    """Names and addresses alike."""
    accept(LEAF, CA, host, NOW)


@pytest.mark.parametrize(
    ("ca", "host", "at"),
    [
        (CA, "example.org", NOW),
        (make_ca("byok CA", now=NOW), "localhost", NOW),
        (CA, "localhost", NOW + timedelta(days=366)),
        (CA, "localhost", NOW - timedelta(minutes=6)),
    ],
)
def test_a_client_refuses_another_host_ca_or_time(ca: Pair, host: str, at: datetime) -> None:
    """A second CA of the same name is not the first."""
    with pytest.raises(VerificationError):
        accept(LEAF, ca, x509.DNSName(host), at)


def test_a_clock_that_is_a_little_behind_still_connects() -> None:
    """A fresh VPS has not always met an NTP server."""
    accept(LEAF, CA, x509.DNSName("localhost"), NOW - timedelta(minutes=4))


def test_the_ca_may_sign_leaves_and_nothing_below() -> None:
    """A stolen server certificate must not make others."""
    ca = loaded(CA)
    constraints = ca.extensions.get_extension_for_class(x509.BasicConstraints)
    assert constraints.critical
    assert (constraints.value.ca, constraints.value.path_length) == (True, 0)
    usage = ca.extensions.get_extension_for_class(x509.KeyUsage).value
    assert usage.key_cert_sign
    leaf = loaded(LEAF).extensions
    assert leaf.get_extension_for_class(x509.BasicConstraints).value.ca is False
    assert leaf.get_extension_for_class(x509.KeyUsage).value.key_cert_sign is False
    loaded(LEAF).verify_directly_issued_by(ca)
    with pytest.raises(InvalidSignature):
        loaded(LEAF).verify_directly_issued_by(loaded(make_ca("byok CA", now=NOW)))


def test_a_renewed_certificate_is_good_for_the_same_hosts() -> None:
    """Read back from the old one, and never longer than its CA lives."""
    assert hosts_of(loaded(LEAF)) == ["localhost", "127.0.0.1", "::1"]
    late = loaded(CA).not_valid_after_utc - timedelta(days=9)
    last = make_server_certificate(CA, "byok server", hosts_of(loaded(LEAF)), now=late)
    assert loaded(last).not_valid_after_utc == loaded(CA).not_valid_after_utc


def test_a_key_fits_its_certificate_and_stays_out_of_the_repr() -> None:
    """Printed by accident, a pair shows nothing."""
    key = serialization.load_pem_private_key(LEAF.key, password=None)
    assert isinstance(key, ec.EllipticCurvePrivateKey)
    assert key.public_key() == loaded(LEAF).public_key()
    assert belong_together(LEAF.certificate, LEAF.key)
    assert not belong_together(LEAF.certificate, CA.key)
    assert repr(LEAF) == "Pair(certificate=…, key=<secret>)"


def test_a_ca_of_another_kind_is_refused() -> None:
    """Before anything is signed with it."""
    foreign = rsa.generate_private_key(public_exponent=65537, key_size=1024)  # noqa: S505
    pem = foreign.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.NoEncryption(),
    )
    with pytest.raises(TypeError, match="not an elliptic-curve key"):
        make_server_certificate(Pair(CA.certificate, pem), "x", ["localhost"], now=NOW)
