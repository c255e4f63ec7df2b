"""What people paste instead of a key, and one sentence for each. Pure; nothing is ever changed.

A key that was quietly trimmed would be another key than the one the person looks at, with another
fingerprint; so it is refused here, before it is sealed, in words that never repeat it.
"""

import re

from bus_schemas.providers import load_providers, recognise

_ASSIGNMENT = re.compile(r"\s*(export\s+)?[A-Z][A-Z0-9_]*=")
_QUOTES = "\"'`\u201c\u201d\u2018\u2019"
_VISIBLE = re.compile(r"[!-~]+")


def complaint(pasted: str) -> str | None:
    """Return what is wrong with *pasted* as an API key, or None if nothing is."""
    for wrong, sentence in (
        (not pasted.strip(), "Nothing was entered."),
        (
            bool(_ASSIGNMENT.match(pasted)),
            "That is a line of a settings file. Paste only what comes after the `=`.",
        ),
        (
            pasted.lower().startswith("bearer "),
            "That is a whole header. Paste only what comes after `Bearer`.",
        ),
        ("\n" in pasted.strip() or "\r" in pasted.strip(), "It has several lines; a key has one."),
        (pasted != pasted.strip(), "It begins or ends with a space or a line break; leave it out."),
        (
            pasted[:1] in _QUOTES or pasted[-1:] in _QUOTES,
            "It begins or ends with a quotation mark. Paste the key without them.",
        ),
        (
            not _VISIBLE.fullmatch(pasted),
            "There is a space or an unusual character in it. Copy the key anew from its console.",
        ),
    ):
        if wrong:
            return sentence
    return None


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
