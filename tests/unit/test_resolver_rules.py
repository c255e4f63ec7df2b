"""What the exec resolver answers, and what it remembers to have given out."""

import json

import pytest

from bus_schemas.fields import CredentialKind
from vps_runtime.keys.keyring import KeyInUse
from vps_runtime.resolver import plan
from vps_runtime.resolver.rules import (
    REVOKED,
    STAND_IN,
    Window,
    answer,
    read_request,
    secret_id,
    slot_of,
    sort,
)

GROQ, XAI = secret_id("groq"), secret_id("xai-2")


def key(slot: str, revision: int, secret: str = "made-up") -> KeyInUse:
    """Return a key in use."""
    return KeyInUse(
        slot, revision, "groq", CredentialKind.API_KEY, "https://a.example", "bearer", secret
    )


KEYS = {"groq": key("groq", 3, "gsk_1"), "xai-2": key("xai-2", 1, "xai-1")}
KNOWN = ("groq", "xai-2", "empty")


def test_all_ids_of_a_window_are_answered_at_once() -> None:
    """OpenClaw asks for everything in one request; every value is a string that is not empty."""
    window = Window()
    asked = sort((GROQ, XAI, secret_id("empty")), KNOWN, KEYS.get, window, set())
    assert answer(asked) == {
        "protocolVersion": 1,
        "values": {GROQ: "gsk_1", XAI: "xai-1", secret_id("empty"): REVOKED},
        "errors": {},
    }
    assert asked.revisions() == {"groq": 3, "xai-2": 1}
    assert window.given == {**KEYS, "empty": None}


def test_outside_a_window_no_key_is_given_out() -> None:
    """The agent's own shell can run the resolver at any time."""
    asked = sort((GROQ,), KNOWN, KEYS.get, None, set())
    assert answer(asked)["values"] == {}
    assert answer(asked)["errors"] == {GROQ: {"code": "NOT_FOUND"}}
    assert asked.missed == {"groq"}


def test_each_key_is_given_out_once_in_a_window() -> None:
    """Who asks second gets nothing, and the window knows that two have asked."""
    window = Window()
    sort((GROQ,), KNOWN, KEYS.get, window, set())
    again = sort((GROQ, XAI), KNOWN, KEYS.get, window, set())
    assert answer(again)["values"] == {XAI: "xai-1"}
    assert window.twice == {"groq"}


def test_that_a_key_is_revoked_is_said_at_any_time_and_as_often_as_asked() -> None:
    """After NOT_FOUND OpenClaw would go on with the key it was given before."""
    shut = sort((secret_id("empty"),), KNOWN, KEYS.get, None, set())
    assert answer(shut)["values"] == {secret_id("empty"): REVOKED}
    assert shut.missed == frozenset()
    window = Window()
    for _ in range(2):
        asked = sort((secret_id("empty"),), KNOWN, KEYS.get, window, set())
        assert answer(asked)["values"] == {secret_id("empty"): REVOKED}
    assert window.twice == set()


@pytest.mark.parametrize(
    "other",
    [
        "groq",
        "providers/groq/apiKey/",
        "providers/../apiKey",
        "providers/GROQ/apiKey",
        "providers/unknown/apiKey",
        " providers/groq/apiKey",
        "providers/groq/apiKey\n",
        "",
    ],
)
def test_only_exact_ids_are_known(other: str) -> None:
    """An id that is nearly right is not found."""
    asked = sort((other,), KNOWN, KEYS.get, Window(), set())
    assert answer(asked) == {
        "protocolVersion": 1,
        "values": {},
        "errors": {other: {"code": "NOT_FOUND"}},
    }


def test_an_id_names_one_slot() -> None:
    """The way there and back."""
    assert slot_of(secret_id("openai-2")) == "openai-2"


@pytest.mark.parametrize(
    "raw",
    [
        b"",
        b"{",
        b"[]",
        b'{"protocolVersion": 2, "ids": []}',
        b'{"protocolVersion": 1}',
        b'{"protocolVersion": 1, "ids": [1]}',
        json.dumps({"protocolVersion": 1, "ids": ["x"] * 257}).encode(),
    ],
)
def test_what_is_no_request_is_none(raw: bytes) -> None:
    """Anybody with the agent's uid can send anything."""
    assert read_request(raw) is None


def test_a_request_may_hold_more_than_we_read() -> None:
    """OpenClaw also says what it calls us."""
    read = read_request(b'{"protocolVersion": 1, "provider": "byok", "ids": ["a"]}')
    assert read is not None
    assert read.ids == ("a",)


def test_a_key_shows_neither_in_a_window_nor_in_an_answer_that_is_printed() -> None:
    """Whatever logs these objects logs no secret."""
    window = Window()
    asked = sort((GROQ,), KNOWN, KEYS.get, window, set())
    assert "gsk_1" not in repr(window) + repr(asked)


def test_what_was_given_out_is_used_until_a_newer_one_has_replaced_it_and_its_grace_is_over() -> (
    None
):
    """Only then may anybody say that the old key is used no more."""
    handed = plan.given(plan.given(plan.Handed(), 1), 2)
    assert plan.uses_older(handed, 2, now=1e12)
    after = plan.replaced(handed, 2, at=100.0, grace=60.0)
    assert plan.uses_older(after, 2, now=159.0)
    assert not plan.uses_older(after, 2, now=160.0)
    assert plan.uses_older(after, 3, now=1e12)


def test_a_grace_is_not_begun_anew() -> None:
    """A second reload with the same key says nothing new of the one before."""
    once = plan.replaced(plan.given(plan.given(plan.Handed(), 1), 2), 2, at=100.0, grace=60.0)
    assert plan.replaced(once, 2, at=150.0, grace=60.0) == once


def test_a_revoked_key_has_its_grace_as_well() -> None:
    """A turn that began with it may still be on its way."""
    gone = plan.replaced(plan.given(plan.Handed(), 1), None, at=100.0, grace=60.0)
    assert plan.uses_older(gone, 2, now=101.0)
    assert plan.still(gone, now=161.0) == plan.Handed()


def test_a_revision_given_out_again_is_in_hand_again() -> None:
    """As after a reload that failed half-way."""
    gone = plan.replaced(plan.given(plan.Handed(), 1), None, at=100.0, grace=60.0)
    assert plan.given(gone, 1) == plan.given(plan.Handed(), 1)


def test_the_memory_gives_back_what_was_put_in() -> None:
    """It outlives the process."""
    handed = plan.replaced(plan.given(plan.Handed(), 4), 5, at=1.5, grace=2.0)
    told = {plan.handed_key("groq"): handed.model_dump_json(exclude_defaults=True), "pins": "x"}
    assert plan.handed_of("groq", told) == handed
    assert plan.handed_slots(told) == ["groq"]
    assert plan.handed_of("xai", told) is None
    assert not plan.uses_older(None, 9, now=0.0)


def test_who_only_checks_that_it_is_answered_gets_a_word_once() -> None:
    """No key leaves; whoever asks next is missed, as anybody is while no window is open."""
    checks = {"groq"}
    asked = sort((GROQ, XAI), KNOWN, KEYS.get, None, checks)
    assert answer(asked)["values"] == {GROQ: STAND_IN}
    assert asked.missed == {"xai-2"}
    assert checks == set()
    assert sort((GROQ,), KNOWN, KEYS.get, None, checks).missed == {"groq"}


def test_a_check_takes_no_key_from_a_reload() -> None:
    """In a window the real one is given out."""
    asked = sort((GROQ,), KNOWN, KEYS.get, Window(), {"groq"})
    assert asked.keys.keys() == {GROQ}
