"""What people paste instead of a key."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bus_schemas.api import SlotStep
from platform_handlers.owner.pasted import complaint, other_provider
from platform_handlers.owner.words import STEP_IN_WORDS, reason_in_words

KEY = "sk-ant-api03-" + "x" * 90


@pytest.mark.parametrize(
    ("pasted", "word"),
    [
        ("", "Nothing"),
        (" \n", "Nothing"),
        (f"ANTHROPIC_API_KEY={KEY}", "settings file"),
        (f"export OPENAI_API_KEY={KEY}", "settings file"),
        (f"Bearer {KEY}", "header"),
        (f"{KEY}\n{KEY}", "several lines"),
        (f"{KEY}\r{KEY}", "several lines"),
        (f" {KEY}", "begins or ends with a space"),
        (f"{KEY}\n", "begins or ends with a space"),
        (f'"{KEY}"', "quotation mark"),
        (f"\u201c{KEY}", "quotation mark"),
        (f"{KEY}'", "quotation mark"),
        ("sk ant", "unusual character"),
        (f"{KEY}\u00a0x", "unusual character"),
    ],
)
def test_each_slip_has_its_own_sentence(pasted: str, word: str) -> None:
    """It says what is wrong and repeats nothing of the key."""
    sentence = complaint(pasted)
    assert sentence is not None
    assert word in sentence
    assert KEY not in sentence


@given(st.text(st.characters(min_codepoint=0x23, max_codepoint=0x26), min_size=1))
def test_visible_ascii_is_taken_as_it_is(pasted: str) -> None:
    """Nothing is changed, and nothing odd is invented."""
    assert complaint(pasted) is None


def test_another_providers_key_is_noticed_but_not_refused() -> None:
    """Shapes change; a hint is a hint."""
    assert other_provider(KEY, "anthropic") is None
    assert other_provider("no-known-shape", "anthropic") is None
    assert other_provider("sk-" + "x" * 60, "deepseek") is None
    assert other_provider(KEY, "unheard-of") is None
    warning = other_provider(KEY, "openai")
    assert warning == "This looks like a key of Anthropic, not of OpenAI."


@pytest.mark.parametrize("step", SlotStep)
def test_every_step_has_words(step: SlotStep) -> None:
    """`byok key status` never shows a bare code."""
    assert " " in f"{STEP_IN_WORDS[step]} "
    assert reason_in_words("some_code") == "Some code."
