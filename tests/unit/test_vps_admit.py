"""Which sealed credentials are taken in: each check alone, and their order."""

import dataclasses

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey
from hypothesis import given
from hypothesis import strategies as st
from pydantic import SecretStr

from bus_schemas.credential import CredentialPayload
from bus_schemas.errors import Refused
from bus_schemas.events.config import DesiredSlot
from bus_schemas.fields import CredentialKind
from bus_schemas.keys import owner_fingerprint
from bus_schemas.sealed import SealContext, SealedEnvelope, seal
from vps_runtime.config.admit import MAX_GAP, NEWER, Gate, admit

OWNER = Ed25519PrivateKey.from_private_bytes(b"\x01" * 32)
SEALING = X25519PrivateKey.from_private_bytes(b"\x02" * 32)
ROTATION = "01890000-0000-7000-8000-000000000001"
NOW = 1_800_000_000
PAYLOAD = CredentialPayload(
    secret=SecretStr("sk-ant-canary"),
    base_url="https://api.anthropic.com",
    header_style="x-api-key",
)


def fingerprint(key: Ed25519PrivateKey) -> str:
    """Return an owner key's fingerprint."""
    return owner_fingerprint(key.public_key().public_bytes_raw())


CONTEXT = SealContext(
    owner_id="acme",
    server_id="acme-1",
    key_id="k-1",
    slot_id="anthropic",
    provider="anthropic",
    kind=CredentialKind.API_KEY,
    revision=5,
    not_after=NOW,
    envelope_id=ROTATION,
)


def envelope(
    changes: dict[str, object] | None = None, by: Ed25519PrivateKey = OWNER
) -> SealedEnvelope:
    """Return a sealing with *changes*."""
    return seal(
        PAYLOAD,
        CONTEXT.model_copy(update=changes or {}),
        sealing_public_key=SEALING.public_key().public_bytes_raw(),
        owner_private_key=by,
    )


SLOT = DesiredSlot(
    slot_id="anthropic",
    provider="anthropic",
    kind=CredentialKind.API_KEY,
    revision=5,
    min_revision=3,
    rotation_id=ROTATION,
)
GATE = Gate(
    server_id="acme-1",
    owner_id="acme",
    slot=SLOT,
    last_revision=4,
    pinned=(fingerprint(OWNER),),
    sealing_keys={"k-1": SEALING},
    now=NOW,
)
GOOD = envelope()


def refusal(sealed: SealedEnvelope, gate: Gate = GATE) -> str:
    """Return why *sealed* is refused."""
    with pytest.raises(Refused) as caught:
        admit(sealed, gate)
    assert "canary" not in str(caught.value)
    return caught.value.reason


def test_a_good_one_comes_in() -> None:
    """All checks passed: the credential comes out as it was sealed, to its last second."""
    assert admit(GOOD, GATE) == PAYLOAD


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"owner_id": "globex"}, "wrong_owner"),
        ({"server_id": "acme-2"}, "wrong_server"),
        ({"slot_id": "openai"}, "wrong_slot"),
        ({"key_id": "k-2"}, "unknown_sealing_key"),
        ({"revision": 4}, "stale_revision"),
        ({"revision": 4 + MAX_GAP + 1}, "revision_jump"),
        ({"revision": 6}, NEWER),
        ({"envelope_id": ROTATION.replace("1", "2")}, "not_the_desired_one"),
        ({"provider": "openai"}, "not_the_desired_one"),
        ({"not_after": NOW - 1}, "expired"),
    ],
)
def test_each_binding_is_checked(changes: dict[str, object], reason: str) -> None:
    """An owner's honest signature does not make another context's envelope ours."""
    assert refusal(envelope(changes)) == reason


def test_a_machine_in_anothers_place_takes_any_revision() -> None:
    """It knows of none, while its slot may have come far on the machine before it."""
    slot = SLOT.model_copy(update={"revision": 5 * MAX_GAP})
    gate = dataclasses.replace(GATE, slot=slot, last_revision=0)
    assert admit(envelope({"revision": 5 * MAX_GAP}), gate) == PAYLOAD


def test_a_key_nobody_pinned_is_refused() -> None:
    """However well a key signs: typed on the console, or not obeyed. The way out is named."""
    stranger = Ed25519PrivateKey.from_private_bytes(b"\x03" * 32)
    with pytest.raises(Refused, match=f"owner_key_not_pinned: .*trust {fingerprint(stranger)}"):
        admit(envelope(by=stranger), GATE)


def test_the_minimum_holds_even_for_a_newer_one() -> None:
    """A revision that was retired before it arrived is not opened."""
    gate = dataclasses.replace(GATE, slot=SLOT.model_copy(update={"min_revision": 6}))
    assert refusal(GOOD, gate) == "below_min_revision"


def test_a_slot_takes_the_kind_that_its_document_says() -> None:
    """Honestly sealed as an API key, for a slot that is to hold another kind."""
    gate = dataclasses.replace(GATE, slot=SLOT.model_copy(update={"kind": CredentialKind.OAUTH}))
    assert refusal(GOOD, gate) == "not_the_desired_one"


def test_the_minimum_itself_is_taken() -> None:
    """An owner that retires all before the newest must not retire that one."""
    gate = dataclasses.replace(GATE, slot=SLOT.model_copy(update={"min_revision": 5}))
    assert admit(GOOD, gate) == PAYLOAD


def test_the_signature_is_checked_before_the_revision() -> None:
    """What an owner is told of revisions is the owner's word: a forger learns none of it."""
    forged = envelope({"revision": 4}).model_copy(update={"sig": GOOD.sig})
    assert refusal(forged) == "bad_signature"


def test_the_widest_jump_is_allowed() -> None:
    """Up to the gap a revision may jump, and no further."""
    slot = SLOT.model_copy(update={"revision": 4 + MAX_GAP})
    sealed = envelope({"revision": 4 + MAX_GAP})
    assert admit(sealed, dataclasses.replace(GATE, slot=slot)) == PAYLOAD


def test_another_sealing_key_does_not_open_it() -> None:
    """The key id says which key; if that key does not open it, nothing does."""
    gate = dataclasses.replace(GATE, sealing_keys={"k-1": X25519PrivateKey.generate()})
    assert refusal(GOOD, gate) == "does_not_open"


@given(st.sampled_from(sorted(SealedEnvelope.model_fields)), st.data())
def test_any_changed_field_is_refused(name: str, data: st.DataObject) -> None:
    """Whatever is changed on the way: it does not come in."""
    value = getattr(GOOD, name)
    if name == "v":
        return  # one value only; the model refuses another
    if isinstance(value, bytes):
        at = data.draw(st.integers(0, len(value) - 1))
        bit = data.draw(st.integers(0, 7))
        changed: object = value[:at] + bytes([value[at] ^ (1 << bit)]) + value[at + 1 :]
    elif isinstance(value, int):
        changed = data.draw(st.integers(1, 2**53 - 1).filter(lambda n: n != value))
    elif isinstance(value, CredentialKind):
        changed = CredentialKind.OAUTH
    else:
        changed = value[:-1] + ("2" if value[-1] != "2" else "3")
    refusal(GOOD.model_copy(update={name: changed}))


def test_the_private_keys_are_not_shown() -> None:
    """A gate may end up in a traceback; the keys in it may not."""
    assert "X25519" not in repr(GATE)
