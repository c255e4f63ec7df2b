"""The board: the newest state of every banner, apart by owner."""

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from random import Random
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bus_schemas.envelope import Envelope, wrap
from bus_schemas.event import Event
from bus_schemas.events import (
    BannerCleared,
    BannerDismissed,
    BannerEvent,
    BannerRaised,
    BannerReopened,
    BannerUpdated,
    ClockTicked,
)
from bus_schemas.events.banner import BannerCode
from bus_schemas.ids import derived_id
from platform_handlers.banner.board import Board
from platform_handlers.banner.view import list_of, view_of

AT = datetime(2026, 11, 23, 12, tzinfo=UTC)
KINDS = (BannerRaised, BannerUpdated, BannerReopened, BannerCleared)


def said(
    kind: type[BannerEvent] = BannerRaised,
    revision: int = 1,
    *,
    owner: str = "acme",
    code: BannerCode = BannerCode.API_KEY_REUSE,
    **more: Any,  # noqa: ANN401 (as the event has them)
) -> Envelope[Event]:
    """Return one banner event about acme-1."""
    if kind is BannerDismissed:
        more = {"dismissed_by": "acme", "why": "shared on purpose"} | more
    fields: dict[str, Any] = {
        "owner_id": owner,
        "banner_id": f"acme-1_anthropic_{code.lower().replace('_', '-')}",
        "server_id": "acme-1",
        "slot_id": "anthropic",
        "code": code,
        "severity": code.severity,
        "colour": code.severity.colour,
        "revision": revision,
        "since_time": AT + timedelta(minutes=revision),
    }
    event = kind(**(fields | more))
    return wrap(event, id_=derived_id(owner, code, str(revision)), at=AT)


def board_of(envelopes: Sequence[Envelope[Event]]) -> Board:
    """Return the board after *envelopes*, from sequence 1 on."""
    board = Board()
    for sequence, envelope in enumerate(envelopes, 1):
        board.apply(envelope, sequence)
    return board


@given(st.permutations(list(range(1, 6))), st.randoms())
def test_the_newest_revision_wins_however_they_arrive(order: list[int], random: Random) -> None:
    """A late `raised` must not undo a `cleared`: order is by revision, never by arrival."""
    kinds = [random.choice(KINDS) for _ in order]
    board = board_of([said(kinds[revision - 1], revision) for revision in order])
    [entry] = board.all("acme")
    assert entry.banner.revision == 5
    assert type(entry.banner) is kinds[4]


def test_a_repeated_event_is_no_news() -> None:
    """A message published twice tells listeners nothing new."""
    board = Board()
    assert board.apply(said(), 1) is not None
    assert board.apply(said(), 2) is None
    assert board.apply(said(revision=3), 3) is not None
    assert board.apply(said(revision=2), 4) is None


@pytest.mark.parametrize(
    ("kind", "is_open"),
    [
        (BannerRaised, True),
        (BannerUpdated, True),
        (BannerReopened, True),
        (BannerDismissed, False),
        (BannerCleared, False),
    ],
)
def test_what_is_dismissed_or_cleared_is_not_open(
    kind: type[BannerEvent], *, is_open: bool
) -> None:
    """It stays on the board for the history, though."""
    board = board_of([said(kind)])
    assert len(board.open_banners("acme")) == is_open
    assert len(board.all("acme")) == 1


def test_amber_comes_before_blue_and_newer_before_older() -> None:
    """What matters most is on top; what is closed is below."""
    board = board_of(
        [
            said(code=BannerCode.OAUTH_REUSE),
            said(revision=2, code=BannerCode.ROTATION_DUE),
            said(revision=3, code=BannerCode.API_KEY_REUSE),
            said(revision=4, code=BannerCode.KEY_REJECTED),
            said(BannerCleared, 9, code=BannerCode.KEY_MISSING),
        ]
    )
    codes = [entry.banner.code for entry in board.all("acme")]
    assert codes == [
        BannerCode.KEY_REJECTED,
        BannerCode.OAUTH_REUSE,
        BannerCode.API_KEY_REUSE,
        BannerCode.ROTATION_DUE,
        BannerCode.KEY_MISSING,
    ]


def test_owners_never_see_each_other() -> None:
    """Not even when two banners have the same id, and not for owners nobody has heard of."""
    board = board_of([said(owner="acme"), said(BannerCleared, 2, owner="globex")])
    banner_id = "acme-1_anthropic_api-key-reuse"
    mine, theirs = board.get("acme", banner_id), board.get("globex", banner_id)
    assert mine is not None
    assert theirs is not None
    assert (mine.banner.revision, theirs.banner.revision) == (1, 2)
    assert board.get("nobody", banner_id) is None
    assert board.get("acme", "unknown") is None
    assert list(board.all("nobody")) == []
    assert [e.banner.owner_id for e in board.since("acme", 0) or ()] == ["acme"]


def test_other_events_and_unreadable_ones_only_move_the_cursor() -> None:
    """The position is kept; nothing appears."""
    board = Board()
    assert board.apply(wrap(ClockTicked(minute=1), id_=derived_id("x"), at=AT), 7) is None
    board.pass_by(8)
    assert (board.oldest, board.cursor) == (7, 8)
    assert list(board.all("acme")) == []


def test_coming_back_tells_each_change_once_in_stream_order() -> None:
    """A banner that changed twice meanwhile is told as it is now."""
    board = board_of(
        [
            said(),
            said(code=BannerCode.OAUTH_REUSE, revision=2),
            said(BannerUpdated, 3),
            said(BannerCleared, 4),
        ]
    )
    assert [e.sequence for e in board.since("acme", 0) or ()] == [2, 4]
    assert [e.sequence for e in board.since("acme", 2) or ()] == [4]
    assert list(board.since("acme", 4) or ()) == []


@pytest.mark.parametrize(("cursor", "bridged"), [(4, False), (5, True), (7, True), (8, False)])
def test_a_gap_that_cannot_be_bridged_is_said(cursor: int, *, bridged: bool) -> None:
    """Older than what the stream still held, or ahead of it: then read everything anew."""
    board = Board()
    for sequence in (6, 7):
        board.apply(said(revision=sequence), sequence)
    assert (board.since("acme", cursor) is not None) == bridged


def test_an_empty_board_can_be_listened_to_from_its_start() -> None:
    """Nothing was missed where nothing was said."""
    assert list(Board().since("acme", 0) or ()) == []


def test_a_view_carries_the_words_and_the_dismissal() -> None:
    """The API and the page show the same."""
    board = board_of([said(BannerDismissed), said(revision=2, code=BannerCode.OAUTH_REUSE)])
    found = list_of(board, "acme")
    assert found.cursor == 2
    first, second = found.banners
    assert (first.why, first.dismissed_by) == (None, None)
    assert (second.why, second.dismissed_by) == ("shared on purpose", "acme")
    assert second == view_of(board.all("acme")[1])
    assert second.title
