"""The sentences of each banner."""

from datetime import UTC, datetime

import pytest

from bus_schemas.events import BannerRaised
from bus_schemas.events.banner import BannerCode, Severity, Sharing
from bus_schemas.fields import Basis
from platform_handlers.banner.words import SEVERITY_WORDS, Words, words_for

GRANT = (Basis.OAUTH_GRANT, Basis.OAUTH_ACCOUNT)
ACCOUNT = (Basis.OAUTH_ACCOUNT,)


def words(
    code: BannerCode, sharing: Sharing | None = None, slot: str | None = "anthropic"
) -> Words:
    """Return the words of a banner on acme-1."""
    return words_for(
        BannerRaised(
            owner_id="acme",
            banner_id="acme-1_x_y",
            server_id="acme-1",
            slot_id=slot,
            code=code,
            severity=code.severity,
            colour=code.severity.colour,
            revision=1,
            sharing=sharing or Sharing(),
            since_time=datetime(2026, 11, 23, tzinfo=UTC),
        )
    )


@pytest.mark.parametrize("code", BannerCode)
@pytest.mark.parametrize("slot", ["anthropic", None])
def test_every_banner_says_what_is_the_matter_and_what_to_do(
    code: BannerCode, slot: str | None
) -> None:
    """Three whole sentences that name the server, without a colour in them."""
    said = words(code, slot=slot)
    assert "acme-1" in said.title
    assert "acme-1" in said.explanation
    for text in (said.explanation, said.what_to_do):
        assert text.endswith(".")
    for colour in ("amber", "blue", "yellow"):
        assert colour not in f"{said}".lower()
    assert max(len(said.title), len(said.what_to_do)) <= 500


@pytest.mark.parametrize("severity", Severity)
def test_severity_is_said_in_words(severity: Severity) -> None:
    """Whoever sees no colour reads it."""
    assert SEVERITY_WORDS[severity]


def test_a_shared_grant_and_a_shared_account_are_different_matters() -> None:
    """One signs servers out, the other shares limits; each has its own remedy."""
    pair = Sharing(own_servers=("acme-2",), own_servers_total=1, bases=GRANT)
    grant = words(BannerCode.OAUTH_REUSE, pair)
    account = words(BannerCode.OAUTH_REUSE, pair.model_copy(update={"bases": ACCOUNT}))
    assert "single-use" in grant.explanation
    assert "separately" in grant.what_to_do
    assert "limits" in account.explanation
    assert "intended" in account.what_to_do
    assert grant.title == "acme-1 and acme-2 will sign each other out"
    assert account.title == "acme-1 and acme-2 share one account"


@pytest.mark.parametrize(
    ("sharing", "phrase"),
    [
        (Sharing(own_servers=("a",), own_servers_total=1), "also on a."),
        (Sharing(own_servers=("a", "b", "c"), own_servers_total=3), "on a, b and c."),
        (Sharing(own_servers=("a", "b", "c", "d"), own_servers_total=4), "a, b, c and 1 more of"),
        (
            Sharing(own_servers=tuple(f"s{n}" for n in range(20)), own_servers_total=101),
            "s0, s1, s2 and at least 98 more of your servers",
        ),
        (Sharing(own_servers_total=21), "on at least 21 of your other servers"),
        (Sharing(own_servers_total=2), "on 2 of your other servers"),
        (
            Sharing(own_servers=("a",), own_servers_total=1, other_owners=2),
            "on a and on servers of 2 to 5",
        ),
        (Sharing(other_owners=1), "on servers of another customer"),
        (Sharing(other_owners=6), "6 to 20 other customers"),
        (Sharing(other_owners=21), "21 to 100 other customers"),
        (Sharing(other_owners=101), "more than 100 other customers"),
        (Sharing(), "also elsewhere."),
    ],
)
def test_company_is_named_if_ours_and_counted_if_not(sharing: Sharing, phrase: str) -> None:
    """Own servers by name, up to three; other owners only as a bucket."""
    assert phrase in words(BannerCode.API_KEY_REUSE, sharing).explanation


def test_a_key_that_a_stranger_holds_is_treated_as_leaked() -> None:
    """Dismissing is the advice only where the sharing can be one's own."""
    own = Sharing(own_servers=("acme-2",), own_servers_total=1)
    assert "dismiss" in words(BannerCode.API_KEY_REUSE, own).what_to_do
    foreign = words(BannerCode.API_KEY_REUSE, Sharing(other_owners=1))
    assert "leaked" in foreign.what_to_do
    assert "and others" in foreign.title
