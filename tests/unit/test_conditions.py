"""Banners that follow from one fact alone."""

import pytest

from bus_schemas.events import CredentialInUse, StatusChanged
from bus_schemas.events.banner import BannerCode
from bus_schemas.events.health import Transition
from bus_schemas.transport.ledger import Fact
from platform_handlers.banner.lifecycle import BannerKey, Content, Wanted
from platform_handlers.fingerprint.conditions import Wish, ended, wishes
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


def test_a_refusal_says_why_where_more_is_known() -> None:
    """That a sign-in was used elsewhere is told, not only that it ended; the rest has no reason."""
    event = StatusChanged(
        server_id="acme-1",
        owner_id="acme",
        transition=Transition.REJECTED,
        slot_id="main",
        reason="invalid_grant",
    )
    [wish] = wishes(event)
    assert wish.wanted == Wanted(Content(reason="invalid_grant"))


def test_a_slot_without_a_key_says_so_until_one_is_used() -> None:
    """Using a credential ends both that none was there and that the one before was refused.

    Having none ends the refusal: there is nothing left to refuse.

    Storing one ends neither: the provider may turn it down, and what was in use stays so.
    """
    ledger = Ledger()
    missing = BannerKey("acme-1", "main", BannerCode.KEY_MISSING)
    rejected = BannerKey("acme-1", "main", BannerCode.KEY_REJECTED)
    assert wishes(ledger.needs_key("acme-1").envelope.data) == (
        Wish(missing, Wanted()),
        Wish(rejected, None),
    )
    assert wishes(ledger.stored("acme-1").envelope.data) == ()
    used = ledger.step(CredentialInUse, "acme-1", provider_status=200)
    for fact in (ledger.promoted("acme-1"), used):
        assert wishes(fact.envelope.data) == (Wish(missing, None), Wish(rejected, None))


def test_an_approval_ends_the_suspicion_of_a_copy() -> None:
    """It was the owner's own."""
    key = BannerKey("acme-1", "", BannerCode.CLONE_SUSPECTED)
    assert wishes(Ledger().approved("acme-1").envelope.data) == (Wish(key, None),)


@pytest.mark.parametrize("fact", [Ledger().ticked(), Ledger().answered("acme-1", 1)])
def test_most_facts_wish_and_end_nothing(fact: Fact) -> None:
    """Time, for one, raises no banner by itself; neither does a server that starts."""
    assert wishes(fact.envelope.data) == ()
    assert not any(ended(fact.envelope.data, code) for code in BannerCode)


def test_two_machines_are_no_wish() -> None:
    """What it makes of the banner depends on how often it was noticed before."""
    fact = Ledger().status("acme-1", "acme", Transition.CLONED)
    assert wishes(fact.envelope.data) == ()


def test_each_end_of_a_machine_takes_the_banners_that_nothing_else_would() -> None:
    """All go with a server for good; of a stolen one what it shares is still told."""
    ledger = Ledger()
    facts = {
        "gone": ledger.deprovisioned("acme-1", "acme"),
        "revoked": ledger.revoked("acme-1", "acme"),
        "replaced": ledger.reenrolled("acme-1", "acme"),
    }
    left = {
        name: {code for code in BannerCode if not ended(fact.envelope.data, code)}
        for name, fact in facts.items()
    }
    reuse = {BannerCode.API_KEY_REUSE, BannerCode.OAUTH_REUSE}
    assert left["gone"] == set()
    assert left["revoked"] == reuse
    assert left["replaced"] == reuse | {BannerCode.KEY_MISSING, BannerCode.SERVER_SILENT}
