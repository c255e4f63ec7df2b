"""What became of a credential, in words. Pure."""

from collections.abc import Mapping
from typing import Final

from bus_schemas.api import ServerHealth, SlotStep, StepView
from bus_schemas.events.health import LinkHealth, Presence, Validity
from platform_handlers.owner.keys.rules import Claim, Course, Phase, SlotCourse

STEP_IN_WORDS: Final[Mapping[SlotStep, str]] = {
    SlotStep.SENT: "sealed for the server",
    SlotStep.STORED: "on the server, encrypted",
    SlotStep.REJECTED: "the one before it is untouched",
    SlotStep.VERIFIED: "tested with the provider",
    SlotStep.IN_USE: "the provider has answered a call made with it",
    SlotStep.DRAINED: "nothing uses an older one any more",
    SlotStep.RETIRED: "never used again, and out of the vault",
    SlotStep.ABORTED: "the one before it goes on",
    SlotStep.NEEDS_KEY: "the server has no usable credential here",
}
"""What is true at a step, beside its name."""

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
    "refused_by_provider": "The provider does not accept it. Copy it anew from the provider's "
    "console, or make another one there.",
    "invalid_grant": "The provider does not accept the sign-in any more: somebody else has used "
    "its refresh token, or it was taken back. Sign in anew.",
    "refresh_answer_lost": "The answer to a renewal of the sign-in was lost on its way, and the "
    "provider takes no refresh token twice. Sign in anew.",
    "refresh_token_spent": "The server itself has renewed that very sign-in, in this slot or in "
    "another one, so this copy of it is used up. Sign in anew, for this slot alone.",
    "not_bearer": "The provider gave tokens of a kind that no agent can use. Use an API key.",
    "invalid_client": "The provider does not know the client the sign-in names. Sign in anew.",
    "unauthorized_client": "The provider lets that client renew no sign-in. Use an API key.",
    "superseded": "A newer credential took its place before it was tested.",
    "aborted_by_owner": "It was given up by your order.",
    "not_delivered": "None was delivered, or none in time. Send one.",
    "rejected": "The last one that came was refused. Send another one.",
    "retired": "It was taken out of use for good. Send a new one.",
    "vault_record_damaged": "What the server had stored of it is damaged. Send it again.",
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
    "not_pending": "That revision does not wait for the provider's word any more; `byok key "
    "status` tells what became of it.",
    "not_held": "It does not hold that revision any more; `byok key status` tells what became of "
    "it.",
    "locked": "It is locked, and cannot look into its vault. Unlock it first with `byok server "
    "unlock`, then give the order again.",
    "revision_jump": "That revision is far above all that it ever held. Look at the slot with "
    "`byok key status`, then give the order again.",
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


_VERDICTS: Final[Mapping[str, str]] = {
    Validity.VALID: "the provider accepts it",
    Validity.LIMITED: "the provider accepts it, within a limit: quota, rate or balance",
    Validity.INVALID: "the provider refuses it",
    Validity.UNKNOWN: "the provider's answer was unclear",
}


def verdict_in_words(verdict: str | None) -> str:
    """Return what the provider said; of None, that it was not asked yet."""
    return _VERDICTS.get(verdict, verdict) if verdict else "not tested with the provider yet"


def health_in_words(health: ServerHealth) -> str:
    """Return the three facts of a report, each for itself."""
    return "; ".join((_LINKS[health.link], _AGENTS[health.agent], _PROVIDERS[health.provider]))


_LINKS: Final[Mapping[LinkHealth | None, str]] = {
    None: "nothing is said of its link",
    LinkHealth.STEADY: "its link is steady",
    LinkHealth.FLAPPING: "its link comes and goes",
}
_AGENTS: Final[Mapping[Presence | None, str]] = {
    None: "the agent has made no call yet",
    Presence.UP: "the agent is there",
    Presence.DOWN: "the agent does not answer",
    Presence.UNKNOWN: "the agent was not heard of lately",
}
_PROVIDERS: Final[Mapping[Presence | None, str]] = {
    None: "nothing is said of the providers",
    Presence.UP: "the providers answer",
    Presence.DOWN: "a provider does not answer",
    Presence.UNKNOWN: "no provider was asked lately",
}


def step_in_words(step: StepView) -> str:
    """Return one step with its reason or verdict."""
    if step.step is SlotStep.VERIFIED:
        by = "by your order" if step.reason == Validity.UNKNOWN else "from now on"
        return verdict_in_words(step.reason) + (f"; used {by}" if step.promoted else "")
    words = STEP_IN_WORDS[step.step]
    return f"{words}. {reason_in_words(step.reason)}" if step.reason else words


_PHASES: Final[Mapping[Phase, str]] = {
    Phase.SENT: "sent, and not yet taken by the server",
    Phase.PENDING: "stored, and not in use",
    Phase.CURRENT: "used from now on; no call has been answered with it yet",
    Phase.REFUSED: "refused; the credential before it is untouched",
    Phase.ABORTED: "given up; the credential before it goes on",
    Phase.RETIRED: "out of use for good, and out of the server's vault",
    Phase.LOST: STEP_IN_WORDS[SlotStep.NEEDS_KEY],
}


def state_in_words(found: Course) -> str:
    """Return where one revision stands now."""
    if found.phase is Phase.PENDING:
        return f"{_PHASES[found.phase]}: {verdict_in_words(found.verdict)}"
    if found.phase is Phase.CURRENT and found.verdict == Validity.INVALID:
        return "in use, and refused by the provider at its last test"
    if found.phase is Phase.CURRENT and found.answered:
        return "in use: the provider has answered with it"
    words = _PHASES[found.phase]
    return f"{words}. {reason_in_words(found.reason)}" if found.reason else words


def claim_in_words(about: Claim, slot: SlotCourse) -> str:
    """Return what is true of the key before the newest one, without a link."""
    match about:
        case Claim.NONE:
            return "there was none"
        case Claim.IN_USE:
            return f"do not revoke it: revision {slot.in_use} stays in use"
        case Claim.DRAINING:
            return "do not revoke it yet: a call with it may still wait for its answer"
        case Claim.MAY_BE_REVOKED:
            return "you may revoke it now, unless it is the same key or another server has it"
        case Claim.NOTHING_IN_USE:
            return "the server uses no key of this slot; revoke any that is compromised"
