"""Whether a sealed credential is taken in. Pure; the order of the checks is docs/protocol.md's.

Left to others: fetching it, storing what comes out, telling either way. A refusal here never
touches the credential that is in use.
"""

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field

from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey

from bus_schemas.credential import CredentialPayload
from bus_schemas.errors import Refused
from bus_schemas.events.config import DesiredSlot
from bus_schemas.keys import owner_fingerprint
from bus_schemas.sealed import SealedEnvelope, check_signature, open_sealed

MAX_GAP = 1000
"""How far a revision may jump: a sealing of 2**53 would end all rotations of its slot."""

NEWER = "newer_than_desired"
"""The owner's next sealing has overtaken its document; writers put the sealing first."""


@dataclass(frozen=True, slots=True)
class Gate:
    """What an envelope for one slot is held against."""

    server_id: str
    owner_id: str
    slot: DesiredSlot
    last_revision: int
    """The highest revision ever taken in for this slot; 0 for none."""
    pinned: Collection[str]
    """Fingerprints of the owner keys that this server obeys."""
    sealing_keys: Mapping[str, X25519PrivateKey] = field(repr=False)
    """Private halves by key id, the previous one for a while included."""
    now: float
    """Unix seconds."""


def admit(envelope: SealedEnvelope, gate: Gate) -> CredentialPayload:
    """Return the credential in *envelope*. Raises Refused with the reason to report.

    Reasons: `wrong_owner`, `wrong_server`, `wrong_slot`, `unknown_sealing_key`,
    `owner_key_not_pinned`, `bad_signature`, `stale_revision`, `revision_jump`,
    `below_min_revision`, `not_the_desired_one`, `expired`, `does_not_open`, `bad_padding`,
    `bad_payload`. And NEWER, which is nothing to report: its document is on the way.
    """
    key = _addressed(envelope, gate)
    # HPKE's base mode authenticates nobody (RFC 9180 section 9.1.1): pin, then signature.
    fingerprint = owner_fingerprint(envelope.sender_public_key)
    if fingerprint not in gate.pinned:
        detail = f"if it is the owner's, run `byok-vps trust {fingerprint}` on {gate.server_id}"
        raise Refused("owner_key_not_pinned", detail)
    check_signature(envelope)
    _check_revision(envelope, gate)
    if gate.now > envelope.not_after:
        raise Refused("expired", f"slot {envelope.slot_id}: seal the credential again")
    return open_sealed(envelope, sealing_private_key=key)


def _addressed(envelope: SealedEnvelope, gate: Gate) -> X25519PrivateKey:
    for reason, got, wanted in (
        ("wrong_owner", envelope.owner_id, gate.owner_id),
        ("wrong_server", envelope.server_id, gate.server_id),
        ("wrong_slot", envelope.slot_id, gate.slot.slot_id),
    ):
        if got != wanted:
            raise Refused(reason, f"sealed for {got}, expected {wanted}")
    key = gate.sealing_keys.get(envelope.key_id)
    if key is None:
        detail = f"{envelope.key_id} is not (or no longer) a key of {gate.server_id}; seal again"
        raise Refused("unknown_sealing_key", detail)
    return key


def _check_revision(envelope: SealedEnvelope, gate: Gate) -> None:
    slot, revision, last = gate.slot, envelope.revision, gate.last_revision
    if revision <= last:
        raise Refused("stale_revision", f"slot {slot.slot_id} already had revision {last}")
    # A machine that knows of no revision may be the second one of its name: any may be the next.
    if last and revision > last + MAX_GAP:
        raise Refused("revision_jump", f"more than {MAX_GAP} beyond revision {last}")
    if revision < slot.min_revision:
        detail = f"slot {slot.slot_id} takes {slot.min_revision} or higher"
        raise Refused("below_min_revision", detail)
    if revision > slot.revision:
        raise Refused(NEWER, f"slot {slot.slot_id} has revision {revision} already")
    signed = (revision, envelope.envelope_id, envelope.provider, envelope.kind)
    if signed != (slot.revision, slot.rotation_id, slot.provider, slot.kind):
        detail = f"slot {slot.slot_id} wants revision {slot.revision}, {slot.rotation_id}"
        raise Refused("not_the_desired_one", detail)
