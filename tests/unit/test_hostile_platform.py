"""What a malicious platform may not do to an owner who asks it something."""

from datetime import UTC, datetime
from pathlib import Path

import httpx
import pytest
from rich.console import Console

from bus_schemas.api import BannerList, BannerView, ServerView
from bus_schemas.errors import Refused
from bus_schemas.events.banner import BannerCode, BannerState, Sharing
from platform_handlers.authority.tls import make_ca
from platform_handlers.owner.banner_list import as_table
from platform_handlers.owner.home import Home
from platform_handlers.owner.platform_api import PlatformApi

AT = datetime(2026, 11, 23, tzinfo=UTC)
ESCAPES = "\x1b]0;owned\x07\x1b[2J\x9b2J"


def test_banners_cannot_drive_the_owners_terminal() -> None:
    """Their words come over the network; control sequences in them could retype what is seen."""
    code = BannerCode.SERVER_SILENT
    banner = BannerView(
        banner_id="acme-1__server-silent",
        server_id="acme-1",
        slot_id=None,
        code=code,
        severity=code.severity,
        colour=code.severity.colour,
        state=BannerState.RAISED,
        revision=1,
        sharing=Sharing(),
        since_time=AT,
        changed_at=AT,
        title=f"title {ESCAPES}",
        explanation=f"explanation {ESCAPES}",
        what_to_do=f"what {ESCAPES}",
    )
    cleared = banner.model_copy(update={"state": BannerState.CLEARED})
    console = Console(width=200, record=True)
    console.print(as_table(BannerList(banners=(banner, cleared), cursor=0), every=True))
    shown = console.export_text()
    assert "explanation" in shown
    assert not set(shown) & {"\x1b", "\x07", "\x9b"}


def test_an_answer_about_another_server_is_refused(tmp_path: Path) -> None:
    """Its keys and revisions would be taken for those of the one that was asked for."""
    address = Home(tmp_path).connect("https://x.test", make_ca("x", now=AT).certificate, "token")
    other = ServerView(
        server_id="acme-2", active=True, identity_key=None, fingerprint=None, sealing_key=None
    )

    def answer(_: httpx.Request) -> httpx.Response:
        return httpx.Response(200, content=other.model_dump_json())

    platform = PlatformApi(address)
    platform._client = httpx.Client(  # noqa: SLF001 (the answers of a liar)
        base_url="https://x.test", transport=httpx.MockTransport(answer)
    )
    with platform, pytest.raises(Refused, match="wrong_server"):
        platform.server("acme-1")
    platform._client.close()  # noqa: SLF001
