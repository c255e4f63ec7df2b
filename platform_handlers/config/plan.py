"""From a sealed credential to a server's next desired document. Pure.

Left to others: reading and storing the documents with compare-and-set (`writer`), whether the
caller is the owner (the API), whether the owner's key is pinned (the server itself).
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from bus_schemas.errors import Refused
from bus_schemas.events import ConfigDesired
from bus_schemas.events.config import DesiredSlot
from bus_schemas.events.fingerprint import MAX_SLOTS
from bus_schemas.providers import Provider
from bus_schemas.sealed import SealedEnvelope, check_signature

MAX_STEP: Final = 1000
"""A server takes no revision further ahead: a slip must not use up the counter."""

MAX_SEALED_SECONDS: Final = 24 * 3600


@dataclass(frozen=True)
class Situation:
    """What a plan is made on."""

    server_owner: str
    """The server's owner, from the registry."""
    current: ConfigDesired | None
    """The newest desired document; None before the first."""
    providers: Mapping[str, Provider]
    now: int
    """Unix seconds."""

    def slot(self, slot_id: str) -> DesiredSlot | None:
        """Return what the slot should hold so far."""
        slots = self.current.slots if self.current else ()
        return next((slot for slot in slots if slot.slot_id == slot_id), None)


def plan(situation: Situation, envelope: SealedEnvelope, base_revision: int) -> ConfigDesired:
    """Return the document that asks for *envelope*; the current one if it does already.

    *base_revision* is the newest revision that the sealer knew of, 0 for a new slot. Raises
    Refused: `not_your_server`, `bad_signature`, `unknown_provider`, `kind_not_offered`,
    `expired`, `stale_base_revision`, `revision_not_newer`, `revision_too_far`, `too_many_slots`,
    `revision_retired`.
    """
    if envelope.owner_id != situation.server_owner:
        raise Refused("not_your_server", f"{envelope.server_id} is not {envelope.owner_id}'s")
    check_signature(envelope)
    slot = situation.slot(envelope.slot_id)
    if (
        situation.current is not None
        and slot is not None
        and (slot.rotation_id, slot.revision) == (envelope.envelope_id, envelope.revision)
    ):
        if slot.revision < slot.min_revision:  # told again, it would wait for ever
            detail = f"revision {slot.revision} of slot {slot.slot_id} was retired; seal anew"
            raise Refused("revision_retired", detail)
        return situation.current  # the answer to this very request got lost
    _check_provider(situation, envelope)
    if envelope.not_after <= situation.now:
        detail = f"envelope {envelope.envelope_id} ended; seal anew, and check this clock"
        raise Refused("expired", detail)
    _check_revision(envelope, base_revision, slot.revision if slot else 0)
    return _next(situation, envelope, slot)


def lifetime(envelope: SealedEnvelope, *, now: int) -> int:
    """Return for how many seconds the sealed message is kept: a day, or less if it ends sooner."""
    return max(1, min(envelope.not_after - now, MAX_SEALED_SECONDS))


def _check_provider(situation: Situation, envelope: SealedEnvelope) -> None:
    provider = situation.providers.get(envelope.provider)
    if provider is None:
        raise Refused("unknown_provider", f"no provider {envelope.provider} in the catalogue")
    if envelope.kind not in provider.auth:
        raise Refused("kind_not_offered", f"{provider.name} takes no {envelope.kind}")


def _check_revision(envelope: SealedEnvelope, base_revision: int, newest: int) -> None:
    where = f"slot {envelope.slot_id} of {envelope.server_id}"
    if base_revision != newest:
        detail = f"{where} is at revision {newest}, this was sealed on top of {base_revision}"
        raise Refused("stale_base_revision", detail)
    if envelope.revision <= newest:
        raise Refused("revision_not_newer", f"{where} is at revision {newest} already")
    if envelope.revision > newest + MAX_STEP:
        detail = f"{where} is at {newest}; a revision is at most {MAX_STEP} higher"
        raise Refused("revision_too_far", detail)


def _next(
    situation: Situation, envelope: SealedEnvelope, slot: DesiredSlot | None
) -> ConfigDesired:
    wanted = DesiredSlot(
        slot_id=envelope.slot_id,
        provider=envelope.provider,
        kind=envelope.kind,
        revision=envelope.revision,
        min_revision=slot.min_revision if slot else 0,
        rotation_id=envelope.envelope_id,
    )
    current = situation.current
    others = [s for s in (current.slots if current else ()) if s.slot_id != wanted.slot_id]
    if len(others) >= MAX_SLOTS:
        raise Refused("too_many_slots", f"{envelope.server_id} has {MAX_SLOTS} slots, the most")
    return ConfigDesired(
        server_id=envelope.server_id,
        owner_id=situation.server_owner,
        generation=current.generation + 1 if current else 1,
        slots=tuple(sorted((*others, wanted), key=lambda s: s.slot_id)),
        orders=current.orders if current else (),
        highest_n=current.highest_n if current else None,
    )
