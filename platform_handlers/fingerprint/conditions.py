"""Banners that follow from one fact alone, without comparing servers. Pure."""

from dataclasses import dataclass

from bus_schemas.event import Event
from bus_schemas.events import (
    CredentialInUse,
    CredentialNeedsKey,
    CredentialVerified,
    ServerDeprovisioned,
    ServerReenrolled,
    ServerRevoked,
    StatusChanged,
    UnlockApproved,
)
from bus_schemas.events.banner import BannerCode
from bus_schemas.events.health import Transition
from platform_handlers.banner.lifecycle import BannerKey, Content, Wanted
from platform_handlers.fingerprint.rules import REUSE_CODES

_TRANSITIONS = {
    Transition.REJECTED: (BannerCode.KEY_REJECTED, True),
    Transition.ACCEPTED: (BannerCode.KEY_REJECTED, False),
    Transition.SILENT: (BannerCode.SERVER_SILENT, True),
    Transition.RETURNED: (BannerCode.SERVER_SILENT, False),
}

_OF_ONE_MACHINE = frozenset(
    {
        BannerCode.CLONE_SUSPECTED,
        BannerCode.OWNER_KEY_CHANGED,
        BannerCode.KEY_REJECTED,
        BannerCode.ROTATION_STUCK,
        BannerCode.ROTATION_DUE,
    }
)
"""What another machine in its place has nothing to do with: its vault is empty, its pins new."""


@dataclass(frozen=True)
class Wish:
    """A banner should stand (or not) from this fact on."""

    key: BannerKey
    wanted: Wanted | None


def wishes(event: Event) -> tuple[Wish, ...]:
    """Return what *event* alone says about banners."""
    match event:
        case StatusChanged() if event.transition in _TRANSITIONS:
            return (_status(event),)
        case CredentialNeedsKey():
            return (
                _wish(event.server_id, event.slot_id, BannerCode.KEY_MISSING, stands=True),
                # None is in use, so none is refused.
                _wish(event.server_id, event.slot_id, BannerCode.KEY_REJECTED, stands=False),
            )
        case CredentialVerified(promoted=True) | CredentialInUse():
            # Not `stored`: until the provider has taken it, the one before is in use, or none.
            return (
                _wish(event.server_id, event.slot_id, BannerCode.KEY_MISSING, stands=False),
                _wish(event.server_id, event.slot_id, BannerCode.KEY_REJECTED, stands=False),
            )
        case UnlockApproved():  # the copy was the owner's own
            return (_wish(event.server_id, "", BannerCode.CLONE_SUSPECTED, stands=False),)
        case _:
            return ()


def _status(event: StatusChanged) -> Wish:
    code, stands = _TRANSITIONS[event.transition]
    wanted = Wanted(Content(reason=event.reason)) if stands else None
    return Wish(BannerKey(event.server_id, event.slot_id or "", code), wanted)


def ended(event: Event, code: BannerCode) -> bool:
    """Whether *event* ends every banner of its server under *code*.

    Of a revoked server goes what only it could end (its silence, a rejected key) or what can no
    longer be (a copy that asks), while what it shares stays to be told: whoever took it has it.
    """
    match event:
        case ServerDeprovisioned():
            return True
        case ServerRevoked():
            return code not in REUSE_CODES
        case ServerReenrolled():
            return code in _OF_ONE_MACHINE
        case _:
            return False


def _wish(server_id: str, slot_id: str, code: BannerCode, *, stands: bool) -> Wish:
    return Wish(BannerKey(server_id, slot_id, code), Wanted() if stands else None)
