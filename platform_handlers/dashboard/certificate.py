"""The API shows a renewed certificate without a restart: open connections keep the one they saw."""

import ssl

import structlog

from platform_handlers.authority.installation import PairFiles
from platform_handlers.authority.pair_watch import renewals

_log = structlog.get_logger(__name__)


async def keep_current(context: ssl.SSLContext, pair: PairFiles) -> None:
    """Load *pair* into *context* whenever it was renewed, for ever; a bad pair is passed by."""
    async for _ in renewals(pair):
        try:
            # Elsewhere first: with a key that does not fit, *context* would lose the pair it has.
            for each in (ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER), context):
                each.load_cert_chain(pair.certificate, pair.key)
        except (OSError, ssl.SSLError) as error:
            _log.warning("certificate_not_taken", error=type(error).__name__)
        else:
            _log.info("certificate_renewed")
