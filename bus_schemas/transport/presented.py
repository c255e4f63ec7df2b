"""Which certificate somebody shows, whether or not it would be trusted. Nothing is sent to it."""

import asyncio
import contextlib
import ssl
from urllib.parse import urlsplit

from cryptography import x509

from bus_schemas.transport.target import BusUnavailable

_SECONDS = 5.0


async def presented_certificate(url: str) -> x509.Certificate:
    """Return the certificate that is shown at *url* (`tls://` or `https://`, with its port).

    Only to say what is wrong with it: it is not verified. Raises BusUnavailable.
    """
    address = urlsplit(url)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    try:
        async with asyncio.timeout(_SECONDS):
            _, writer = await asyncio.open_connection(
                address.hostname, address.port, ssl=context, ssl_handshake_timeout=_SECONDS
            )
    except (TimeoutError, OSError, ValueError) as error:
        raise BusUnavailable(f"{url} shows no certificate: {type(error).__name__}") from error
    try:
        der = writer.get_extra_info("ssl_object").getpeercert(binary_form=True)
        return x509.load_der_x509_certificate(der)
    finally:
        writer.close()
        with contextlib.suppress(OSError, TimeoutError):
            async with asyncio.timeout(_SECONDS):
                await writer.wait_closed()
