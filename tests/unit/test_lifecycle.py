"""One banner at a time: raised, updated, dismissed, reopened, cleared."""

from dataclasses import replace
from datetime import UTC, datetime

import pytest

from bus_schemas.events import BannerDismissed, BannerEvent
from bus_schemas.events.banner import BannerCode, BannerState, KeyChanges, Sharing
from bus_schemas.ids import derived_id
from platform_handlers.banner.lifecycle import (
    FORGET_PARTNER_TICKS,
    Banner,
    BannerKey,
    Cause,
    Content,
    Request,
    Wanted,
    announcement,
    dismiss,
    settle,
    undo_dismissal,
)

KEY = BannerKey("acme-1", "main", BannerCode.API_KEY_REUSE)
AT = datetime(2026, 11, 23, tzinfo=UTC)


def cause(sequence: int, tick: int = 0) -> Cause:
    """The fact with this sequence."""
    event_id = derived_id("fact", str(sequence))
    return Cause(sequence, AT, event_id, event_id, tick)


def wanted(*servers: str) -> Wanted:
    """Sharing with these servers of one's own."""
    sharing = Sharing(own_servers=servers, own_servers_total=len(servers))
    return Wanted(Content(sharing=sharing), frozenset(servers))


def then(old: Banner | None, want: Wanted | None, at: Cause) -> Banner:
    """Settle, where there must be a banner."""
    new = settle(old, want, KEY, "acme", at)
    assert new is not None
    return new


def raised(*servers: str) -> Banner:
    """A banner raised by fact 1."""
    return then(None, wanted(*servers), cause(1))


def put_aside(banner: Banner, *servers: str, at: int = 2, seen: int | None = None) -> Banner:
    """Somebody dismisses what they saw, with these partners joined at fact 1."""
    request = Request(seen or banner.revision, "ann", "on purpose", dict.fromkeys(servers, 1))
    return dismiss(banner, request, cause(at))


def test_nothing_wanted_and_nothing_there_is_nothing() -> None:
    """A banner that never stood is not cleared."""
    assert settle(None, None, KEY, "acme", cause(1)) is None


def test_raised_updated_cleared_raised() -> None:
    """The plain story; each step carries the sequence of its cause."""
    story = [raised("b")]
    story.append(then(story[-1], wanted("b", "c"), cause(2)))
    story.append(then(story[-1], None, cause(3)))
    story.append(then(story[-1], wanted("b"), cause(4)))
    assert [(b.state.value, b.revision) for b in story] == [
        ("raised", 1),
        ("updated", 2),
        ("cleared", 3),
        ("raised", 4),
    ]


@pytest.mark.parametrize("want", [wanted("b"), None])
def test_what_does_not_change_is_not_said_again(want: Wanted | None) -> None:
    """The same content gives the very same banner."""
    banner = then(raised("b"), want, cause(2))
    assert then(banner, want, cause(3)) is banner


def test_a_dismissed_banner_stays_so_while_its_partners_are_accepted_ones() -> None:
    """One that leaves, and is back soon, is not new; the banner tells the smaller list."""
    banner = put_aside(raised("b", "c"), "b", "c")
    left = then(banner, wanted("b"), cause(3, tick=5))
    back = then(left, wanted("b", "c"), cause(4, tick=6))
    assert [b.state for b in (banner, left, back)] == [BannerState.DISMISSED] * 3
    assert [b.revision for b in (banner, left, back)] == [2, 3, 4]
    assert back.dismissal == banner.dismissal


def test_a_new_partner_reopens_it() -> None:
    """A dismissal is for those who were there, and for nobody else."""
    banner = then(put_aside(raised("b"), "b"), wanted("b", "c"), cause(3))
    assert (banner.state, banner.dismissal) == (BannerState.REOPENED, None)


def test_a_new_partner_reopens_it_even_where_the_words_stay() -> None:
    """Another owner's second server changes no word, but it is new."""
    banner = put_aside(raised("b"), "b")
    same_words = replace(wanted("b"), partners=frozenset({"b", "globex-9"}))
    assert then(banner, same_words, cause(3)).state is BannerState.REOPENED


