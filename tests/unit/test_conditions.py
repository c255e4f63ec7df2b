"""Banners that follow from one fact alone."""

import pytest

from bus_schemas.events.banner import BannerCode
from bus_schemas.events.health import Transition
from platform_handlers.banner.lifecycle import BannerKey, Wanted
from platform_handlers.fingerprint.conditions import Wish, wishes
from tests.facts import Ledger


@pytest.mark.parametrize(
    ("transition", "slot", "code", "wanted"),
    [
        (Transition.REJECTED, "main", BannerCode.KEY_REJECTED, Wanted()),
        (Transition.ACCEPTED, "main", BannerCode.KEY_REJECTED, None),
        (Transition.SILENT, None, BannerCode.SERVER_SILENT, Wanted()),
        (Transition.RETURNED, None, BannerCode.SERVER_SILENT, None),
    ],
)
def test_each_transition_raises_or_clears_its_banner(
    transition: Transition, slot: str | None, code: BannerCode, wanted: Wanted | None
) -> None:
    """What the health handler saw begin, it must also see end."""
    event = Ledger().status("acme-1", "acme", transition, slot).envelope.data
    assert wishes(event) == (Wish(BannerKey("acme-1", slot or "", code), wanted),)


def test_a_slot_without_a_key_says_so_until_one_is_stored() -> None:
    """Storing a credential ends both that none was there and that the one before was refused."""
    ledger = Ledger()
    missing = BannerKey("acme-1", "main", BannerCode.KEY_MISSING)
    rejected = BannerKey("acme-1", "main", BannerCode.KEY_REJECTED)
    assert wishes(ledger.needs_key("acme-1").envelope.data) == (Wish(missing, Wanted()),)
    assert wishes(ledger.stored("acme-1").envelope.data) == (
        Wish(missing, None),
        Wish(rejected, None),
    )


def test_most_facts_wish_nothing() -> None:
    """Time, for one, raises no banner by itself."""
    assert wishes(Ledger().ticked().envelope.data) == ()
