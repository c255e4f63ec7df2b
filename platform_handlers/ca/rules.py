"""Which servers trust which CA, by their own word. Pure."""

from collections.abc import Mapping, Sequence

Trusting = Mapping[str, frozenset[str] | None]
"""Active servers and the ids of the CAs that each last said it trusts; None: it has not said."""

_NAMED = 5


def without(servers: Trusting, authority: str) -> list[str]:
    """Return the servers that are not known to trust *authority*."""
    return [name for name, trusted in servers.items() if authority not in (trusted or ())]


def trusting_others(servers: Trusting, ours: frozenset[str]) -> list[str]:
    """Return the servers that trust a CA which is none of *ours*: a stranger's, or one retired."""
    return [name for name, trusted in servers.items() if trusted and not trusted <= ours]


def named(names: Sequence[str]) -> str:
    """Return *names* as words, the first few of many."""
    rest = len(names) - _NAMED
    return ", ".join(names[:_NAMED]) + (f" and {rest} more" if rest > 0 else "")