def test_remembering_who_left_is_not_an_event() -> None:
    """The memory of partners changes without a revision, so nothing is published."""
    same_words = replace(wanted("b"), partners=frozenset({"b", "globex-9"}))
    banner = put_aside(then(None, same_words, cause(1)), "b", "globex-9")
    without = then(banner, wanted("b"), cause(3, tick=7))
    assert without != banner
    assert without.revision == banner.revision
    assert then(without, wanted("b"), cause(4, tick=8)) is without


def test_a_partner_gone_for_ninety_days_is_new_again() -> None:
    """Nobody is remembered for ever."""
    banner = then(put_aside(raised("b", "c"), "b", "c"), wanted("b"), cause(3, tick=0))
    late = then(banner, wanted("b"), cause(4, tick=FORGET_PARTNER_TICKS + 1))
    assert late.dismissal is not None
    assert late.dismissal.covered == {"b": None}
    assert then(late, wanted("b", "c"), cause(5)).state is BannerState.REOPENED


def test_cleared_is_said_of_a_dismissed_banner_and_its_memory_lasts() -> None:
    """Accepted partners that come back are accepted; one more than those is not."""
    cleared = then(put_aside(raised("b"), "b"), None, cause(3, tick=1))
    assert cleared.state is BannerState.CLEARED
    assert then(cleared, wanted("b"), cause(4)).state is BannerState.DISMISSED
    assert then(cleared, wanted("b", "c"), cause(4)).state is BannerState.RAISED
    late = cause(4, tick=FORGET_PARTNER_TICKS + 2)
    assert then(cleared, wanted("b"), late).state is BannerState.RAISED


def test_a_dismissal_without_partners_silences_one_case_only() -> None:
    """A server that is silent again is silent anew, whatever was dismissed before."""
    silent = put_aside(then(None, Wanted(), cause(1)))
    assert then(silent, Wanted(), cause(3)) is silent
    again = then(then(silent, None, cause(3)), Wanted(), cause(4))
    assert again.state is BannerState.RAISED


def test_a_dismissal_of_an_older_revision_does_not_cover_a_newcomer() -> None:
    """Nobody dismisses what they have not seen."""
    banner = then(raised("b"), wanted("b", "c"), cause(3))
    request = Request(1, "ann", "", {"b": 1, "c": 3})
    assert dismiss(banner, request, cause(4)) is banner


def test_a_dismissal_of_an_older_revision_counts_if_only_fewer_are_left() -> None:
    """Somebody left while the person was reading: they saw all that is there."""
    banner = then(raised("b", "c"), wanted("b"), cause(3))
    assert put_aside(banner, "b", at=4, seen=1).state is BannerState.DISMISSED


def test_a_newcomer_that_changed_no_word_is_covered_by_the_newest_revision() -> None:
    """Else a banner of a large group could never be dismissed."""
    request = Request(1, "ann", "", {"b": 1, "globex-9": 5})
    assert dismiss(raised("b"), request, cause(6)).state is BannerState.DISMISSED


def noticed(times: int, changes: KeyChanges | None = None) -> Wanted:
    """Something of which each time is a case of its own, with these words."""
    return Wanted(Content(keys=changes), times=times)


def test_a_case_that_changes_no_word_is_counted_without_an_event() -> None:
    """Thirty refusals an hour are not thirty banners, and none is forgotten."""
    first = then(None, noticed(1), cause(1))
    second = then(first, noticed(2), cause(2))
    assert (second.times, second.revision, second.state) == (2, 1, BannerState.RAISED)


def test_a_case_after_a_dismissal_reopens_even_where_the_words_stay() -> None:
    """One dismissal must not silence every later case."""
    dismissed = put_aside(then(None, noticed(1), cause(1)))
    again = then(dismissed, noticed(2), cause(3))
    assert (again.state, again.times, again.dismissal) == (BannerState.REOPENED, 2, None)


