"""What each banner says to a person: a title, what is the matter, and what to do next.

Pure. The words stand alone: whoever sees neither colour nor icon still knows how much it matters.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from bus_schemas.events import BannerEvent
from bus_schemas.events.banner import (
    NOTICE_DAYS,
    BannerCode,
    Copies,
    CopySign,
    KeyChanges,
    Severity,
    Sharing,
)
from bus_schemas.fields import Basis
from bus_schemas.keys import in_fours

_NAMED = 3
"""Servers named in a sentence; the rest are counted."""
_EXACT_TO = 20

SEVERITY_WORDS: Final[Mapping[Severity, str]] = {
    Severity.HIGH: "Needs attention",
    Severity.LOW: "For your information",
}

_OTHER_OWNERS: Final[Mapping[int, str]] = {
    1: "another customer",
    2: "2 to 5 other customers",
    6: "6 to 20 other customers",
    21: "21 to 100 other customers",
    101: "more than 100 other customers",
}

_OFTEN: Final[Mapping[int, str]] = {
    1: "once",
    2: "2 to 9 times",
    10: "10 to 99 times",
    100: "100 to 999 times",
    1000: "at least 1000 times",
}
_KEYS_NAMED = 8


@dataclass(frozen=True)
class Words:
    """What to show of one banner."""

    title: str
    explanation: str
    what_to_do: str


def words_for(banner: BannerEvent) -> Words:
    """Return the sentences for *banner*."""
    return _WORDS[banner.code](banner)


def _place(banner: BannerEvent) -> str:
    slot = f"slot {banner.slot_id} of " if banner.slot_id else ""
    return f"{slot}{banner.server_id}"


def _also_on(sharing: Sharing) -> str:
    """Say who else holds it; never who another owner is."""
    parts = []
    if sharing.own_servers_total or sharing.own_servers:
        parts.append(_own(sharing))
    if sharing.other_owners:
        parts.append(f"on servers of {_OTHER_OWNERS[sharing.other_owners]}")
    return " and ".join(parts) or "elsewhere"


def _company(banner: BannerEvent) -> str:
    """Name the server and its one partner, or say that there are others."""
    own, total = banner.sharing.own_servers, banner.sharing.own_servers_total
    alone = len(own) == 1 and total <= 1 and not banner.sharing.other_owners
    return f"{banner.server_id} and {own[0] if alone else 'others'}"


def _own(sharing: Sharing) -> str:
    named = sharing.own_servers[:_NAMED]
    total = max(sharing.own_servers_total, len(sharing.own_servers))
    rest = total - len(named)
    if not named:
        return f"on {_count(total)} of your other servers"
    if rest:
        return f"on {', '.join(named)} and {_count(rest, whole=total)} more of your servers"
    *first, last = named
    return f"on {', '.join(first)} and {last}" if first else f"on {last}"


def _count(number: int, *, whole: int = 0) -> str:
    """Numbers above twenty are the lower end of a bucket."""
    return f"at least {number}" if max(number, whole) > _EXACT_TO else str(number)


def _api_key_reuse(banner: BannerEvent) -> Words:
    foreign = banner.sharing.other_owners > 0
    return Words(
        f"{_company(banner)} share one API key",
        f"The API key in {_place(banner)} is also {_also_on(banner.sharing)}. "
        "If it has to be revoked, every server that holds it stops at once.",
        "Unless they are you as well, treat the key as leaked: make a new one, put it in "
        "with `byok key set`, then revoke the old one."
        if foreign
        else "If you share it on purpose, dismiss this. Otherwise give each server a key of its "
        "own with `byok key set`.",
    )


def _oauth_reuse(banner: BannerEvent) -> Words:
    where = _also_on(banner.sharing)
    if Basis.OAUTH_GRANT in banner.sharing.bases:
        return Words(
            f"{_company(banner)} will sign each other out",
            f"The sign-in in {_place(banner)} is also {where}. Refresh tokens are single-use: "
            "whoever renews first leaves the others signed out.",
            "Sign in separately on each server. A copied sign-in cannot be shared safely.",
        )
    return Words(
        f"{_company(banner)} share one account",
        f"The account signed in to {_place(banner)} is also signed in {where}. Each has a "
        "sign-in of its own, so they keep working, but they draw on the same limits.",
        "If that is intended, dismiss this. Otherwise sign in with another account.",
    )


_ENDED: Final[Mapping[str, str]] = {
    "invalid_grant": "somebody else used it, or it was taken back. A refresh token is good for one "
    "use, so whoever renews a copied sign-in signs all the others out, and often themselves.",
    "refresh_answer_lost": "the answer to a renewal got lost on its way to this server, or "
    "somebody else used it at that time. A refresh token is good for one use only.",
    "refresh_token_spent": "the same sign-in is, or was, in another slot of this server, which has "
    "renewed it since. A refresh token is good for one use only.",
}
"""Why a sign-in is over (RFC 6749 section 5.2), by the server's reason."""


