"""A CA whose life has ended, while what it signed would be good for months."""

from datetime import UTC, datetime, timedelta

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

from bus_schemas.authorities import read_authorities, write_authorities
from platform_handlers.authority.installation import Installation


def expire(installation: Installation) -> bytes:
    """Let *installation*'s CA have ended yesterday, by its own key; return the new `ca.pem`."""
    [ca] = read_authorities(installation.ca.read_bytes())
    key = serialization.load_pem_private_key(
        (installation.authority / "ca.key").read_bytes(), password=None
    )
    assert isinstance(key, ec.EllipticCurvePrivateKey)
    builder = (
        x509.CertificateBuilder()
        .subject_name(ca.subject)
        .issuer_name(ca.issuer)
        .public_key(key.public_key())
        .serial_number(ca.serial_number)
        .not_valid_before(datetime.now(UTC) - timedelta(days=9))
        .not_valid_after(datetime.now(UTC) - timedelta(days=1))
    )
    for extension in ca.extensions:
        builder = builder.add_extension(extension.value, critical=extension.critical)
    pem = write_authorities([builder.sign(key, hashes.SHA256())])
    installation.ca.write_bytes(pem)
    return pem
