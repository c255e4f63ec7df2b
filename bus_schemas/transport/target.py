"""Where the bus is, whom to trust there, and why it could not be reached."""

import ssl
from dataclasses import dataclass
from pathlib import Path

from bus_schemas.errors import ByokError


class BusUnavailable(ByokError):
    """The bus cannot be reached now; trying again may help (exit code 69)."""


class BusDenied(ByokError):
    """The other side is not who it should be, or does not let us in (exit code 77)."""


class TokenRefused(BusDenied):
    """The right bus, and it does not take our token: expired, revoked or not of this system."""


@dataclass(frozen=True)
class BusTarget:
    """Where the bus is and whom to trust there."""

    url: str
    """`tls://host:port`; anything else is refused before a byte is sent."""
    ca_file: Path
    """The only CA that is trusted; the system's own store is not."""


def tls_context(ca_file: Path) -> ssl.SSLContext:
    """Return a client context that trusts *ca_file* alone and checks host names.

    Raises BusDenied when the file is missing or holds no certificate.
    """
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    try:
        context.load_verify_locations(cafile=ca_file)
    except (OSError, ssl.SSLError) as error:
        raise BusDenied(f"{ca_file} is not a readable CA certificate") from error
    return context


def explained(error: BaseException, target: BusTarget) -> ByokError:
    """Return why *target* could not be reached: BusDenied or BusUnavailable, in one sentence."""
    url, text = target.url, str(error).lower()
    if isinstance(error, ssl.SSLCertVerificationError):
        why = error.verify_message or "verification failed"
        what = f"the certificate is not acceptable to {target.ca_file}: {why}"
        return BusDenied(f"{url}: {what}; `doctor` says what to do")
    if isinstance(error, ssl.SSLError):
        return BusDenied(f"{url} does not speak TLS; a plain NATS server is never used")
    if "authorization" in text or "authentication" in text or "nonce" in text:
        what = "it is expired, revoked or not of this system"
        return TokenRefused(f"{url} refused our token: {what}")
    if isinstance(error, TimeoutError):
        return BusUnavailable(f"{url} did not complete a TLS handshake in time")
    return BusUnavailable(f"{url} cannot be reached: {str(error)[:200] or type(error).__name__}")
