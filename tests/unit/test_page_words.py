"""What the page shows: where cards stand, how many there are, and how slots stand."""

from datetime import UTC, datetime, timedelta

import pytest

from bus_schemas.api import BannerView, SlotStep, SlotView, StepView
from bus_schemas.events.banner import BannerCode, BannerState, Sharing
from bus_schemas.events.health import Receipt, Validity
from bus_schemas.fields import CredentialKind
from platform_handlers.dashboard.shown import (
    HISTORY,
    Shown,
    commands_marked,
    counts_of,
    in_list,
    provider_name,
    receipt_words,
    silence_words,
    slot_words,
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
    """Sharing does with a new holder, the rest when it happens again; an old key at 90 days."""
    shown = Shown(view(code))
    assert shown.comes_back.startswith("It comes back ")
    assert ("90 days" in shown.comes_back) == (code is BannerCode.ROTATION_DUE)
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
    """Neither sending nor storing nor a test proves that a key is in use, nor does `drained`."""
    good = step_words(slot(step)).tone == "good"
    assert good == (step is SlotStep.IN_USE)


def test_a_refusal_says_why() -> None:
    """In words; a code that this build does not know is shown readably."""
    assert "byok-vps trust" in step_words(slot(SlotStep.REJECTED, "owner_key_not_pinned")).more
    assert step_words(slot(SlotStep.REJECTED, "brand_new")).more == "Brand new."


def test_the_old_credential_may_be_revoked_once_that_was_told() -> None:
    """In any order with the receipt, whatever was said after it, and not of a first one."""
    drained, used = (
        StepView(step=step, revision=2, at=AT) for step in (SlotStep.DRAINED, SlotStep.IN_USE)
    )
    for steps in ((drained,), (drained, used), (used, drained, used)):
        rotated = slot(SlotStep.SENT).model_copy(update={"steps": steps})
        assert "may be revoked now" in step_words(rotated).more
    assert "revoked" not in step_words(slot(SlotStep.DRAINED)).more
    promoted = StepView(step=SlotStep.VERIFIED, revision=2, at=AT, reason="valid", promoted=True)
    tested = slot(SlotStep.SENT).model_copy(update={"steps": (promoted,)})
    assert (step_words(tested).label, step_words(tested).tone) == ("Tested", "going")


def test_nothing_is_green_that_may_not_be_used_now() -> None:
    """A receipt of yesterday says nothing of a slot that an order, or the provider, stopped."""
    used = slot(SlotStep.IN_USE)
    assert slot_words(used) == step_words(used)
    assert slot_words(used, locked=True).label == "Locked"
    assert slot_words(used.model_copy(update={"stopped": True})).label == "Stopped"
    refused = {"in_use": 1, "validity": Validity.INVALID}
    assert slot_words(used.model_copy(update=refused)).tone == "bad"
    older = refused | {"in_use": 0}  # by a report from before this revision was promoted
    assert slot_words(used.model_copy(update=older)).tone == "good"


def test_a_newer_one_on_its_way_leaves_the_one_in_use_alone() -> None:
    """And the page says which that is."""
    taken = StepView(step=SlotStep.STORED, revision=2, at=AT)
    waiting = slot(SlotStep.SENT).model_copy(update={"steps": (taken,), "in_use": 1})
    assert "Revision 1 stays in use" in slot_words(waiting).more
    assert slot_words(waiting.model_copy(update={"in_use": 0})).more == ""


@pytest.mark.parametrize(("tag", "shown"), [("00c0ffee", " (00c0ffee)."), (None, "revision 2.")])
def test_a_receipt_names_the_call_and_the_credential(tag: str | None, shown: str) -> None:
    """The time, the provider's status, the revision, and its short tag once that is told."""
    said = receipt_words(Receipt(revision=2, short_tag=tag, provider_status=200, at=AT))
    assert said.startswith("Last answered call: 23 Nov 2026, 00:00 UTC, status 200, with revision")
    assert said.endswith(shown)


def test_what_a_silent_server_said_last_has_a_date() -> None:
    """A report of yesterday beside a green word would look like one of now."""
    assert silence_words(None, AT) == ""
    assert silence_words(AT - timedelta(minutes=3), AT) == ""
    said = silence_words(AT - timedelta(minutes=4), AT)
    assert said.startswith("Last heard of on 22 Nov 2026, 23:56 UTC.")


def test_commands_are_set_as_code_and_everything_is_escaped() -> None:
    """A sentence may hold what somebody else chose."""
    marked = commands_marked("run `byok <x>` or <b>")
    assert marked == "run <code>byok &lt;x&gt;</code> or &lt;b&gt;"


def test_providers_are_shown_as_people_know_them() -> None:
    """An unlisted provider shows its id."""
    assert provider_name("openai") == "OpenAI"
    assert provider_name("unheard-of") == "unheard-of"
