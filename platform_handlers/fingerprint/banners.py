"""All banners as they stand, found by key and by server. Pure."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

from bus_schemas.events.banner import BannerState
from platform_handlers.banner.lifecycle import Banner, BannerKey
from platform_handlers.fingerprint.rules import REUSE_CODES


@dataclass
class Banners:
    """The banners that stand, and cleared ones that remember a dismissal."""

    by_server: dict[str, dict[BannerKey, Banner]] = field(default_factory=dict)
    dismissed: dict[str, set[BannerKey]] = field(default_factory=dict)
    """By server: dismissed banners of reuse, which must notice every new partner."""

    def __iter__(self) -> Iterator[Banner]:
        """Yield every banner."""
        return (banner for mine in self.by_server.values() for banner in mine.values())

    def get(self, key: BannerKey) -> Banner | None:
        """Return one banner; None if there is nothing to say or to remember."""
        return self.of_server(key.server_id).get(key)

    def of_server(self, server_id: str) -> Mapping[BannerKey, Banner]:
        """Return the banners about *server_id*."""
        return self.by_server.get(server_id, {})

    def keep(self, banner: Banner) -> None:
        """Take *banner* as it stands now, or forget it when nothing is left of it."""
        key = banner.key
        mine = self.by_server.setdefault(key.server_id, {})
        mine[key] = banner
        if not banner.stands and banner.dismissal is None:
            del mine[key]  # else a server could fill the memory with slots that come and go
        if not mine:
            del self.by_server[key.server_id]
        noticing = self.dismissed.pop(key.server_id, set()) - {key}
        if banner.state is BannerState.DISMISSED and key.code in REUSE_CODES:
            noticing.add(key)
        if noticing:
            self.dismissed[key.server_id] = noticing
