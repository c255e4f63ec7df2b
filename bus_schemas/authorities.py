r"""Certificate authorities: which ones a client trusts, and how it learns of the next. Pure.

The platform publishes its CAs as one signed list, which reaches servers with their tokens and
owners through the API. Whoever sits on the bus may withhold the list, repeat an old one or make
one up; none of it puts a CA of theirs into anybody's file (ADR-20):

- only a CA that is trusted already introduces another, and only a newer one;
- only a newer CA writes an older one off; none writes off itself or what came after it.

So no counter is kept: an old list that comes again changes nothing. Signature: ECDSA P-256 with
SHA-256, DER (RFC 3279 section 2.2.3), over "byok/authorities/v1\0" lp(signer) lp(certificate)….
Left to others: reading and writing the file, and the TLS handshakes that believe it.
"""

import base64
import contextlib
import hashlib
from collections.abc import Sequence
from datetime import datetime
from typing import Annotated, Final

from cryptography import x509
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from pydantic import Field

from bus_schemas.errors import Refused
from bus_schemas.event import Contract
from bus_schemas.fields import KeyFingerprint
from bus_schemas.keys import signed_message

DOMAIN: Final = "byok/authorities/v1"
MAX_AUTHORITIES: Final = 4
API_PATH: Final = "/api/authorities"
"""Where the HTTPS API has the signed list."""
API_HEADER: Final = "Byok-Authorities"
"""In every answer of the API: the ids of the CAs in that list, with blanks between."""
_ID_LENGTH = 20

Certificates = tuple[x509.Certificate, ...]
"""Oldest first."""


class SignedAuthorities(Contract):
    """The platform's CAs, vouched for by the oldest of them."""

    certificates: Annotated[
        tuple[Annotated[bytes, Field(max_length=4096)], ...],
        Field(min_length=1, max_length=MAX_AUTHORITIES),
    ]
    """X.509 certificates in DER (RFC 5280), oldest first."""
    signer: KeyFingerprint
    """Id of the CA that signed: the first 20 base32 characters of its certificate's SHA-256."""
    signature: Annotated[bytes, Field(max_length=80)]
    """ECDSA P-256 with SHA-256 over the domain, the signer and all certificates."""

    def ids(self) -> frozenset[str]:
        """Return the ids of the CAs in the list."""
        return frozenset(_id(der) for der in self.certificates)


def authority_id(certificate: x509.Certificate) -> str:
    """Return the 20 characters a CA goes by, in lists and commands."""
    return _id(certificate.public_bytes(serialization.Encoding.DER))


def read_authorities(pem: bytes) -> Certificates:
    """Return the certificates of a `ca.pem`, oldest first. Raises ValueError without any."""
    return _in_order(x509.load_pem_x509_certificates(pem))


def write_authorities(certificates: Sequence[x509.Certificate]) -> bytes:
    """Return a `ca.pem`, which every TLS client takes as a whole."""
    encoding = serialization.Encoding.PEM
    return b"".join(certificate.public_bytes(encoding) for certificate in certificates)


def sign_authorities(
    certificates: Sequence[x509.Certificate], key: ec.EllipticCurvePrivateKey
) -> SignedAuthorities:
    """Return the list signed with *key*, which belongs to the oldest of *certificates*."""
    ordered = _in_order(certificates)
    ders = tuple(c.public_bytes(serialization.Encoding.DER) for c in ordered)
    signer = _id(ders[0])
    message = signed_message(DOMAIN, signer, *ders)
    signature = key.sign(message, ec.ECDSA(hashes.SHA256()))
    return SignedAuthorities(certificates=ders, signer=signer, signature=signature)


def admit(
    trusted: Sequence[x509.Certificate], offered: SignedAuthorities, *, at: datetime
) -> Certificates:
    """Return what is trusted after *offered* was heard; the same as before if it is no news.

    Raises Refused: `unknown_authority` (signed by a stranger, or by one that was written off),
    `authority_expired`, `bad_signature`, `bad_authority`. Then nothing is to change.
    """
    known = {authority_id(certificate): certificate for certificate in trusted}
    signer = known.get(offered.signer)
    if signer is None:
        if offered.ids() <= known.keys():
            return _in_order(trusted)
        detail = f"a list of CAs was signed by {offered.signer}, which is not trusted here"
        raise Refused("unknown_authority", detail)
    if not valid_at(signer, at):
        raise Refused("authority_expired", f"{offered.signer} signed a list of CAs after its end")
    _check_signature(offered, signer)
    listed = [_parsed(der) for der in offered.certificates]
    born = signer.not_valid_before_utc
    introduced = [
        _checked(certificate, at)
        for certificate in listed
        if certificate.not_valid_before_utc > born and authority_id(certificate) not in known
    ]
    kept = [
        certificate
        for certificate in trusted
        if certificate.not_valid_before_utc >= born or certificate in listed
    ]
    return _in_order([*kept, *introduced])


def valid_at(certificate: x509.Certificate, at: datetime) -> bool:
    """Whether *at* lies within the certificate's life."""
    return certificate.not_valid_before_utc <= at < certificate.not_valid_after_utc


def _check_signature(offered: SignedAuthorities, signer: x509.Certificate) -> None:
    key = signer.public_key()
    message = signed_message(DOMAIN, offered.signer, *offered.certificates)
    if isinstance(key, ec.EllipticCurvePublicKey):
        with contextlib.suppress(InvalidSignature):
            key.verify(offered.signature, message, ec.ECDSA(hashes.SHA256()))
            return
    detail = f"a list of CAs was not signed by {offered.signer}, which it names"
    raise Refused("bad_signature", detail)


def _parsed(der: bytes) -> x509.Certificate:
    try:
        return x509.load_der_x509_certificate(der)
    except ValueError:
        raise Refused("bad_authority", "a list of CAs holds something else") from None


def _checked(certificate: x509.Certificate, at: datetime) -> x509.Certificate:
    """Return *certificate* if it is a CA of ours in its life: self-signed, for leaves only."""
    name = authority_id(certificate)
    try:
        constraints = certificate.extensions.get_extension_for_class(x509.BasicConstraints).value
        certificate.verify_directly_issued_by(certificate)  # who made it has its key
    except (x509.ExtensionNotFound, InvalidSignature, UnsupportedAlgorithm, ValueError, TypeError):
        raise Refused("bad_authority", f"{name} is not a self-signed CA certificate") from None
    if not constraints.ca or constraints.path_length != 0:
        raise Refused("bad_authority", f"{name} may not sign certificates of servers, or too much")
    if not valid_at(certificate, at):
        raise Refused("bad_authority", f"{name} is not valid now")
    return certificate


def _id(der: bytes) -> str:
    digest = hashlib.sha256(der).digest()
    return base64.b32encode(digest)[:_ID_LENGTH].decode("ascii")


def _in_order(certificates: Sequence[x509.Certificate]) -> Certificates:
    return tuple(sorted(certificates, key=lambda certificate: certificate.not_valid_before_utc))
