"""What people paste instead of a key."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import SecretStr

from bus_schemas.api import SlotStep
from bus_schemas.credential import CredentialPayload
from bus_schemas.providers import load_providers
from platform_handlers.owner.keys.words import STEP_IN_WORDS, reason_in_words
from platform_handlers.owner.pasted import (
    MAX_KEY,
    complaint,
    other_provider,
    sign_in_complaint,
)

KEY = "sk-ant-api03-" + "x" * 90


SLIPS = [
    ("", "Nothing was entered"),
    (" \n", "Nothing was entered"),
    ("\ufeff\u200b", "invisible"),
    ("k" * (MAX_KEY + 1), "far longer"),
    (KEY * 20_000, "far longer"),
    (f'{{"apiKey": "{KEY}"}}', "JSON"),
    (f'["{KEY}"]\n', "JSON"),
    (f"-----BEGIN PRIVATE KEY-----\n{KEY}\n-----END PRIVATE KEY-----", "PEM"),
    (f"Bearer {KEY}", "header"),
    (f"bearer\t{KEY}", "header"),
    (f"Authorization: Bearer {KEY}", "header"),
    (f"x-api-key: {KEY}", "header"),
    (f"ANTHROPIC_API_KEY={KEY}", "settings file"),
    (f"ANTHROPIC_API_KEY = '{KEY}'", "settings file"),
    (f"export OPENAI_API_KEY={KEY}", "settings file"),
    (f"export fake={KEY}", "settings file"),
    (f"set OPENAI_API_KEY={KEY}", "settings file"),
    (f"setenv OPENAI_API_KEY {KEY}", "settings file"),
    (f'$env:OPENAI_API_KEY = "{KEY}"', "settings file"),
    (f"openai.api_key={KEY}", "settings file"),
    (f"api_key: {KEY}", "settings file"),
    (f'"apiKey": "{KEY}"', "settings file"),
    (f"FIRST={KEY}\nSECOND={KEY}", "settings file"),
    (f"curl https://api.example.org -H 'x-api-key: {KEY}'", "command"),
    (f"https://console.example.org/keys?key={KEY}", "address"),
    ("$OPENAI_API_KEY", "variable"),
    ("${OPENAI_API_KEY}", "variable"),
    ("%OPENAI_API_KEY%", "variable"),
    ("<your key>", "example"),
    ("YOUR_API_KEY", "example"),
    ("your-openai-api-key-here", "example"),
    (f"{KEY}\n{KEY}", "several lines"),
    (f"{KEY}\r{KEY}", "several lines"),
    (f"{KEY}\u2028{KEY}", "several lines"),
    (f"\ufeff{KEY}", "invisible"),
    (f"{KEY[:9]}\u200b{KEY[9:]}", "invisible"),
    (f"{KEY}\u202e", "invisible"),
    (f"\x1b[200~{KEY}\x1b[201~", "invisible"),
    (f"{KEY[:9]}\x00{KEY[9:]}", "invisible"),
    (f" {KEY}", "begins or ends with a space"),
    (f"{KEY}\n", "begins or ends with a space"),
    (f"{KEY}\u00a0", "begins or ends with a space"),
    (f'"{KEY}"', "quotation mark"),
    (f"\u201c{KEY}\u201d", "quotation mark"),
    (f"\u201e{KEY}\u201c", "quotation mark"),
    (f"\u00ab{KEY}\u00bb", "quotation mark"),
    (f"`{KEY}`", "quotation mark"),
    (f"{KEY}'", "quotation mark"),
    (f"{KEY[:16]}...", "shortened"),
    (f"{KEY[:16]}\u2026{KEY[-4:]}", "shortened"),
    (f"{KEY[:16]}********{KEY[-4:]}", "shortened"),
    (f"{KEY[:16]}\u2022\u2022\u2022\u2022", "shortened"),
    (f"sk ant {KEY}", "a space in it"),
    (f"{KEY[:9]}\u00a0{KEY[9:]}", "a space in it"),
    (f"{KEY[:9]}\u2014{KEY[9:]}", "no key has"),
    (f"{KEY}\u00e9", "no key has"),
    (f"{KEY[:9]}\u0430{KEY[9:]}", "no key has"),
    (f"{KEY}\udcff", "no key has"),
]


@pytest.mark.parametrize(("pasted", "words"), SLIPS)
def test_each_slip_has_its_own_sentence(pasted: str, words: str) -> None:
    """It says what is wrong in one line and repeats nothing of the key."""
    sentence = complaint(pasted)
    assert sentence is not None
    assert words in sentence
    assert len(sentence) <= 100
    assert "sk-" not in sentence
    assert KEY[4:12] not in sentence


@given(st.text(st.characters(min_codepoint=0x23, max_codepoint=0x26), min_size=1))
def test_visible_ascii_is_taken_as_it_is(pasted: str) -> None:
    """Nothing is changed, and nothing odd is invented."""
    assert complaint(pasted) is None


@given(st.text(max_size=300))
def test_what_is_taken_can_be_sealed(pasted: str) -> None:
    """No complaint means visible ASCII of a length that a credential may have."""
    if complaint(pasted) is None:
        secret, address = SecretStr(pasted), "https://example.org"
        sealed = CredentialPayload(secret=secret, base_url=address, header_style="bearer")
        assert sealed.secret == secret


@pytest.mark.parametrize(
    "key",
    [
        *(
            shape.prefix + "x" * 100
            for one in load_providers().values()
            for shape in one.key_shapes
        ),
        "0123abcd.EFGH4567",
        "0123abcd-4567-89ab-cdef-0123456789ab:0123456789abcdef",
        "QUJDREVGR0hJSktMTU5PUA==",
        "eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiJ4In0.c2lnbmF0dXJl",
        "a+b/c=",
        "k" * MAX_KEY,
        "keykeykey" * 1_800,
    ],
)
def test_no_real_form_of_key_is_complained_about(key: str) -> None:
    """Every documented prefix, and what has no prefix: dots, colons, base64, a long token."""
    assert complaint(key) is None


@pytest.mark.parametrize(
    ("pasted", "words"),
    [
        ("", "Nothing was entered"),
        ("\n", "Nothing was entered"),
        (KEY, "leave `--kind oauth` out"),
        ('{"access_token": "x"', "broken"),
        ("{\u201caccess_token\u201d: 1}", "broken"),
        ("[" * 60_000, "no JSON"),
    ],
)
def test_a_sign_in_that_is_none_is_told_before_its_fields_are(pasted: str, words: str) -> None:
    """An API key in its place, half a document, one from a word processor."""
    sentence = sign_in_complaint(pasted)
    assert sentence is not None
    assert words in sentence
    assert KEY[4:12] not in sentence


def test_a_document_is_left_to_the_reader_of_its_fields() -> None:
    """Whether it is a sign-in is another question."""
    assert sign_in_complaint(' {"access_token": 1}\n') is None


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
