"""Changing the CA, in steps that each leave every client connected; see docs/operations.md.

Nothing is remembered of how far it has come: `public/ca.pem` says which CAs there are, the
certificate that nats-server shows says which one is in use, and each step can be repeated. A CA's
key lies in `authority/`, as `ca.key` and, while there are two, as `ca-next.key`.
"""

import contextlib
import fcntl
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec

from bus_schemas.authorities import (
    Certificates,
    authority_id,
    read_authorities,
    sign_authorities,
    valid_at,
    write_authorities,
)
from bus_schemas.errors import Refused
from bus_schemas.transport.private_files import PUBLIC, give_to_folders_owner, write_private
from platform_handlers.authority import tls
from platform_handlers.authority.installation import Installation, PairFiles


@dataclass(frozen=True)
class Authorities:
    """The CAs of an installation, oldest first, and whose certificates are shown."""

    certificates: Certificates
    in_use: x509.Certificate | None
    """The one that signed what nats-server shows; None: it is not in `ca.pem`."""

    @property
    def newest(self) -> x509.Certificate:
        """The one that is to stay."""
        return self.certificates[-1]

    @property
    def changing(self) -> bool:
        """Whether there are two."""
        return len(self.certificates) > 1


def read(installation: Installation) -> Authorities:
    """Return what the files say. Raises Refused(`ca_damaged`)."""
    try:
        certificates = read_authorities(installation.ca.read_bytes())
        shown = read_certificate(installation.bus_pair)
    except (OSError, ValueError) as error:
        detail = f"{installation.ca} or {installation.bus_pair.certificate} cannot be read; restore"
        raise Refused("ca_damaged", f"{detail} it from a back-up") from error
    signers = (ca for ca in certificates if tls.signed_by(shown, ca))
    return Authorities(certificates, next(signers, None))


def read_certificate(pair: PairFiles) -> x509.Certificate:
    """Return the certificate in use. Raises OSError or ValueError."""
    return x509.load_pem_x509_certificate(pair.certificate.read_bytes())


def check_pair(pair: PairFiles) -> None:
    """Raise Refused(`pair_broken`) where a renewal broke off between a key and its certificate.

    Files that cannot be read are whoever needs them to tell of.
    """
    try:
        whole = tls.belong_together(pair.certificate.read_bytes(), pair.key.read_bytes())
    except (OSError, ValueError):
        return
    if not whole:
        detail = f"{pair.key} is not the key of {pair.certificate}: a renewal broke off"
        raise Refused("pair_broken", f"{detail}; run `byok ca renew`")


def add(installation: Installation, *, now: datetime) -> Authorities:
    """Make the next CA and publish both. Nothing shows its certificates yet.

    Raises Refused (`rotation_under_way`, `ca_damaged`, `ca_key_lost`), OSError.
    """
    with _alone(installation):
        known = read(installation)
        if known.changing:
            detail = f"{authority_id(known.newest)} was added before; go on with `byok ca use`"
            raise Refused("rotation_under_way", detail)
        _settle(installation, known.newest)
        # Its begin orders it: only what is newer is ever introduced.
        begin = max(now, tls.made_at(known.newest) + timedelta(seconds=1))
        made = tls.make_ca(f"byok CA {begin:%Y-%m-%d}", now=begin)
        write_private(_next_key(installation), made.key)
        certificate = x509.load_pem_x509_certificate(made.certificate)
        _publish(installation, (*known.certificates, certificate))
        return read(installation)


def use(installation: Installation, *, now: datetime) -> Authorities:
    """Have the newest CA sign new certificates for the bus and the API.

    Whoever shows them must be told. Raises as `add` does.
    """
    return _sign_anew(installation, read(installation).newest, now)


def renew(installation: Installation, *, now: datetime) -> Authorities:
    """Have the CA in use sign new certificates for the bus and the API. Raises as `add` does."""
    known = read(installation)
    return _sign_anew(installation, known.in_use or known.certificates[0], now)


def _sign_anew(installation: Installation, ca: x509.Certificate, now: datetime) -> Authorities:
    if not valid_at(ca, now):
        detail = f"{authority_id(ca)} has expired; run `byok ca add`, then `byok ca use`"
        raise Refused("ca_expired", detail)
    with _alone(installation):
        _publish(installation, read(installation).certificates)  # a step may have broken off
        pem = ca.public_bytes(serialization.Encoding.PEM)
        signer = tls.Pair(pem, _key_of(installation, ca)[1])
        for name, pair in (("server", installation.bus_pair), ("api", installation.api_pair)):
            hosts = tls.hosts_of(read_certificate(pair))
            leaf = tls.make_server_certificate(signer, f"byok {name}", hosts, now=now)
            write_private(pair.key, leaf.key)
            write_private(pair.certificate, leaf.certificate)
        return read(installation)


def retire(installation: Installation) -> Authorities:
    """Trust the newest CA alone and destroy the old one's key.

    Raises Refused (`still_in_use`, `nothing_to_retire`) and as `add` does.
    """
    with _alone(installation):
        known = read(installation)
        newest = known.newest
        if not known.changing:
            _settle(installation, newest)
            raise Refused("nothing_to_retire", f"{authority_id(newest)} is the only CA")
        if known.in_use != newest:
            detail = f"{authority_id(newest)} is not in use yet; run `byok ca use` first"
            raise Refused("still_in_use", detail)
        _publish(installation, (newest,))
        _settle(installation, newest)
        return read(installation)


def publish(installation: Installation) -> None:
    """Sign and publish what `ca.pem` holds. Raises Refused(`ca_key_lost`), OSError, ValueError."""
    _publish(installation, read_authorities(installation.ca.read_bytes()))


def _publish(installation: Installation, certificates: Certificates) -> None:
    """Write both forms; the signer is the oldest, whom everybody trusts by now."""
    signed = sign_authorities(certificates, _loaded(_key_of(installation, certificates[0])[1]))
    write_private(installation.ca, write_authorities(certificates), PUBLIC)
    write_private(installation.signed_authorities, signed.model_dump_json().encode(), PUBLIC)


def _key_of(installation: Installation, certificate: x509.Certificate) -> tuple[Path, bytes]:
    """Return where the private key of *certificate* lies, and the key."""
    for path in (installation.authority / "ca.key", _next_key(installation)):
        with contextlib.suppress(OSError, ValueError):
            key = path.read_bytes()
            if _loaded(key).public_key() == certificate.public_key():
                return path, key
    name, folder = authority_id(certificate), installation.authority
    raise Refused("ca_key_lost", f"{folder} has no key of CA {name}; restore it from a back-up")


def _settle(installation: Installation, only: x509.Certificate) -> None:
    """Put the key of the *only* CA in its place, over that of the one before it."""
    _key_of(installation, only)[0].replace(installation.authority / "ca.key")


def _loaded(pem: bytes) -> ec.EllipticCurvePrivateKey:
    key = serialization.load_pem_private_key(pem, password=None)
    if not isinstance(key, ec.EllipticCurvePrivateKey):
        raise ValueError("not an elliptic-curve key")  # noqa: TRY004 (the file's content is wrong)
    return key


def _next_key(installation: Installation) -> Path:
    return installation.authority / "ca-next.key"


@contextlib.contextmanager
def _alone(installation: Installation) -> Iterator[None]:
    """Hold off a second operator with the same idea."""
    with (installation.authority / "ca.lock").open("a") as file:
        give_to_folders_owner(file.fileno(), installation.authority)
        fcntl.flock(file, fcntl.LOCK_EX)
        yield
