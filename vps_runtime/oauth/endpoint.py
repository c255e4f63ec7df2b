"""Asks a token endpoint for new tokens. Nothing of request or answer is logged."""

from dataclasses import dataclass
from typing import Final, Protocol

import aiohttp
from yarl import URL

from bus_schemas.credential import OAuthSet
from vps_runtime.oauth.answers import UNREACHABLE, Answer, Outcome, TryAgain, read_answer
from vps_runtime.outgoing import whole_body

MAX_BODY: Final = 256 * 1024
"""Of an answer: two tokens of the longest kind that a sealed set may hold, and room."""

_CONNECT_SECONDS: Final = 5.0
"""For name, TCP and TLS: who gets no further has shown nothing, and no answer can be lost."""
_WITHIN_SECONDS: Final = 10.0


class TokenEndpoint(Protocol):
    """Where a sign-in is refreshed."""

    async def refresh(self, oauth: OAuthSet, *, asked_at: float) -> Outcome:
        """Show the refresh token of *oauth* once and say what came of it; raises nothing."""
        ...


@dataclass(frozen=True)
class HttpTokenEndpoint:
    """The endpoint that came inside the seal, over TLS (or this machine's loopback)."""

    session: aiohttp.ClientSession
    """Without cookies or proxies of the environment."""
    within: float = _WITHIN_SECONDS

    async def refresh(self, oauth: OAuthSet, *, asked_at: float) -> Outcome:
        """Ask once (RFC 6749 section 6)."""
        url, headers, form = _request(oauth)
        timeout = aiohttp.ClientTimeout(total=self.within, connect=_CONNECT_SECONDS)
        try:
            async with self.session.post(
                URL(url, encoded=True),
                data=form.encode("ascii"),
                headers=headers,
                allow_redirects=False,  # a redirect would take the token to another host
                timeout=timeout,
            ) as response:
                body = await whole_body(response, MAX_BODY)
                retry_after = response.headers.get("Retry-After")
                answer = Answer(response.status, body, retry_after)
        except (aiohttp.ClientConnectorError, aiohttp.ConnectionTimeoutError, ValueError):
            return TryAgain(UNREACHABLE)  # nothing was sent; ValueError: a host that is none
        except (aiohttp.ClientError, OSError):  # OSError: timeouts, too
            return TryAgain(UNREACHABLE, lost=True)
        return read_answer(oauth, answer, asked_at=asked_at)


def _request(oauth: OAuthSet) -> tuple[str, dict[str, str], str]:
    """Return URL, headers and form of a public client's refresh (RFC 6749 sections 2.3, 6)."""
    # Here and not above: a server without sign-ins does not pay for it.
    from authlib.oauth2.auth import ClientAuth  # noqa: PLC0415
    from authlib.oauth2.rfc6749.parameters import prepare_token_request  # noqa: PLC0415

    form = prepare_token_request(
        "refresh_token", refresh_token=oauth.refresh_token.get_secret_value()
    )
    headers = {
        "accept": "application/json",
        "accept-encoding": "identity",
        "content-type": "application/x-www-form-urlencoded",
        "user-agent": "byok-vps",
    }
    client = ClientAuth(oauth.client_id, None, "none")
    url, headers, form = client.prepare("POST", oauth.token_endpoint, headers, form)
    return url, headers, form
