"""What a request for keys is answered. Pure.

OpenClaw's exec protocol, version 1: `{"protocolVersion": 1, "provider": …, "ids": […]}` in,
`{"protocolVersion": 1, "values": {id: key}, "errors": {id: {"code": "NOT_FOUND"}}}` out. A value
that is empty or no string would fail OpenClaw's whole reload and with it every other rotation, so
there is none.
"""

import re
from collections.abc import Callable, Iterable, Mapping, MutableSet
from dataclasses import dataclass, field
from typing import Annotated, Any, Final, Literal

from pydantic import Field, ValidationError

from bus_schemas.event import Contract
from vps_runtime.keys.keyring import KeyInUse

VERSION: Final = 1
MAX_REQUEST: Final = 64 * 1024
"""Bytes; 64 slots need 6 KiB."""

REVOKED: Final = "__OPENCLAW_REDACTED__"
"""OpenClaw's own placeholder. As a value it takes the key before it out of use (ADR-28)."""

_ID: Final = re.compile(r"providers/([a-z0-9-]{1,63})/apiKey")

STAND_IN: Final = "not-a-key"
"""What OpenClaw gets where it only checks that it is answered, and throws the value away."""

Current = Callable[[str], KeyInUse | None]
"""What may be used for a slot at this moment."""


class Request(Contract):
    """What OpenClaw asks for, all at once."""

    protocolVersion: Literal[1]  # noqa: N815 (OpenClaw's name for it)
    ids: Annotated[tuple[Annotated[str, Field(max_length=256)], ...], Field(max_length=256)]


def secret_id(slot_id: str) -> str:
    """Return the id under which OpenClaw asks for the key of *slot_id*."""
    return f"providers/{slot_id}/apiKey"


def slot_of(secret: str) -> str | None:
    """Return the slot that the id *secret* stands for; None if it is none of ours."""
    found = _ID.fullmatch(secret)
    return found[1] if found else None


def read_request(raw: bytes) -> Request | None:
    """Return the request in *raw*, None if it is none."""
    try:
        return Request.model_validate_json(raw)
    except ValidationError:
        return None


@dataclass
class Window:
    """The time in which keys are given out: that of one reload which we asked for ourselves.

    The agent's own shell runs under the same user and can ask as well, so each key is given out
    once: OpenClaw then notices that its own request failed, and says so in its answer.
    """

    given: dict[str, KeyInUse | None] = field(default_factory=dict, repr=False)
    """What was given out for each slot; None where it was said to be revoked."""
    twice: set[str] = field(default_factory=set)
    """Slots whose key was asked for again: somebody else may have it."""


@dataclass(frozen=True, slots=True)
class Asked:
    """One request, sorted by what is answered."""

    keys: Mapping[str, KeyInUse] = field(repr=False)
    """By id: these are given out."""
    revoked: frozenset[str]
    """Ids of slots that have no usable key."""
    missed: frozenset[str]
    """Slots that have one, but not now."""
    ids: tuple[str, ...]
    checked: frozenset[str] = frozenset()
    """Ids that are answered with a word which is no key."""

    def revisions(self) -> dict[str, int]:
        """Return the revision of each slot whose key is given out."""
        return {key.slot_id: key.revision for key in self.keys.values()}


def sort(
    ids: Iterable[str],
    known: Iterable[str],
    current: Current,
    window: Window | None,
    checks: MutableSet[str],
) -> Asked:
    """Say what each of *ids* is answered and note it in *window*, which is None while it is shut.

    Of the slots in *checks* a value is only wanted to be there; each is taken out when asked for.

    That a *known* slot has no usable key is said at any time and as often as it is asked: it is no
    secret, and OpenClaw would use the last key it was given after `NOT_FOUND`.
    """
    wanted, slots = tuple(dict.fromkeys(ids)), frozenset(known)
    keys: dict[str, KeyInUse] = {}
    revoked, missed, checked = set(), set(), set()
    for secret in wanted:
        slot = slot_of(secret)
        if slot is None or slot not in slots:
            continue
        key = current(slot)
        if key is None:
            revoked.add(secret)
            if window:
                window.given[slot] = None
        elif window is None and slot in checks:
            checks.discard(slot)
            checked.add(secret)
        elif window is None:
            missed.add(slot)
        elif window.given.get(slot) is not None:
            window.twice.add(slot)
        else:
            keys[secret] = key
            window.given[slot] = key
    return Asked(keys, frozenset(revoked), frozenset(missed), wanted, frozenset(checked))


def answer(asked: Asked) -> dict[str, Any]:
    """Return the answer as JSON's values; it holds keys."""
    values = {secret: key.secret for secret, key in asked.keys.items()}
    values |= dict.fromkeys(sorted(asked.revoked), REVOKED)
    values |= dict.fromkeys(sorted(asked.checked), STAND_IN)
    return {
        "protocolVersion": VERSION,
        "values": values,
        "errors": {one: {"code": "NOT_FOUND"} for one in asked.ids if one not in values},
    }
