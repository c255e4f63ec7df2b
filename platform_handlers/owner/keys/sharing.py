"""Which other servers of the owner have the same credential, as far as the banners know."""

from collections.abc import Collection

from platform_handlers.owner.keys.rules import also_on
from platform_handlers.owner.platform_api import PlatformApi, PlatformRefused, PlatformUnreachable


def elsewhere(platform: PlatformApi, servers: Collection[str], slot_id: str) -> frozenset[str]:
    """Return the servers beside *servers* that have what their *slot_id* has.

    Empty if the banners cannot be read now: neither a rotation nor a stop waits for them.
    """
    try:
        found = platform.banners()
    except (PlatformRefused, PlatformUnreachable):
        return frozenset()
    named = (also_on(found, server_id, slot_id) for server_id in servers)
    return frozenset[str]().union(*named) - frozenset(servers)
