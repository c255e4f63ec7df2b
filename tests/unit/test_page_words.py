"""What the page shows: where cards stand, how many there are, and how slots stand."""

from datetime import UTC, datetime, timedelta

import pytest

from bus_schemas.api import BannerView, SlotStep, SlotView, StepView
from bus_schemas.events.banner import BannerCode, BannerState, Sharing
from bus_schemas.fields import CredentialKind
from platform_handlers.dashboard.shown import (
    HISTORY,
    Shown,
    commands_marked,
    counts_of,
    in_list,
    provider_name,
    step_words,
)

AT = datetime(2026, 11, 23, tzinfo=UTC)


def view(
    code: BannerCode = BannerCode.OAUTH_REUSE,
    state: BannerState = BannerState.RAISED,
    minute: int = 0,
) -> BannerView:
    """Return a banner as the page gets it."""
    return BannerView(
        banner_id=f"s_{minute}_x",
        server_id="s",
        slot_id=None,
        code=code,
        severity=code.severity,
        colour=code.severity.colour,
        state=state,
        revision=1,
        sharing=Sharing(),
        since_time=AT + timedelta(minutes=minute),
        changed_at=AT + timedelta(minutes=minute),
        title="t",
        explanation="e",
        what_to_do="w",
    )


def slot(step: SlotStep, reason: str | None = None) -> SlotView:
    """Return a slot whose newest step is *step*."""
    taken = StepView(step=step, revision=1, at=AT, reason=reason)
    return SlotView(
        slot_id="a", provider="openai", kind=CredentialKind.API_KEY, revision=1, steps=(taken,)
    )


@pytest.mark.parametrize("code", BannerCode)
def test_the_page_says_when_a_dismissed_banner_comes_back(code: BannerCode) -> None:
    """Sharing does with a new holder, everything else when it happens again."""
    shown = Shown(view(code))
    reuse = code in {BannerCode.API_KEY_REUSE, BannerCode.OAUTH_REUSE}
    assert ("anyone new joins" in shown.comes_back) == reuse
    assert ("Shared" in shown.reason) == reuse


def test_ranks_put_amber_first_and_the_newest_of_each_on_top() -> None:
    """The script sorts by them as text, so they must sort as text."""
    views = [view(BannerCode.API_KEY_REUSE, minute=3), view(minute=1), view(minute=2)]
    assert [shown.banner for shown in in_list(views, "open")] == [views[2], views[1], views[0]]


def test_history_is_short_and_the_last_cleared_comes_first() -> None:
    """A blue one that was cleared later stands above an amber one."""
    views = [view(state=BannerState.CLEARED, minute=m) for m in range(20)]
    views.append(view(BannerCode.API_KEY_REUSE, BannerState.CLEARED, 30))
    shown = in_list(views, "cleared")
    assert len(shown) == HISTORY == counts_of(views).cleared
    assert shown[0].banner is views[-1]


@pytest.mark.parametrize(
    ("codes", "sentence"),
    [
        ([], "All quiet."),
        ([BannerCode.OAUTH_REUSE], "1 needs attention"),
        ([BannerCode.OAUTH_REUSE] * 2, "2 need attention"),
        ([BannerCode.ROTATION_DUE], "1 for your information"),
        (
            [BannerCode.OAUTH_REUSE, BannerCode.ROTATION_DUE],
            "1 needs attention, 1 for your information",
        ),
    ],
)
def test_the_summary_counts_what_is_open(codes: list[BannerCode], sentence: str) -> None:
    """Dismissed and cleared ones are counted apart."""
    views = [view(code, minute=at) for at, code in enumerate(codes)]
    views += [view(state=BannerState.DISMISSED), view(state=BannerState.CLEARED)]
    counts = counts_of(views)
    assert counts.sentence == sentence
    assert (counts.open, counts.dismissed, counts.cleared) == (len(codes), 1, 1)


@pytest.mark.parametrize("state", BannerState)
def test_every_state_has_its_list_and_every_severity_its_words(state: BannerState) -> None:
    """Nothing can fall off the page."""
    shown = Shown(view(state=state))
    assert shown in in_list([shown.banner], shown.list)
    assert shown.severity == "Needs attention"


@pytest.mark.parametrize("step", SlotStep)
def test_green_is_for_the_applied_receipt_alone(step: SlotStep) -> None:
    """Neither sending nor storing nor a test proves that a key is in use."""
    good = step_words(slot(step)).tone == "good"
    assert good == (step in {SlotStep.IN_USE, SlotStep.DRAINED})


def test_a_refusal_says_why() -> None:
    """In words; a code that this build does not know is shown readably."""
    assert "byok-vps trust" in step_words(slot(SlotStep.REJECTED, "owner_key_not_pinned")).more
    assert step_words(slot(SlotStep.REJECTED, "brand_new")).more == "Brand new."
    assert step_words(slot(SlotStep.VERIFIED, "valid")).more == ""


def test_commands_are_set_as_code_and_everything_is_escaped() -> None:
    """A sentence may hold what somebody else chose."""
    marked = commands_marked("run `byok <x>` or <b>")
    assert marked == "run <code>byok &lt;x&gt;</code> or &lt;b&gt;"


def test_providers_are_shown_as_people_know_them() -> None:
    """An unlisted provider shows its id."""
    assert provider_name("openai") == "OpenAI"
    assert provider_name("unheard-of") == "unheard-of"
