"""Banners that follow from one fact alone, without comparing servers. Pure."""

from dataclasses import dataclass

from bus_schemas.event import Event
from bus_schemas.events import CredentialNeedsKey, CredentialStored, StatusChanged
from bus_schemas.events.banner import BannerCode
from bus_schemas.events.health import Transition
from platform_handlers.banner.lifecycle import BannerKey, Wanted

_TRANSITIONS = {
    Transition.REJECTED: (BannerCode.KEY_REJECTED, True),
    Transition.ACCEPTED: (BannerCode.KEY_REJECTED, False),
    Transition.SILENT: (BannerCode.SERVER_SILENT, True),
    Transition.RETURNED: (BannerCode.SERVER_SILENT, False),
}


@dataclass(frozen=True)
class Wish:
    """A banner should stand (or not) from this fact on."""

    key: BannerKey
    wanted: Wanted | None


def wishes(event: Event) -> tuple[Wish, ...]:
    """Return what *event* alone says about banners."""
    match event:
        case StatusChanged():
            code, stands = _TRANSITIONS[event.transition]
            return (_wish(event.server_id, event.slot_id or "", code, stands=stands),)
        case CredentialNeedsKey():
            return (_wish(event.server_id, event.slot_id, BannerCode.KEY_MISSING, stands=True),)
        case CredentialStored():
            return (
                _wish(event.server_id, event.slot_id, BannerCode.KEY_MISSING, stands=False),
                _wish(event.server_id, event.slot_id, BannerCode.KEY_REJECTED, stands=False),
            )
        case _:
            return ()


def _wish(server_id: str, slot_id: str, code: BannerCode, *, stands: bool) -> Wish:
    return Wish(BannerKey(server_id, slot_id, code), Wanted() if stands else None)
