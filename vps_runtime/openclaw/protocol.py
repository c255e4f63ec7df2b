"""OpenClaw's gateway protocol, version 4: the few frames we need of it. Pure.

Three frames, each a JSON object: `{"type": "req", id, method, params}`, `{"type": "res", id, ok,
payload | error}`, `{"type": "event", event, payload}`. The gateway begins with the event
`connect.challenge`; the first request is `connect`.
"""

import json
import re
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, Final

VERSION: Final = 4
CHALLENGE: Final = "connect.challenge"
CONNECT: Final = "connect"
RELOAD: Final = "secrets.reload"
PROBE: Final = "models.probe"
STATUS: Final = "status"
CONFIG: Final = "config.get"

TRIED: Final = frozenset({"2026.9.6"})
"""The versions that our tests have run; its rules have changed several times in a year."""

_OURS: Final = ":byok"
"""How the profiles end that `openclaw-config` has made (`config.profile_of`)."""

_CLIENT: Final = "byok-1"
"""Of what speaks this protocol here; OpenClaw shows it in its logs."""

_NO_CONTENT: Final[Mapping[str, Any]] = {}


@dataclass(frozen=True, slots=True)
class Response:
    """The answer to one request."""

    id: str
    ok: bool
    payload: Mapping[str, Any]
    error: str = ""
    """OpenClaw's own code and words, at most 200 characters."""


@dataclass(frozen=True, slots=True)
class Event:
    """Something OpenClaw says unasked."""

    name: str


def read_frame(raw: str | bytes) -> Response | Event | None:
    """Return what *raw* is; None if it is nothing we know."""
    try:
        frame = json.loads(raw)
    except ValueError:
        return None
    match frame:
        case {"type": "res", "id": str(id_), "ok": bool(ok)}:
            return Response(id_, ok, _object(frame.get("payload")), _error(frame.get("error")))
        case {"type": "event", "event": str(name)}:
            return Event(name)
    return None


def _object(value: object) -> Mapping[str, Any]:
    return value if isinstance(value, dict) else _NO_CONTENT


def _error(value: object) -> str:
    error = _object(value)
    words = (str(error.get(name, "")) for name in ("code", "message"))
    return " ".join(" ".join(words).split())[:200]


def request(id_: str, method: str, params: Mapping[str, Any]) -> str:
    """Return the frame that asks for *method*."""
    return json.dumps({"type": "req", "id": id_, "method": method, "params": dict(params)})


def connect_params(token: str) -> dict[str, Any]:
    """Return who we are: a backend that may reload secrets."""
    return {
        "minProtocol": VERSION,
        "maxProtocol": VERSION,
        "client": {
            "id": "gateway-client",
            "mode": "backend",
            "version": _CLIENT,
            "platform": "linux",
        },
        "role": "operator",
        "scopes": ["operator.admin"],
        "auth": {"token": token},
    }


def server_version(hello: Mapping[str, Any]) -> str:
    """Return OpenClaw's version out of its answer to `connect`; empty if it says none."""
    return str(_object(hello.get("server")).get("version", ""))[:32]


def reload_took(answer: Mapping[str, Any], *, revoked: int) -> bool:
    """Whether a reload left OpenClaw with what it was given, and with nothing else.

    It says `ok` also when it kept a key that it could not renew, and counts that as a warning.
    Each of the *revoked* slots makes one as well, by design.
    """
    return answer.get("ok") is True and answer.get("warningCount") == revoked


def models_took(status: Mapping[str, Any], *, revoked: int) -> bool:
    """Whether that is so for the models' keys, whatever other secrets OpenClaw lacks.

    Out of its answer to `status`, where who needs a key is `stale` if its old one was kept and
    `cold` if it has none: a provider, or a profile of ours, told once for each agent's store.
    """
    lacking = {
        (profile or str(owner.get("ownerId")), str(owner.get("degradationState")))
        for owner in degraded(status)
        if (profile := _profile(owner)) or owner.get("ownerKind") == "provider"
    }
    return len(lacking) == revoked and all(state == "cold" for _, state in lacking)


def _profile(owner: Mapping[str, Any]) -> str | None:
    """Return which profile of ours *owner* is, out of its id `["store","profile"]`."""
    found = re.search(r'"([^"]+:byok)"\]$', str(owner.get("ownerId")))
    return found[1] if found else None


def degraded(status: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    """Return who lacks a secret, out of OpenClaw's answer to `status`."""
    owners = status.get("degradedSecretOwners")
    return [_object(owner) for owner in owners] if isinstance(owners, list) else []


class Probed(StrEnum):
    """What OpenClaw says of a tiny call it has made."""

    OK = "ok"
    AUTH = "auth"
    BILLING = "billing"
    RATE_LIMIT = "rate_limit"


PROBED_STATUS: Final[Mapping[str, int]] = {
    Probed.OK: 200,
    Probed.AUTH: 401,
    Probed.BILLING: 402,
    Probed.RATE_LIMIT: 429,
}
"""The HTTP status that each result stands for. The rest says nothing of the key."""


def probed_status(answer: Mapping[str, Any]) -> int | None:
    """Return the status of the call that a probe made; None if it shows nothing."""
    return PROBED_STATUS.get(str(answer.get("status", "")))


def provider_name(slot_id: str, provider: str, asking: Collection[str]) -> str | None:
    """Return what OpenClaw calls the provider whose key it asks us for as that of *slot_id*.

    OpenClaw blackens the id of a secret, so the name tells: it is the slot's, or the provider's
    (`config.name_of`). None if there is no such one.
    """
    return next((name for name in (slot_id, provider) if name in asking), None)


def asking(config: Mapping[str, Any]) -> frozenset[str]:
    """Return the providers whose keys OpenClaw runs a command for, by its `config.get`.

    By a profile of ours, or by a SecretRef in the configuration itself, as somebody may have
    written it by hand.
    """
    profiles = _object(_object(_object(config.get("parsed")).get("auth")).get("profiles"))
    ours = {name.removesuffix(_OURS) for name in map(str, profiles) if name.endswith(_OURS)}
    return frozenset(ours) | {
        name
        for name, entry in configured_providers(config).items()
        if _object(entry.get("apiKey")).get("source") == "exec"
    }


def configured_providers(config: Mapping[str, Any]) -> dict[str, Mapping[str, Any]]:
    """Return `models.providers` of what OpenClaw's `config.get` answered."""
    parsed = _object(config.get("parsed"))
    providers = _object(_object(parsed.get("models")).get("providers"))
    return {str(name): _object(entry) for name, entry in providers.items()}
