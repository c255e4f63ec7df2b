"""What became of a credential, in words. Pure."""

from collections.abc import Mapping
from typing import Final

from bus_schemas.api import SlotStep

STEP_IN_WORDS: Final[Mapping[SlotStep, str]] = {
    SlotStep.SENT: "sent, and not yet taken by the server",
    SlotStep.STORED: "stored on the server, encrypted",
    SlotStep.REJECTED: "refused by the server; the credential before it is untouched",
    SlotStep.VERIFIED: "tested with the provider",
    SlotStep.IN_USE: "in use: the provider has answered with it",
    SlotStep.DRAINED: "in use; the old credential may be revoked",
    SlotStep.RETIRED: "retired",
    SlotStep.ABORTED: "given up; the credential before it goes on",
    SlotStep.NEEDS_KEY: "the server has no usable credential here",
}

_REASONS: Final[Mapping[str, str]] = {
    "wrong_owner": "It was sealed for another owner. Look which owner `byok owner connect` used.",
    "wrong_server": "It was sealed for another server. Send it again.",
    "wrong_slot": "It was sealed for another slot. Send it again.",
    "unknown_sealing_key": "It was sealed to a key the server no longer has. Send it again.",
    "owner_key_not_pinned": "The server does not obey your owner key. Run `byok owner fingerprint` "
    "on your machine, and `byok-vps trust` with what it prints on the server's console.",
    "bad_signature": "The signature does not fit: the envelope was changed on its way.",
    "stale_revision": "The server has had this revision already. Look at the slot, then send anew.",
    "revision_jump": "The revision is far above the last one. Look at the slot, then send anew.",
    "below_min_revision": "The revision was retired before it came. Send it again.",
    "not_the_desired_one": "A newer credential was asked for in the meantime. Look at the slot.",
    "expired": "It reached the server too late. Send it again.",
    "does_not_open": "It does not open with the server's key. Send it again.",
    "bad_padding": "What was inside is damaged. Send it again.",
    "bad_payload": "What was inside is no credential of this kind. Send it again.",
}

_ORDER_REASONS: Final[Mapping[str, str]] = {
    "owner_key_not_pinned": "It does not obey your owner key. Run `byok owner fingerprint` here, "
    "and `byok-vps trust` with what it prints on the server's console.",
    "bad_signature": "The signature does not fit. If the server was set up anew meanwhile, give "
    "the order again.",
    "replayed": "It has obeyed a newer order already. Give the order again.",
    "n_jump": "The order's number is far above the last one. Give the order again; if that stays "
    "so, see docs/owners.md.",
    "expired": "It came too late, or the server's clock is ahead. Give the order again.",
    "unknown_kind": "Its software is too old for this order.",
    "unknown_slot": "It has no such slot; `byok key status` lists them.",
    "last_pin": "That is the only owner key it obeys: nobody could order anything any more. Trust "
    "another one first, or use `byok-vps trust` on its console.",
    "too_many_pins": "It obeys as many owner keys as it can. Distrust one first.",
    "pins_damaged": "Its list of owner keys is damaged; look at `byok-vps doctor` on its console.",
}


def order_reason_in_words(reason: str) -> str:
    """Return the sentence for why a server refused an order."""
    return _ORDER_REASONS.get(reason) or reason_in_words(reason)


def reason_in_words(reason: str) -> str:
    """Return the sentence for a reason code; an unknown code speaks for itself."""
    return _REASONS.get(reason) or reason.replace("_", " ").capitalize() + "."
