"""Which revision each call was made with, and who hears of what."""

from collections.abc import Callable

import pytest

from vps_runtime.keys.calls import Answer, Calls


class Ear:
    """Notes everything that calls tell."""

    def __init__(self, calls: Calls) -> None:
        self.heard: list[object] = []
        note: Callable[[object], None] = self.heard.append
        calls.on_began(lambda: note("began"))
        calls.on_answer(note)
        calls.on_settled(lambda: note("settled"))
        calls.on_reach(lambda slot, answered: note((slot, answered)))


def test_a_call_waits_until_its_head_is_there() -> None:
    """Only then is nothing older on its way; its answer is a sign that the provider is there."""
    calls = Calls(lambda: 7.0)
    ear = Ear(calls)
    calls.began("main", 1)
    assert calls.uses_older("main", 2)
    assert not calls.uses_older("main", 1)
    assert not calls.uses_older("other", 2)
    calls.answered("main", 1, 401)
    answer = Answer("main", 1, 401, 7.0)
    assert ear.heard == ["began", "settled", ("main", True), answer]
    assert calls.last == {"main": answer}
    assert not calls.uses_older("main", 2)


def test_of_two_calls_the_last_one_settles() -> None:
    """`drained` waits for all of them."""
    calls = Calls()
    ear = Ear(calls)
    calls.began("main", 1)
    calls.began("main", 1)
    calls.failed("main", 1)
    assert "settled" not in ear.heard
    calls.failed("main", 1)
    assert ear.heard[-1] == "settled"


def test_a_call_that_the_caller_broke_off_says_nothing_of_the_provider() -> None:
    """Who sends the call knows who broke it off, and says so."""
    calls = Calls()
    ear = Ear(calls)
    calls.began("main", 1)
    calls.failed("main", 1)
    assert ear.heard == ["began", "settled"]
    assert calls.last == {}
    calls.reached("main", answered=False)
    assert ear.heard[-1] == ("main", False)


@pytest.mark.parametrize(("said", "noted"), [(599, 599), (600, 500), (999, 500), (99, 500)])
def test_a_status_that_is_none_stands_for_500(said: int, noted: int) -> None:
    """No fact or report can be made of it (RFC 9110 section 15)."""
    calls = Calls()
    calls.began("main", 1)
    calls.answered("main", 1, said)
    assert calls.last["main"].status == noted