def _sign_in_ended(banner: BannerEvent, why: str) -> Words:
    return Words(
        f"The sign-in on {banner.server_id} has ended",
        f"The provider no longer takes the sign-in in {_place(banner)}: {why}",
        "Sign in separately for this server and put that in with `byok key set`. If nobody of "
        "yours has a copy, treat it as stolen: end it at the provider first."
        if banner.reason == "invalid_grant"
        else "Sign in anew, for this slot alone, and put that in with `byok key set`.",
    )


def _key_rejected(banner: BannerEvent) -> Words:
    if why := _ENDED.get(banner.reason or ""):
        return _sign_in_ended(banner, why)
    return Words(
        f"The provider refuses the key on {banner.server_id}",
        f"The credential in {_place(banner)} was in use and the provider now turns it down: "
        "it was revoked, has expired, or the account is closed.",
        "Look at the provider's console, then put in a working credential with `byok key set`.",
    )


def _rotation_stuck(banner: BannerEvent) -> Words:
    server, note, at = banner.server_id, banner.rotation, f"{banner.server_id} {banner.slot_id}"
    title = f"A rotation on {server} does not finish"
    if note is not None and note.waits_for == "server":
        return Words(
            title,
            f"Revision {note.revision} for {_place(banner)} was sent at least 15 minutes ago, and "
            f"{server} has not taken it: it may be off, locked, or cut off from the network. "
            "Whatever was in use before goes on.",
            "Do not revoke the old credential yet. Look whether the server runs: `byok-vps doctor` "
            "on its console says what is wrong. What was sent is kept for a day; after that send "
            f"it again with `byok key set {at}`.",
        )
    which = f"Revision {note.revision}" if note else "A new credential"
    return Words(
        title,
        f"{which} for {_place(banner)} is stored, but the provider has not said that it is good. "
        "Until then it is not used, and whatever was in use before goes on.",
        f"Do not revoke the old credential yet. `byok key verify {at}` asks the provider again, "
        f"and with `--force` uses the new one untested; `byok key abort {at}` gives it up.",
    )


def _rotation_due(banner: BannerEvent) -> Words:
    server, note = banner.server_id, banner.rotation
    at = f"{server} {banner.slot_id}"
    soon = note is not None and note.age_days == NOTICE_DAYS[0]
    age = f"at least {note.age_days}" if note and note.age_days else "about 90"
    which = f" (revision {note.revision})" if note else ""
    return Words(
        f"The key on {server} is soon due to be renewed"
        if soon
        else f"Time to renew the key on {server}",
        f"The API key in {_place(banner)}{which} was put in {age} days ago. "
        f"{'Keys are best renewed every 90 days. ' if soon else ''}"
        "Nothing stops working; this is only a reminder.",
        f"Make a new key at the provider, put it in with `byok key set {at}`, and revoke the old "
        f"one once `byok key status {at}` says that it may be revoked.",
    )