def test_a_dismissal_covers_the_cases_that_changed_no_word() -> None:
    """The person saw the newest words; what was counted silently since is in them."""
    counted = then(then(None, noticed(1), cause(1)), noticed(2), cause(2))
    dismissed = put_aside(counted, at=3)
    assert dismissed.state is BannerState.DISMISSED
    assert then(dismissed, noticed(3), cause(4)).state is BannerState.REOPENED


def test_a_dismissal_of_older_words_does_not_cover_a_newer_case() -> None:
    """It came up while the person was reading."""
    changed = then(then(None, noticed(1), cause(1)), noticed(2, KeyChanges()), cause(2))
    assert changed.state is BannerState.UPDATED
    assert put_aside(changed, at=3, seen=1) is changed


def test_a_late_dismissal_of_a_case_that_is_over_does_not_hide_the_next() -> None:
    """It named the silence of then; this one is another."""
    again = then(then(then(None, Wanted(), cause(1)), None, cause(2)), Wanted(), cause(3))
    assert dismiss(again, Request(1, "ann", "", {}), cause(4)) is again


@pytest.mark.parametrize("revision", [2, 2**53 - 1])
def test_a_revision_nobody_has_seen_dismisses_nothing(revision: int) -> None:
    """A request cannot run ahead of what was published."""
    banner = raised("b")
    assert dismiss(banner, Request(revision, "ann", "", {"b": 1}), cause(9)) is banner


def test_only_what_stands_open_is_dismissed_and_only_what_is_dismissed_is_undone() -> None:
    """Repeated requests change nothing."""
    dismissed = put_aside(raised("b"), "b")
    assert put_aside(dismissed, "b", at=3) is dismissed
    cleared = then(raised("b"), None, cause(2))
    assert put_aside(cleared, "b", at=3) is cleared
    reopened = undo_dismissal(dismissed, cause(3))
    assert (reopened.state, reopened.dismissal) == (BannerState.REOPENED, None)
    assert undo_dismissal(reopened, cause(4)) is reopened


@pytest.mark.parametrize("code", list(BannerCode))
@pytest.mark.parametrize("slot", ["", "main", "a-b"])
def test_a_banner_id_leads_back_to_its_key(code: BannerCode, slot: str) -> None:
    """Ids in subjects and URLs name exactly one banner."""
    key = BannerKey("acme-1", slot, code)
    assert BannerKey.parse(key.banner_id) == key


@pytest.mark.parametrize("text", ["", "acme-1", "a_b", "a_b_no-such-code", "a_b_OAUTH_REUSE"])
def test_what_is_no_banner_id_has_no_key(text: str) -> None:
    """A made-up id finds nothing, in upper case neither."""
    assert BannerKey.parse(text) is None


def test_an_announcement_depends_on_the_banner_and_its_cause_alone() -> None:
    """Its id comes from the place in the ledger, which no sender can choose."""
    banner = raised("b")
    one = announcement(banner, cause(1))
    forged = replace(cause(2), event_id=cause(1).event_id)
    assert announcement(banner, cause(1)) == one
    assert announcement(banner, forged).id != one.id
    assert one.causationid == cause(1).event_id
    assert one.severitynumber == 9


def test_a_dismissal_tells_who_and_why() -> None:
    """And which partners it covered stays inside."""
    event = announcement(put_aside(raised("b"), "b", "globex-9"), cause(2))
    assert isinstance(event.data, BannerDismissed)
    assert (event.data.dismissed_by, event.data.why) == ("ann", "on purpose")
    assert "globex" not in event.model_dump_json()


def test_a_banner_about_the_server_names_no_slot() -> None:
    """The slot is absent, not empty."""
    key = BannerKey("acme-1", "", BannerCode.SERVER_SILENT)
    banner = settle(None, Wanted(), key, "acme", cause(1))
    assert banner is not None
    event = announcement(banner, cause(1)).data
    assert isinstance(event, BannerEvent)
    assert event.slot_id is None
