"""The credentials that may be used now, opened and in memory: one per slot, and no others.

Whoever sends a credential anywhere asks here, each time. The answer follows the rotation and the
signed orders at once: a revision that they take out of use is not given out again.
"""

import asyncio
import contextlib
import time
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from typing import Final

from bus_schemas.errors import Refused
from bus_schemas.fields import CredentialKind
from vps_runtime.unlocked import UnlockedServer
from vps_runtime.vault.credentials import Held

FRESH_SECONDS: Final = 25.0
"""How long a caller waits for the refresh of a sign-in."""

_ENDS_SOON = 5.0
"""An access token that ends sooner may be over by the time it arrives, in seconds."""


@dataclass(frozen=True, slots=True)
class KeyInUse:
    """One credential in the clear, ready to be sent."""

    slot_id: str
    revision: int
    provider: str
    kind: CredentialKind
    base_url: str
    """Where it may be sent, and nowhere else: it came inside the seal."""
    header_style: str
    secret: str = field(repr=False)
    """The API key, or the access token of an OAuth sign-in."""
    expires_at: float | None = None
    """Of an access token, in Unix seconds; None if it does not say."""


class Keyring:
    """The opened credentials of one unlocked server."""

    def __init__(self, server: UnlockedServer, clock: Callable[[], float] = time.time) -> None:
        """*clock* gives Unix seconds."""
        self._server = server
        self._opened: dict[tuple[str, int], KeyInUse] = {}
        self._withheld: Mapping[str, int] = {}
        self._opening = asyncio.Lock()
        self._on_changed: list[Callable[[], None]] = []
        self._refresh: Callable[[Held], Awaitable[object]] | None = None
        self._clock = clock

    def on_changed(self, callback: Callable[[], None]) -> None:
        """Call *callback* after each change of what may be used."""
        self._on_changed.append(callback)

    def current(self, slot_id: str) -> KeyInUse | None:
        """Return what may be used for *slot_id* at this moment; None if nothing may."""
        held = self._server.usable_in(slot_id)
        if held is None or held.revision <= self._withheld.get(slot_id, 0):
            return None
        return self._opened.get((held.slot_id, held.revision))

    def withhold(self, revisions: Mapping[str, int]) -> None:
        """Give out none up to these *revisions*, by slot, in place of those withheld before."""
        if revisions != self._withheld:
            self._withheld = dict(revisions)
            self.changed()

    def refresh_by(self, refresh: Callable[[Held], Awaitable[object]]) -> None:
        """Have *refresh* renew a sign-in whose access token is over; it opens what it brings."""
        self._refresh = refresh

    async def fresh(self, slot_id: str, refused: KeyInUse | None = None) -> KeyInUse | None:
        """Return what may be sent for *slot_id*; an access token that is over is renewed first.

        It is never one that is over, nor the one that the provider has *refused*; None if there is
        no other within `FRESH_SECONDS`. Whoever notes the call does so in the step in which this
        returns: nothing comes between.
        """
        key = self.current(slot_id)
        if key is None or not self._is_unfit(key, refused):
            return key
        held = self._server.usable_in(slot_id)
        if held is not None and self._refresh is not None and key.kind is CredentialKind.OAUTH:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(FRESH_SECONDS):
                    await self._refresh(held)
            key = self.current(slot_id)
        return None if key is None or self._is_unfit(key, refused) else key

    def _is_unfit(self, key: KeyInUse, refused: KeyInUse | None) -> bool:
        over = key.expires_at is not None and key.expires_at <= self._clock() + _ENDS_SOON
        return over or (refused is not None and key.secret == refused.secret)

    async def open(self, held: Held) -> None:
        """Have *held* ready before it comes into use; again, after its record has changed.

        Raises Refused(`vault_record_damaged`).
        """
        async with self._opening:
            payload = await self._server.credentials.payload(held)
            secret = payload.oauth.access_token if payload.oauth else payload.secret
            if secret is None:  # CredentialPayload has one of the two
                raise Refused("vault_record_damaged", f"slot {held.slot_id} holds no secret")
            ends = payload.oauth.expires_at if payload.oauth else None
            self._opened[held.slot_id, held.revision] = KeyInUse(
                held.slot_id,
                held.revision,
                held.provider,
                held.kind,
                payload.base_url,
                payload.header_style,
                secret.get_secret_value(),
                ends.timestamp() if ends else None,
            )
        self.changed()

    def changed(self) -> None:
        """Forget what is no longer held, and tell whoever uses keys to look again."""
        held = self._server.credentials.held
        self._opened = {key: one for key, one in self._opened.items() if key in held}
        for callback in self._on_changed:
            callback()
