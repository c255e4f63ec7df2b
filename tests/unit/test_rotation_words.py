"""The sentences about rotations that are stuck or due."""

from datetime import UTC, datetime

import pytest

from bus_schemas.events import BannerRaised
from bus_schemas.events.banner import BannerCode, RotationNote
from platform_handlers.banner.words import Words, words_for

STUCK, DUE = BannerCode.ROTATION_STUCK, BannerCode.ROTATION_DUE
LONG = "x" * 63


def words(
    code: BannerCode,
    note: RotationNote | None,
    server: str = "acme-1",
    slot: str = "anthropic",
) -> Words:
    """Return the words of a banner about a slot."""
    return words_for(
        BannerRaised(
            owner_id="acme",
            banner_id="acme-1_anthropic_x",
            server_id=server,
            slot_id=slot,
            code=code,
            severity=code.severity,
            colour=code.severity.colour,
            revision=1,
            rotation=note,
            since_time=datetime(2026, 11, 23, tzinfo=UTC),
        )
    )


def test_a_rotation_that_waits_for_the_server_sends_its_owner_there() -> None:
    """Nothing at the provider can help; and nothing may be revoked yet."""
    said = words(STUCK, RotationNote(revision=4, waits_for="server"))
    assert said.explanation.startswith("Revision 4 for slot anthropic of acme-1 was sent")
    assert "acme-1 has not taken it" in said.explanation
    assert "Do not revoke the old credential yet" in said.what_to_do
    assert "`byok-vps doctor`" in said.what_to_do
    assert "`byok key set acme-1 anthropic`" in said.what_to_do


def test_a_rotation_that_waits_for_the_provider_can_be_asked_forced_or_given_up() -> None:
    """With the exact commands, since the choice is the owner's."""
    said = words(STUCK, RotationNote(revision=4, waits_for="provider"))
    assert "the provider has not said that it is good" in said.explanation
    assert "Do not revoke the old credential yet" in said.what_to_do
    for command in ("`byok key verify acme-1 anthropic`", "`--force`", "`byok key abort acme-1"):
        assert command in said.what_to_do


def test_a_key_that_is_due_is_only_a_reminder() -> None:
    """It says so, how old the key is, and in which order to renew it."""
    soon = words(DUE, RotationNote(revision=3, age_days=83))
    due = words(DUE, RotationNote(revision=3, age_days=90))
    assert soon.title == "The key on acme-1 is soon due to be renewed"
    assert due.title == "Time to renew the key on acme-1"
    assert "slot anthropic of acme-1 (revision 3) was put in at least 83 days" in soon.explanation
    assert "at least 90 days ago" in due.explanation
    for said in (soon, due):
        assert "Nothing stops working" in said.explanation
        assert "`byok key set acme-1 anthropic`" in said.what_to_do
        assert "`byok key status acme-1 anthropic`" in said.what_to_do


@pytest.mark.parametrize("code", [STUCK, DUE])
def test_a_banner_of_a_build_that_noted_nothing_still_makes_sense(code: BannerCode) -> None:
    """Whoever folds an older stream reads whole sentences."""
    said = f"{words(code, None)}"
    assert "None" not in said
    assert "revision" not in said


@pytest.mark.parametrize("waits_for", ["server", "provider"])
@pytest.mark.parametrize("code", [STUCK, DUE])
def test_the_longest_names_fit_what_the_api_says(code: BannerCode, waits_for: str) -> None:
    """Titles and advice are short texts of at most 500 characters."""
    said = words(code, RotationNote(revision=2**53 - 1, waits_for=waits_for), LONG, LONG)
    assert max(len(said.title), len(said.what_to_do)) <= 500
