"""What a malicious platform may not do to an owner who asks it something."""

import time
from datetime import UTC, datetime
from pathlib import Path

import httpx
import pytest
from rich.console import Console

from bus_schemas.api import Accepted, BannerList, BannerView, OrderList, ServerList, ServerView
from bus_schemas.errors import Refused
from bus_schemas.events.banner import BannerCode, BannerState, Sharing
from bus_schemas.events.config import Order
from bus_schemas.exit_codes import ExitCode
from bus_schemas.orders import Instruction, OrderKind
from platform_handlers.authority.tls import make_ca
from platform_handlers.owner.banner_list import as_table
from platform_handlers.owner.home import Home
from platform_handlers.owner.ordering import Ordering, give_orders
from platform_handlers.owner.platform_api import PlatformApi, PlatformUnreachable

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


class OneByOne(PlatformApi):
    """Has three servers, and takes no order for the second."""

    def __init__(self) -> None:
        self.taken: list[str] = []

    def servers(self) -> ServerList:
        """Name them."""
        names = ("acme-1", "acme-2", "acme-3")
        found = tuple(
            ServerView(
                server_id=name,
                active=True,
                identity_key=name.encode().ljust(32),
                fingerprint=None,
                sealing_key=None,
            )
            for name in names
        )
        return ServerList(owner_id="acme", servers=found)

    def orders(self, server_id: str) -> OrderList:
        """None yet, for two of them."""
        if server_id == "acme-2":
            raise PlatformUnreachable("https://x.test cannot be reached")
        return OrderList(server_id=server_id, last_n=0, orders=())

    def order(self, server_id: str, order: Order) -> Accepted:
        """Take it."""
        self.taken.append(f"{server_id} {order.kind}")
        return Accepted(generation=1)


def test_a_server_that_cannot_be_ordered_does_not_keep_the_others_from_their_order(
    tmp_path: Path,
) -> None:
    """To lock three of which one fails locks two, and says which one is not."""
    home, platform = Home(tmp_path), OneByOne()
    home.make_owner_key()
    console = Console(width=200, record=True)
    ordering = Ordering(("acme-1", "acme-2", "acme-3"), Instruction(OrderKind.LOCK), 0)
    assert give_orders(platform, home, ordering, console) is ExitCode.TRY_AGAIN
    assert platform.taken == ["acme-1 lock", "acme-3 lock"]
    assert "acme-2: not ordered. https://x.test cannot be reached" in console.export_text()


class Withholding(PlatformApi):
    """Takes every order, gives on none, and says that *last_n* is the last one's number."""

    def __init__(self) -> None:
        self.taken: list[Order] = []
        self.last_n = 0

    def servers(self) -> ServerList:
        """Name one server."""
        server = ServerView(
            server_id="acme-1",
            active=True,
            identity_key=b"k" * 32,
            fingerprint=None,
            sealing_key=None,
        )
        return ServerList(owner_id="acme", servers=(server,))

    def orders(self, server_id: str) -> OrderList:
        """Lie."""
        return OrderList(server_id=server_id, last_n=self.last_n, orders=())

    def order(self, server_id: str, order: Order) -> Accepted:
        """Keep it back."""
        assert server_id == "acme-1"
        self.taken.append(order)
        return Accepted(generation=1)


def test_orders_that_were_kept_back_cannot_overtake_later_ones(tmp_path: Path) -> None:
    """Given at last, an unlock of yesterday would undo the lock of today."""
    home, platform = Home(tmp_path), Withholding()
    home.make_owner_key()

    def give(kind: OrderKind, last_n: int, argument: str | None = None) -> Order:
        platform.last_n = last_n
        ordering = Ordering(("acme-1",), Instruction(kind, argument=argument), 0)
        assert give_orders(platform, home, ordering, Console(quiet=True)) is ExitCode.TRY_AGAIN
        return platform.taken[-1]

    given = [
        give(OrderKind.UNLOCK, 500),
        give(OrderKind.TRUST, 600, "A" * 20),
        give(OrderKind.DISTRUST, 0, "A" * 20),
        give(OrderKind.LOCK, 1),
    ]
    assert [order.n for order in given] == [501, 601, 602, 603]
    with pytest.raises(Refused, match="number_too_high"):
        give(OrderKind.LOCK, 2**52)
    assert len(platform.taken) == len(given)


def test_what_takes_something_away_waits_for_a_server_that_is_off(tmp_path: Path) -> None:
    """Over a weekend and longer; what gives is for the day on which it was meant."""
    home, platform = Home(tmp_path), Withholding()
    home.make_owner_key()
    days = {}
    for kind in OrderKind:
        about_revision = kind in {"verify", "promote", "abort", "retire"}
        slot = "anthropic" if "slot" in kind or about_revision else None
        argument = "A" * 20 if "trust" in kind else "3" if about_revision else None
        ordering = Ordering(("acme-1",), Instruction(kind, slot, argument), 0)
        give_orders(platform, home, ordering, Console(quiet=True))
        days[kind.value] = round((platform.taken[-1].not_after.timestamp() - time.time()) / 86400)
    assert days == {
        "stop-slot": 30,
        "lock": 30,
        "distrust": 30,
        "retire": 30,
        "resume-slot": 1,
        "unlock": 1,
        "trust": 1,
        "verify": 1,
        "promote": 1,
        "abort": 1,
    }
