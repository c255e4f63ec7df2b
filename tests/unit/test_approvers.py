"""Who may approve a copy: a commit adds, what a server tells of its pins takes away."""

from dataclasses import replace

from platform_handlers.evaluator.approvers import ToldPins, approvers, fold_pins

OWNER, LEFT, NEW = "A" * 20, "B" * 20, "C" * 20


def test_what_a_locked_server_gave_up_approves_no_more() -> None:
    """It commits nothing; the commit from before still names the key."""
    told = fold_pins(None, (OWNER, LEFT), (OWNER,), 4)
    assert approvers((OWNER, LEFT), 4, told) == {OWNER}
    assert approvers((OWNER, LEFT), 4, None) == {OWNER, LEFT}


def test_what_a_server_tells_adds_nobody() -> None:
    """Whoever holds its token could tell a key of theirs, or that one given up is back."""
    told = fold_pins(None, (OWNER, LEFT), (OWNER, NEW), 4)
    assert approvers((OWNER, LEFT), 4, told) == {OWNER}
    again = fold_pins(told, (OWNER, LEFT), (OWNER, LEFT, NEW), 4)
    assert approvers((OWNER, LEFT), 4, again) == {OWNER}
    assert approvers((OWNER, LEFT, NEW), 4, again) == {OWNER, NEW}


def test_a_later_start_has_committed_what_it_obeys() -> None:
    """It read its pins when it started; what was told before that is over."""
    told = fold_pins(None, (OWNER, LEFT), (OWNER,), 4)
    assert approvers((OWNER, LEFT), 5, told) == {OWNER, LEFT}
    later = fold_pins(told, (OWNER, LEFT), (OWNER, LEFT, NEW), 5)
    assert later == ToldPins(5, frozenset({OWNER, LEFT, NEW}), frozenset())
    assert fold_pins(later, (OWNER, LEFT), (NEW,), 4) == later


def test_a_key_may_come_and_go_before_any_commit_tells_of_it() -> None:
    """That commit, still on its way, then names it; and who reads all facts anew knows none."""
    come = fold_pins(None, (), (OWNER, LEFT), 4)
    gone = fold_pins(come, (), (OWNER,), 4)
    assert approvers((OWNER, LEFT), 4, gone) == {OWNER}
    assert gone == replace(come, pinned=frozenset({OWNER}), dropped=frozenset({LEFT}))
