"""The sentences of each banner."""

from datetime import UTC, date, datetime

import pytest

from bus_schemas.events import BannerRaised
from bus_schemas.events.banner import (
    BannerCode,
    Copies,
    CopySign,
    KeyChanges,
    Severity,
    Sharing,
)
from bus_schemas.fields import Basis
from platform_handlers.banner.words import SEVERITY_WORDS, Words, words_for

GRANT = (Basis.OAUTH_GRANT, Basis.OAUTH_ACCOUNT)
ACCOUNT = (Basis.OAUTH_ACCOUNT,)


def words(
    code: BannerCode,
    sharing: Sharing | None = None,
    slot: str | None = "anthropic",
    *,
    copies: Copies | None = None,
    keys: KeyChanges | None = None,
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
            copies=copies,
            keys=keys,
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
    assert max(len(said.title), len(said.what_to_do)) <= 400  # names are up to 63 long; of 500


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


def suspected(*signs: CopySign, times: int = 1) -> Words:
    """The words of a suspicion with these signs, noticed so often."""
    copies = Copies(signs=signs, times=times, last_on=date(2026, 11, 3))
    return words(BannerCode.CLONE_SUSPECTED, slot=None, copies=copies)


def test_a_refused_copy_and_a_running_one_are_different_matters() -> None:
    """The first opened nothing; against the second everything has to be replaced."""
    stale = suspected(CopySign.STALE_DISK)
    assert "opened nothing" in stale.explanation
    assert "if it is acme-1 itself that no longer starts" in stale.explanation
    assert "byok server approve acme-1 CODE" in stale.what_to_do
    running = suspected(CopySign.TWO_RUNNING)
    assert running.title == "Two machines run as acme-1"
    assert "read every credential" in running.explanation
    assert "enrolled anew" in running.what_to_do
    both = suspected(CopySign.STALE_DISK, CopySign.TWO_RUNNING)
    assert (both.title, both.what_to_do) == (running.title, running.what_to_do)
    assert "An older copy asked as well" in both.explanation


@pytest.mark.parametrize(
    ("times", "phrase"),
    [
        (1, "Noticed once, on 3 Nov 2026 (UTC)."),
        (2, "Noticed 2 to 9 times, last on 3 Nov 2026 (UTC)."),
        (1000, "Noticed at least 1000 times, last on 3 Nov 2026 (UTC)."),
    ],
)
def test_a_suspicion_says_how_often_and_when_last(times: int, phrase: str) -> None:
    """Once by mistake, or all the time: that decides what a person does."""
    assert suspected(CopySign.STALE_DISK, times=times).explanation.endswith(phrase)
    assert suspected(CopySign.TWO_RUNNING, times=times).explanation.endswith(phrase)


def test_changed_owner_keys_are_named_as_consoles_print_them() -> None:
    """In fours, to be compared with what the owner has written down."""
    keys = KeyChanges(added=("ABCD" * 5,), removed=("B" * 20, "C" * 20), passing=("D" * 20,))
    said = words(BannerCode.OWNER_KEY_CHANGED, slot=None, keys=keys)
    assert said.title == "acme-1 obeys other keys than before"
    assert "Added: ABCD ABCD ABCD ABCD ABCD." in said.explanation
    assert "Removed: BBBB BBBB BBBB BBBB BBBB, CCCC CCCC CCCC CCCC CCCC." in said.explanation
    assert said.explanation.endswith("removed again: DDDD DDDD DDDD DDDD DDDD.")


def test_a_key_that_came_and_went_has_a_title_of_its_own() -> None:
    """The list is as it was, so "other keys than before" would be wrong."""
    keys = KeyChanges(passing=("D" * 20,))
    said = words(BannerCode.OWNER_KEY_CHANGED, slot=None, keys=keys)
    assert said.title == "acme-1 obeyed another key for a while"


def test_very_many_keys_and_the_longest_names_fit_what_the_api_says() -> None:
    """The first few are named, the rest is counted."""
    keys = KeyChanges(added=("A" * 20,) * 64, removed=("B" * 20,) * 64, passing=("C" * 20,) * 64)
    said = words(BannerCode.OWNER_KEY_CHANGED, slot=None, keys=keys)
    assert said.explanation.count(" and 56 more") == 3
    assert len(said.explanation) < 4000
    assert (
        "more"
        not in words(
            BannerCode.OWNER_KEY_CHANGED, slot=None, keys=KeyChanges(added=("A" * 20,) * 8)
        ).explanation
    )


@pytest.mark.parametrize("reason", [None, "refused_by_provider", "of_a_newer_build"])
def test_a_refused_key_is_the_providers_word(reason: str | None) -> None:
    """Whatever else is known, the key was good and is no longer."""
    said = rejected(reason)
    assert said.title == "The provider refuses the key on acme-1"
    assert "turns it down" in said.explanation


def test_a_sign_in_that_somebody_else_used_is_explained() -> None:
    """Its owner sees a key refused that nobody touched: they must learn of the second holder."""
    said = rejected("invalid_grant")
    assert said.title == "The sign-in on acme-1 has ended"
    assert "slot anthropic of acme-1" in said.explanation
    assert "somebody else used it" in said.explanation
    assert "Sign in separately" in said.what_to_do
    assert "stolen" in said.what_to_do


@pytest.mark.parametrize(
    ("reason", "words"),
    [
        ("refresh_answer_lost", "got lost on its way"),
        ("refresh_token_spent", "another slot of this server"),
    ],
)
def test_a_sign_in_that_ended_by_accident_accuses_nobody(reason: str, words: str) -> None:
    """It may have been this server itself: sign in anew, nothing was stolen."""
    said = rejected(reason)
    assert said.title == "The sign-in on acme-1 has ended"
    assert words in said.explanation
    assert "Sign in anew" in said.what_to_do
    assert "stolen" not in said.what_to_do


def rejected(reason: str | None) -> Words:
    """Return the words of a refused key."""
    code = BannerCode.KEY_REJECTED
    return words_for(
        BannerRaised(
            owner_id="acme",
            banner_id="acme-1_anthropic_key-rejected",
            server_id="acme-1",
            slot_id="anthropic",
            code=code,
            severity=code.severity,
            colour=code.severity.colour,
            revision=1,
            reason=reason,
            since_time=datetime(2026, 11, 23, tzinfo=UTC),
        )
    )
