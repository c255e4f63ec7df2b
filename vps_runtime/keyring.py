"""The credentials that may be used now, opened and in memory: one per slot, and no others.

Whoever sends a credential anywhere asks here, each time. The answer follows the rotation and the
signed orders at once: a revision that they take out of use is not given out again.
"""

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, field

from bus_schemas.errors import Refused
from bus_schemas.fields import CredentialKind
from vps_runtime.unlocked import UnlockedServer
from vps_runtime.vault.credentials import Held


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

    def __init__(self, server: UnlockedServer) -> None:
        self._server = server
        self._opened: dict[tuple[str, int], KeyInUse] = {}
        self._opening = asyncio.Lock()
        self._on_changed: list[Callable[[], None]] = []

    def on_changed(self, callback: Callable[[], None]) -> None:
        """Call *callback* after each change of what may be used."""
        self._on_changed.append(callback)

    def current(self, slot_id: str) -> KeyInUse | None:
        """Return what may be used for *slot_id* at this moment; None if nothing may."""
        held = self._server.usable.get(slot_id)
        return self._opened.get((held.slot_id, held.revision)) if held else None

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
