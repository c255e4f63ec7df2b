"""What OpenClaw's configuration has to say about the slots of this server. Pure.

Facts about OpenClaw's own providers were read off the package `openclaw@2026.9.6`.
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from vps_runtime.resolver.rules import secret_id
from vps_runtime.resolver.script import SETUP

BUNDLED: Final = frozenset(
    {
        "anthropic",
        "github-copilot",
        "google",
        "huggingface",
        "minimax",
        "nvidia",
        "openai",
        "openrouter",
        "together",
        "xai",
    }
)
"""Providers that OpenClaw knows without a plugin: an address and a key are enough."""

_API: Final[Mapping[str, str]] = {
    "anthropic": "anthropic-messages",
    "google": "google-generative-ai",
    "minimax": "anthropic-messages",
    "openai": "openai-responses",
    "vercel-ai-gateway": "anthropic-messages",
    "xai": "openai-responses",
}
"""What each provider speaks, in OpenClaw's words; the others speak `openai-completions`."""

UNROUTABLE: Final = frozenset({"github-copilot"})
"""Providers whose token OpenClaw exchanges for another first: no gateway can put it in."""

_ALIAS: Final = "byok"
_AGENT: Final = "main"
"""OpenClaw's own; its other agents use the profiles of this one."""
_TIMEOUT_MS: Final = 5000
_TOKENS: Final = frozenset({"github-copilot"})
"""Providers whose profiles hold a token instead of a key."""


@dataclass(frozen=True)
class SlotToUse:
    """One slot that OpenClaw is to use."""

    slot_id: str
    provider: str
    base_url: str
    """Where the provider is called."""
    models: tuple[str, ...] = ()
    """Names of models; OpenClaw knows those of the providers it knows."""


@dataclass(frozen=True)
class ByGateway:
    """OpenClaw calls our gateway, which adds the key."""

    url: str
    """`http://127.0.0.1:port`"""
    token: str = field(repr=False)
    """What it shows there; of no use anywhere else."""


@dataclass(frozen=True)
class ByExec:
    """OpenClaw runs a command that asks us for the key, and calls the provider itself."""

    resolver: Path
    socket: Path


Way = ByGateway | ByExec


def name_of(slot: SlotToUse, slots: Sequence[SlotToUse]) -> str:
    """Return what OpenClaw is to call *slot*: as its provider if it is the only one of it."""
    alone = Counter(one.provider for one in slots)[slot.provider] == 1
    others = {one.slot_id for one in slots} - {slot.slot_id}
    return slot.provider if alone and slot.provider not in others else slot.slot_id


def openclaw_config(slots: Sequence[SlotToUse], way: Way) -> dict[str, Any]:
    """Return what is to be merged into `openclaw.json` so that it uses *slots* that *way*."""
    entries = {name_of(slot, slots): _entry(slot, name_of(slot, slots), way) for slot in slots}
    if isinstance(way, ByGateway):
        return {"models": {"providers": entries}}
    profiles = {
        profile_of(name_of(slot, slots)): {
            "provider": name_of(slot, slots),
            "mode": _kind(slot)[0],
        }
        for slot in slots
    }
    return {
        "models": {"providers": {name: entry for name, entry in entries.items() if entry}},
        "auth": {"profiles": profiles},
        "secrets": {"providers": {_ALIAS: _command(way)}},
    }


def secrets_plan(slots: Sequence[SlotToUse]) -> dict[str, Any]:
    """Return what `openclaw secrets apply` is to do: have its profiles ask us for the keys.

    A key that stands in the configuration as a SecretRef would change that configuration at each
    rotation, and with it OpenClaw gives up the turns it is just preparing (ADR-28).
    """
    return {
        "version": 1,
        "protocolVersion": 1,
        "targets": [_target(slot, name_of(slot, slots)) for slot in slots],
    }


def profile_of(name: str) -> str:
    """Return the profile that has OpenClaw ask us for the key of the provider *name*."""
    return f"{name}:{_ALIAS}"


def _target(slot: SlotToUse, name: str) -> dict[str, Any]:
    kind, where = _kind(slot)
    return {
        "type": f"auth-profiles.{kind}.{where}",
        "path": f"profiles.{profile_of(name)}.{where}",
        "agentId": _AGENT,
        "authProfileProvider": name,
        "ref": {"source": "exec", "provider": _ALIAS, "id": secret_id(slot.slot_id)},
    }


def _kind(slot: SlotToUse) -> tuple[str, str]:
    return ("token", "token") if slot.provider in _TOKENS else ("api_key", "key")


def needs_model(slot: SlotToUse, slots: Sequence[SlotToUse]) -> bool:
    """Whether OpenClaw has to be told a model of *slot* and was not."""
    return name_of(slot, slots) not in BUNDLED and not slot.models


def _entry(slot: SlotToUse, name: str, way: Way) -> dict[str, Any]:
    entry: dict[str, Any] = {}
    if isinstance(way, ByGateway):
        entry["baseUrl"] = f"{way.url}/{slot.slot_id}"
        entry["apiKey"] = way.token
    elif name not in BUNDLED:
        entry["baseUrl"] = slot.base_url
    if name not in BUNDLED:
        entry["api"] = _API.get(slot.provider, "openai-completions")
    if slot.models or name not in BUNDLED:
        entry["models"] = [{"id": model, "name": model} for model in slot.models]
    return entry


def _command(way: ByExec) -> dict[str, Any]:
    return {
        "source": "exec",
        "command": str(way.resolver),
        "trustedDirs": [str(way.resolver.parent)],
        "timeoutMs": _TIMEOUT_MS,
        "jsonOnly": True,
        "env": {"BYOK_SOCKET": str(way.socket)},
        "passEnv": [SETUP],
    }