def _clone_suspected(banner: BannerEvent) -> Words:
    """Tell a copy that was refused, and opened nothing, from one that runs, and opened all."""
    server, copies = banner.server_id, banner.copies
    signs = copies.signs if copies else (CopySign.STALE_DISK,)
    if CopySign.TWO_RUNNING not in signs:
        return Words(
            f"A second copy of {server} may exist",
            f"An older copy of {server}'s disk asked to unlock. It was refused and opened nothing. "
            f"But if it is {server} itself that no longer starts, a copy was unlocked before it, "
            f"and whoever did that can read its credentials.{_often(copies)}",
            "If you restored a backup yourself, look up the code with `byok-vps status` on that "
            f"machine and allow it with `byok server approve {server} CODE`. If not, have the "
            f"server enrolled anew (`byok server reenrol {server}`); if it no longer starts, "
            "revoke its credentials at their providers first.",
        )
    stale = " An older copy asked as well and was refused." if len(signs) > 1 else ""
    return Words(
        f"Two machines run as {server}",
        f"A copy of {server}'s disk was unlocked while {server} was running. Whoever did that can "
        f"read every credential on it.{stale}{_often(copies)}",
        "If you moved the server yourself, stop the machine that you no longer need. If not, "
        "revoke its credentials at their providers, have it enrolled anew "
        f"(`byok server reenrol {server}`) and only then put in new ones: the copy could read "
        "them too.",
    )


def _often(copies: Copies | None) -> str:
    if copies is None:
        return ""
    last = "" if copies.times == 1 else "last "
    on = f"{copies.last_on.day} {copies.last_on:%b %Y}"
    return f" Noticed {_OFTEN[copies.times]}, {last}on {on} (UTC)."


def _owner_key_changed(banner: BannerEvent) -> Words:
    server, keys = banner.server_id, banner.keys or KeyChanges()
    lasting = keys.added or keys.removed or not keys.passing
    said = (
        ("Added:", keys.added),
        ("Removed:", keys.removed),
        ("Added for a while and removed again:", keys.passing),
    )
    told = "".join(f" {what} {_named(which)}." for what, which in said if which)
    return Words(
        f"{server} obeys other keys than before"
        if lasting
        else f"{server} obeyed another key for a while",
        f"The list of owner keys that {server} takes credentials from has changed.{told}",
        "If that was you, dismiss this. If not, take out the key that is not yours with "
        "`byok-vps trust rm` on the server's console, and replace the credentials that came while "
        "it was there. `byok-vps trust list` shows the keys it obeys now.",
    )


def _named(fingerprints: Sequence[str]) -> str:
    """Print fingerprints as consoles do; of very many the first."""
    rest = len(fingerprints) - _KEYS_NAMED
    more = f" and {rest} more" if rest > 0 else ""
    return ", ".join(in_fours(one) for one in fingerprints[:_KEYS_NAMED]) + more


def _key_missing(banner: BannerEvent) -> Words:
    return Words(
        f"{banner.server_id} has no usable key",
        f"Nothing usable is in {_place(banner)}, so calls to this provider fail. This happens "
        "after the server was set up anew, or when a credential never arrived.",
        "Put a credential in with `byok key set`.",
    )


def _server_silent(banner: BannerEvent) -> Words:
    return Words(
        f"{banner.server_id} has gone quiet",
        f"No health report has come from {banner.server_id} for three intervals. It may be off, "
        "or cut off from the network; its agent may well go on working.",
        "Look whether the server runs, then run `byok-vps doctor` on its console.",
    )


_WORDS: Final[Mapping[BannerCode, Callable[[BannerEvent], Words]]] = {
    BannerCode.API_KEY_REUSE: _api_key_reuse,
    BannerCode.OAUTH_REUSE: _oauth_reuse,
    BannerCode.KEY_REJECTED: _key_rejected,
    BannerCode.ROTATION_STUCK: _rotation_stuck,
    BannerCode.ROTATION_DUE: _rotation_due,
    BannerCode.CLONE_SUSPECTED: _clone_suspected,
    BannerCode.OWNER_KEY_CHANGED: _owner_key_changed,
    BannerCode.KEY_MISSING: _key_missing,
    BannerCode.SERVER_SILENT: _server_silent,
}
