"""Errors build their own sentence."""

import pytest

from bus_schemas.codec import UnknownEvent
from bus_schemas.errors import ByokError, ContractError, ReaderMustStop, Refused


@pytest.mark.parametrize(
    ("error", "sentence"),
    [
        (ContractError("malformed"), "malformed"),
        (ContractError("malformed", "data.n: missing"), "malformed: data.n: missing"),
        (Refused("bad_padding"), "bad_padding"),
        (Refused("wrong_server", "it is acme-2's"), "wrong_server: it is acme-2's"),
        (
            ReaderMustStop("unknown_major", 7, "install a newer version"),
            "stopped at ledger sequence 7 (unknown_major): install a newer version",
        ),
    ],
)
def test_each_error_says_its_sentence(error: ByokError, sentence: str) -> None:
    """What was wrong, with which id, and what to do."""
    assert str(error) == sentence
    assert isinstance(error, ByokError)


def test_errors_are_told_apart_by_identity() -> None:
    """Python's own machinery keeps exceptions in sets, so they must be hashable."""
    one, two = ContractError("malformed"), ContractError("malformed")
    assert one != two
    assert len({one, two, Refused("x"), ReaderMustStop("x", 1, "y")}) == 4


def test_the_senders_words_stay_out_of_an_unknown_events_repr() -> None:
    """A reader may look at them; a log that prints the error does not."""
    error = UnknownEvent("unknown_type", "not known", type="byok.x.y.v1", source="/servers/x")
    assert error.type not in f"{error} {error!r}"
    assert error.source not in f"{error} {error!r}"
