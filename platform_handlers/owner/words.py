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
    "bad_signature": "The signature does not fit: the envelope was changed on its way.",
    "does_not_open": "It was sealed to a key the server no longer has. Send it again.",
    "bad_padding": "What was inside is damaged. Send it again.",
    "bad_payload": "What was inside is no credential. Send it again.",
    "owner_key_not_pinned": "The server does not know your owner key. On its console run "
    "`byok-vps trust FINGERPRINT` with what `byok owner fingerprint` prints here.",
    "expired": "It reached the server too late. Send it again.",
    "stale_revision": "A newer credential had arrived before it. Look at the slot first.",
    "never_delivered": "No credential has reached this server yet.",
    "re_enrolled": "The server was set up anew and has lost what it held.",
}


def reason_in_words(reason: str) -> str:
    """Return the sentence for a reason code; an unknown code speaks for itself."""
    return _REASONS.get(reason) or reason.replace("_", " ").capitalize() + "."
