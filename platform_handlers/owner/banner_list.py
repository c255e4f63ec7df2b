"""The banners as `byok banners` shows them. Pure."""

from collections.abc import Sequence

from rich.console import Group, RenderableType
from rich.markup import escape
from rich.text import Text

from bus_schemas.api import BannerList, BannerView
from bus_schemas.events.banner import BannerState, Severity
from platform_handlers.owner.console import columns, plain

_MARK = {
    Severity.HIGH: ("▲ needs attention", "yellow"),
    Severity.LOW: ("● for information", "blue"),
}
_CLOSED = {BannerState.DISMISSED, BannerState.CLEARED}


def selected(found: BannerList, *, every: bool) -> Sequence[BannerView]:
    """Return the banners to show: the open ones, or all."""
    return [banner for banner in found.banners if every or banner.state not in _CLOSED]


def as_json(found: BannerList, *, every: bool) -> str:
    """Return the same as the API, cut down to the selection."""
    chosen = tuple(selected(found, every=every))
    return found.model_copy(update={"banners": chosen}).model_dump_json(indent=2)


def as_table(found: BannerList, *, every: bool) -> RenderableType:
    """Return a table; severity is a shape and a word as well as a colour."""
    chosen = selected(found, every=every)
    if not chosen:
        return "Nothing needs you."
    table = columns("", "Where", "What", "State", unbroken={"Where"}, gap=1)
    for banner in chosen:
        mark, colour = _MARK[banner.severity]
        closed = banner.state in _CLOSED
        what = Group(
            Text(plain(banner.title), style="bold"),
            Text(plain(banner.explanation)),
            Text(plain(f"→ {banner.why or banner.what_to_do}")),
        )
        place = f"{banner.server_id}/{banner.slot_id}" if banner.slot_id else banner.server_id
        table.add_row(
            Text(mark, style="dim" if closed else colour),
            escape(place),
            Text(plain(banner.title)) if banner.state is BannerState.CLEARED else what,
            f"{banner.state}\n{banner.since_time:%d %b %Y}",
        )
    return table
