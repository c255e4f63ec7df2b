"""A banner as the API and the page show it: the newest event together with its words. Pure."""

from bus_schemas.api import BannerList, BannerView
from bus_schemas.events import BannerDismissed
from platform_handlers.banner.board import Board, Entry
from platform_handlers.banner.words import words_for


def view_of(entry: Entry) -> BannerView:
    """Return what the owner of *entry* may see of it."""
    banner = entry.banner
    words = words_for(banner)
    dismissed = banner if isinstance(banner, BannerDismissed) else None
    return BannerView(
        banner_id=banner.banner_id,
        server_id=banner.server_id,
        slot_id=banner.slot_id,
        code=banner.code,
        severity=banner.severity,
        colour=banner.colour,
        state=banner.state,
        revision=banner.revision,
        sharing=banner.sharing,
        copies=banner.copies,
        keys=banner.keys,
        rotation=banner.rotation,
        reason=banner.reason,
        since_time=banner.since_time,
        changed_at=entry.envelope.time,
        title=words.title,
        explanation=words.explanation,
        what_to_do=words.what_to_do,
        dismissed_by=dismissed.dismissed_by if dismissed else None,
        why=dismissed.why if dismissed else None,
    )


def list_of(board: Board, owner_id: str) -> BannerList:
    """Return all banners of *owner_id* and the cursor from which to listen on."""
    views = tuple(view_of(entry) for entry in board.all(owner_id))
    return BannerList(banners=views, cursor=board.cursor)
