"""Makes the call that judges a credential: from this server to the provider, and to nobody else.

Nothing of it is logged but its verdict: an error body may repeat the credential.
"""

import time
from collections.abc import Awaitable, Callable
from typing import Final

import aiohttp
import structlog
from yarl import URL

from bus_schemas.credential import CredentialPayload, OAuthSet
from bus_schemas.errors import Refused
from bus_schemas.events.health import Validity
from vps_runtime.keys.calls import Calls
from vps_runtime.outgoing import whole_body
from vps_runtime.rotation.rules import Verdict
from vps_runtime.vault.credentials import CredentialStore, Held
from vps_runtime.verification.rules import (
    MAX_BODY,
    NO_CHECK,
    TIMED_OUT,
    UNDOCUMENTED,
    UNREACHABLE,
    Check,
    check_for,
    validity,
    wants_body,
)

_log = structlog.get_logger(__name__)

Refreshed = Callable[[Held], Awaitable[Verdict]]
"""Refreshes a sign-in and says what came of it; a new access token is stored by then."""

_WITHIN_SECONDS: Final = 20.0
_CONNECT_SECONDS: Final = 10.0
_OVER_SECONDS: Final = 30.0
"""An access token that ends sooner is not worth a call."""


class Judge:
    """Asks providers about credentials that the vault holds."""

    def __init__(
        self,
        credentials: CredentialStore,
        session: aiohttp.ClientSession,
        *,
        calls: Calls | None = None,
        refreshed: Refreshed | None = None,
        ended: Callable[[Held], Verdict | None] = lambda _: None,
        within: float = _WITHIN_SECONDS,
    ) -> None:
        """*session* decompresses nothing; *within* is in seconds, for one call as a whole.

        *ended* tells why a sign-in can be refreshed no more: then its access token has no say.
        """
        self._credentials = credentials
        self._session = session
        self._calls = calls
        self._refreshed = refreshed
        self._ended = ended
        self._timeout = aiohttp.ClientTimeout(
            total=within, sock_connect=min(within, _CONNECT_SECONDS)
        )

    async def judge(self, held: Held) -> Verdict:
        """Return what the provider says of *held* now. Raises nothing of its own.

        Whatever is not a documented answer says nothing: `unknown`, with the reason why.
        """
        try:
            verdict = await self._judged(held)
        except Refused as error:  # the record is damaged, or was retired in this moment
            verdict = Verdict(Validity.UNKNOWN, None, error.reason)
        _log.info(
            "credential_judged",
            slot=held.slot_id,
            revision=held.revision,
            verdict=verdict.validity,
            status=verdict.status,
            reason=verdict.reason,
        )
        return verdict

    async def _judged(self, held: Held) -> Verdict:
        payload = await self._credentials.payload(held)
        if payload.oauth is None or self._refreshed is None:
            return await self._asked(held, payload)
        return await self._sign_in(held, payload, payload.oauth, self._refreshed)

    async def _sign_in(
        self, held: Held, payload: CredentialPayload, oauth: OAuthSet, refreshed: Refreshed
    ) -> Verdict:
        """Judge a sign-in: a call tells only of its access token, a refresh of the grant itself."""
        if (over := self._ended(held)) is not None:
            return over
        if check_for(held.provider, payload) is not None and not _is_over(oauth):
            verdict = await self._asked(held, payload)
            if verdict.validity is not Validity.INVALID:
                return verdict
        verdict = await refreshed(held)
        if verdict.validity is not Validity.VALID:
            return verdict
        anew = await self._asked(held, await self._credentials.payload(held))
        return verdict if anew.reason == NO_CHECK else anew

    async def _asked(self, held: Held, payload: CredentialPayload) -> Verdict:
        check = check_for(held.provider, payload)
        if check is None:
            return Verdict(Validity.UNKNOWN, None, NO_CHECK)
        try:
            verdict = await self._answer(check)
        except TimeoutError:
            verdict = Verdict(Validity.UNKNOWN, None, TIMED_OUT)
        except (aiohttp.ClientError, OSError, ValueError):  # ValueError: a host that is no host
            verdict = Verdict(Validity.UNKNOWN, None, UNREACHABLE)
        if self._calls is not None:
            self._calls.reached(held.slot_id, answered=verdict.status is not None)
        return verdict

    async def _answer(self, check: Check) -> Verdict:
        sending = self._session.request(
            check.method,
            URL(check.url, encoded=True),  # as it was sealed: nothing is quoted anew
            headers=check.headers,
            data=check.body,
            allow_redirects=False,  # a redirect would take the credential to another host
            timeout=self._timeout,
        )
        async with sending as response:
            try:
                read = wants_body(check.rules, response.status)
                body = await whole_body(response, MAX_BODY) if read else None
            finally:
                response.close()  # the rest of an answer is nobody's business
        said = validity(check.rules, response.status, body)
        reason = UNDOCUMENTED if said is Validity.UNKNOWN else None
        return Verdict(said, response.status, reason)


def _is_over(oauth: OAuthSet) -> bool:
    return oauth.expires_at is not None and oauth.expires_at.timestamp() <= (
        time.time() + _OVER_SECONDS
    )
