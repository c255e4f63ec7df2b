"""What `byok-vps doctor` says of a running OpenClaw. Pure: its own answers in, findings out."""

from collections.abc import Collection, Mapping, Sequence
from typing import Any, Final

from bus_schemas.finding import Finding, Grade
from vps_runtime.openclaw.config import SlotToUse
from vps_runtime.openclaw.protocol import TRIED, asking, configured_providers, degraded

_CHECK: Final = "openclaw"


def version_finding(version: str) -> Finding:
    """Judge OpenClaw's *version*."""
    if version in TRIED:
        return Finding(Grade.OK, _CHECK, f"version {version} lets us in")
    known = ", ".join(sorted(TRIED))
    detail = f"version {version or 'unknown'} lets us in; what we rely on was tried with {known}"
    return Finding(Grade.WARN, _CHECK, detail)


def secrets_finding(status: Mapping[str, Any]) -> Finding:
    """Judge whether OpenClaw has the secrets that it is told to ask for."""
    lacking = degraded(status)
    if not lacking:
        return Finding(Grade.OK, _CHECK, "no secret is missing there")
    named = ", ".join(
        f"{owner.get('ownerKind')} {owner.get('ownerId')} ({owner.get('degradationState')})"
        for owner in lacking[:5]
    )
    remedy = "cold: it has no key; stale: it goes on with the old one. See docs/openclaw.md"
    return Finding(Grade.WARN, _CHECK, f"it lacks a secret for {named}; {remedy}")


def slot_findings(
    config: Mapping[str, Any], slots: Sequence[SlotToUse], gateway: str
) -> list[Finding]:
    """Judge by OpenClaw's configuration whether it uses *slots*; *gateway* is our own address."""
    configured = configured_providers(config)
    return [
        *(_slot(slot, configured, asking(config), gateway) for slot in slots),
        *_own_keys(configured, gateway, {slot.provider for slot in slots}),
    ]


def _slot(
    slot: SlotToUse,
    configured: Mapping[str, Mapping[str, Any]],
    asks: Collection[str],
    gateway: str,
) -> Finding:
    here = f"{gateway}/{slot.slot_id}"
    for name, entry in configured.items():
        if _below(entry, here):
            return Finding(Grade.OK, _CHECK, f"{name} calls the gateway for {slot.slot_id}")
    for name in (slot.slot_id, slot.provider):
        if name in asks:
            detail = f"{name} asks the resolver for {slot.slot_id}; its shell can ask as well"
            return Finding(Grade.OK, _CHECK, detail)
    remedy = f"merge what `byok-vps openclaw-config --slot {slot.slot_id}` prints"
    return Finding(Grade.WARN, _CHECK, f"{slot.slot_id} is held and not used there; {remedy}")


def _own_keys(
    configured: Mapping[str, Mapping[str, Any]], gateway: str, held: set[str]
) -> list[Finding]:
    """Warn of keys that stand in OpenClaw's own configuration beside those held here."""
    return [
        Finding(
            Grade.WARN,
            _CHECK,
            f"{name} has a key of its own in its configuration: it stays in use whatever is"
            f" rotated or revoked here; use `byok-vps openclaw-config` and revoke that key",
        )
        for name, entry in configured.items()
        if name in held and isinstance(entry.get("apiKey"), str) and not _below(entry, gateway)
    ]


def _below(entry: Mapping[str, Any], url: str) -> bool:
    base = str(entry.get("baseUrl", "")).rstrip("/")
    return base == url or base.startswith(f"{url}/")
