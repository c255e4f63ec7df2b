"""What people paste instead of a key, and one sentence for each. Pure; nothing is ever changed.

A key that was quietly trimmed would be another key than the one the person looks at, with another
fingerprint; so it is refused here, before it is sealed, in words that never repeat it.
"""

import json
import re
import unicodedata
from collections.abc import Callable
from typing import Final

from bus_schemas.providers import load_providers, recognise

MAX_KEY: Final = 16_384
"""Characters; a credential's own limit (`credential.SecretText`)."""

_QUOTES = "\"'`\u2018\u2019\u201a\u201c\u201d\u201e\u00ab\u00bb\u2039\u203a"
_VISIBLE = re.compile(r"[!-~]+")
_WORD = r"[\w.-]{0,60}(?i:key|token|secret)[\w.-]{0,60}"
_ASSIGNMENT = re.compile(
    rf"(?:(?:export|set|setenv)\s+|\$env:)\w+\s*[= ]\s*[^=\s]"
    rf"|(?:[A-Z][A-Z0-9_]*|{_WORD})\s*=\s*[^=\s]"  # a key may end in `=`, as base64 does
    rf"|[\"']?{_WORD}[\"']?\s*:(?:\s|[\"'])",
    re.ASCII,
)
_HEADER = re.compile(
    r"(?:authorization|x-api-key|x-goog-api-key)\s*:|(?:bearer|basic)\s", re.IGNORECASE
)
_COMMAND = re.compile(r"(?:curl|byok|http|wget)\s", re.IGNORECASE)
_ADDRESS = re.compile(r"[a-z][a-z0-9+.-]{1,20}://", re.IGNORECASE)
_VARIABLE = re.compile(r"\$\{?\w+\}?|%\w+%", re.ASCII)
_STAND_IN = re.compile(
    r"<.*>|\[.*\]|(?:your|my)[-_ ]?(?:\w+[-_ ])?(?:api[-_ ]?)?key(?:[-_ ]here)?",
    re.IGNORECASE,
)
_SHORTENED = re.compile(r"\.{3}|\*{3}|\u2026|\u2022{2}|\u25cf{2}|\u00b7{3}")


def _invisible(pasted: str) -> bool:
    """Whether it has characters that show as nothing: zero width, direction marks, controls."""
    shown = pasted.strip("\r\n")
    return any(unicodedata.category(c) in {"Cc", "Cf"} for c in shown if c not in "\t\r\n")


_SLIPS: Final[tuple[tuple[Callable[[str], object], str], ...]] = (
    (lambda pasted: not pasted.strip(), "Nothing was entered."),
    (
        lambda pasted: len(pasted) > MAX_KEY,
        "That is far longer than any key. Copy the key alone, not a page or a file.",
    ),
    (
        lambda pasted: _json_of(pasted) is not None,
        "That is a JSON document. Paste only the key in it; for a sign-in say `--kind oauth`.",
    ),
    (
        lambda pasted: "-----BEGIN " in pasted,
        "That is a key or certificate in a file's form (PEM). Paste the provider's API key.",
    ),
    (
        lambda pasted: _HEADER.match(pasted.lstrip()),
        "That is a whole header. Paste only the key: what comes after its name or `Bearer`.",
    ),
    (
        lambda pasted: _ASSIGNMENT.match(pasted.lstrip()),
        "That is a line of a settings file. Paste only what comes after the `=` or `:`.",
    ),
    (
        lambda pasted: _COMMAND.match(pasted.lstrip()),
        "That is a whole command. Paste only the key in it.",
    ),
    (
        lambda pasted: _ADDRESS.match(pasted.lstrip()),
        "That is an address, not a key. `byok providers` tells on which page keys are made.",
    ),
    (
        lambda pasted: _VARIABLE.fullmatch(pasted.strip()),
        "That is the name of a variable. Paste its value: the key itself.",
    ),
    (
        lambda pasted: _STAND_IN.fullmatch(pasted.strip()),
        "That stands for a key in an example. Paste your own key.",
    ),
    (
        lambda pasted: len(pasted.strip().splitlines()) > 1,
        "It has several lines; a key has one.",
    ),
    (
        _invisible,
        "There is an invisible character in it. Copy the key anew from its console, not a chat.",
    ),
    (
        lambda pasted: pasted != pasted.strip(),
        "It begins or ends with a space or a line break; leave it out.",
    ),
    (
        lambda pasted: pasted[:1] in _QUOTES or pasted[-1:] in _QUOTES,
        "It begins or ends with a quotation mark. Paste the key without them.",
    ),
    (
        _SHORTENED.search,
        "That is a key in its shortened form. Copy it whole, or make a new one.",
    ),
    (
        lambda pasted: any(c.isspace() for c in pasted),
        "There is a space in it, and no key has one. Copy the key anew from its console.",
    ),
    (
        lambda pasted: not _VISIBLE.fullmatch(pasted),
        "There is a letter or sign in it that no key has. Copy the key anew from its console.",
    ),
)
"""From the most telling to the least: the first that fits is said."""


def complaint(pasted: str) -> str | None:
    """Return what is wrong with *pasted* as an API key, or None if nothing is."""
    return next((sentence for slip, sentence in _SLIPS if slip(pasted)), None)


def sign_in_complaint(pasted: str) -> str | None:
    """Return what is wrong with *pasted* as the JSON of a sign-in, before its fields are read."""
    if not pasted.strip():
        return "Nothing was entered."
    if _json_of(pasted) is not None:
        return None
    if pasted.lstrip()[:1] == "{":
        return "The JSON is broken: cut off, or with typographic quotes. Copy the document anew."
    return "That is no JSON document. For an API key leave `--kind oauth` out."


def _json_of(pasted: str) -> object | None:
    """Return the JSON object or list that *pasted* is; None for what is none."""
    if pasted.lstrip()[:1] not in {"{", "["}:
        return None
    try:
        found: object = json.loads(pasted)
    except (ValueError, RecursionError):
        return None
    return found


def other_provider(secret: str, provider: str) -> str | None:
    """Return a warning when *secret* looks like another provider's key than *provider*'s."""
    likely, catalogue = recognise(secret), load_providers()
    if not likely or provider not in catalogue:
        return None
    lengths = {name: catalogue[name].match_length(secret) for name in likely}
    best = max(lengths.values())
    if lengths.get(provider, 0) == best:  # many share a prefix as short as `sk-`
        return None
    names = " or ".join(catalogue[name].name for name in likely if lengths[name] == best)
    return f"This looks like a key of {names}, not of {catalogue[provider].name}."
