"""The HTTP client of all that sends a credential; the gateway has one of its own (`upstream`)."""

import aiohttp


def open_session() -> aiohttp.ClientSession:
    """Return a client that keeps no cookies, uses no proxies of the environment, unpacks nothing.

    To be opened in a running loop, and closed.
    """
    return aiohttp.ClientSession(
        cookie_jar=aiohttp.DummyCookieJar(), trust_env=False, auto_decompress=False
    )


async def whole_body(response: aiohttp.ClientResponse, most: int) -> bytes | None:
    """Return the body of *response*; None if it has more than *most* bytes, which nobody reads."""
    read = bytearray()
    async for chunk in response.content.iter_any():
        read += chunk
        if len(read) > most:
            response.close()
            return None
    return bytes(read)
