"""What a sealed credential makes of a server's desired document."""

from dataclasses import replace

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey
from pydantic import SecretStr

from bus_schemas.credential import CredentialPayload, OAuthSet
from bus_schemas.errors import Refused
from bus_schemas.events import ConfigDesired
from bus_schemas.events.fingerprint import MAX_SLOTS
from bus_schemas.fields import CredentialKind
from bus_schemas.providers import load_providers
from bus_schemas.sealed import SealContext, SealedEnvelope, seal
from platform_handlers.config.plan import Situation, lifetime, plan

NOW = 1_800_000_000
IDS = [f"01890000-0000-7000-8000-{n:012x}" for n in range(100)]


def sealing(number: int = 1, /, **changes: object) -> SealedEnvelope:
    """Return a signed envelope for acme-1 with *changes*."""
    values: dict[str, object] = {
        "owner_id": "acme",
        "server_id": "acme-1",
        "key_id": "k1",
        "slot_id": "anthropic",
        "provider": "anthropic",
        "kind": CredentialKind.API_KEY,
        "revision": number,
        "not_after": NOW + 3600,
        "envelope_id": IDS[number % 100],
    }
    context = SealContext.model_validate(values | changes)
    secret, oauth = SecretStr("not-a-real-key"), None
    if context.kind is CredentialKind.OAUTH:
        oauth = OAuthSet(
            access_token=secret,
            refresh_token=secret,
            token_endpoint="https://example.com/token",
            client_id="c",
            issuer="https://example.com",
        )
    payload = CredentialPayload(
        secret=None if oauth else secret,
        oauth=oauth,
        base_url="https://example.com",
        header_style="bearer",
    )
    return seal(
        payload,
        context,
        sealing_public_key=X25519PrivateKey.generate().public_key().public_bytes_raw(),
        owner_private_key=Ed25519PrivateKey.generate(),
    )


EMPTY = Situation("acme", None, load_providers(), NOW)


def after(*envelopes: SealedEnvelope) -> Situation:
    """Return the situation once *envelopes* were accepted one after the other."""
    situation = EMPTY
    for envelope in envelopes:
        slot = situation.slot(envelope.slot_id)
        base = slot.revision if slot else 0
        situation = replace(situation, current=plan(situation, envelope, base))
    return situation


def test_the_first_sealing_makes_the_first_document() -> None:
    """It holds one slot, at generation 1."""
    envelope = sealing()
    document = plan(EMPTY, envelope, 0)
    assert document.generation == 1
    assert document.owner_id == "acme"
    [slot] = document.slots
    assert (slot.slot_id, slot.revision, slot.min_revision) == ("anthropic", 1, 0)
    assert slot.rotation_id == envelope.envelope_id


def test_a_rotation_replaces_its_slot_only() -> None:
    """Other slots, orders and the slot's floor stay; slots are in order of their ids."""
    situation = after(sealing(1, slot_id="z"), sealing(2))
    assert situation.current is not None
    floor = situation.current.slots[0].model_copy(update={"min_revision": 2})
    raised = situation.current.model_copy(
        update={"slots": (floor, situation.current.slots[1]), "highest_n": 7}
    )
    document = plan(replace(situation, current=raised), sealing(5), 2)
    assert [(s.slot_id, s.revision, s.min_revision) for s in document.slots] == [
        ("anthropic", 5, 2),
        ("z", 1, 0),
    ]
    assert (document.generation, document.highest_n) == (3, 7)


def test_the_same_envelope_again_is_the_same_document() -> None:
    """Also when it has ended since, and whatever base it names."""
    envelope = sealing()
    situation = replace(after(envelope), now=NOW + 10_000)
    assert plan(situation, envelope, 0) is situation.current


@pytest.mark.parametrize(
    ("changes", "base", "reason"),
    [
        ({"owner_id": "globex"}, 3, "not_your_server"),
        ({"provider": "nobody"}, 3, "unknown_provider"),
        ({"provider": "groq", "kind": "oauth"}, 3, "kind_not_offered"),
        ({"not_after": NOW}, 3, "expired"),
        ({}, 2, "stale_base_revision"),
        ({"slot_id": "new"}, 3, "stale_base_revision"),
        ({"revision": 3}, 3, "revision_not_newer"),
        ({"revision": 1004}, 3, "revision_too_far"),
    ],
)
def test_what_is_refused(changes: dict[str, object], base: int, reason: str) -> None:
    """Each refusal has its own code, and names the server or the slot."""
    situation = after(sealing(3))
    with pytest.raises(Refused) as caught:
        plan(situation, sealing(4, **({"envelope_id": IDS[50]} | changes)), base)
    assert caught.value.reason == reason
    assert caught.value.detail


def test_a_retired_revision_is_not_asked_for_again_but_a_newer_one_is() -> None:
    """An owner's client may repeat its last sealing after it was retired."""
    situation = after(sealing(3))
    assert situation.current is not None
    [slot] = situation.current.slots
    retired = situation.current.model_copy(
        update={"slots": (slot.model_copy(update={"min_revision": 4}),)}
    )
    gone = replace(situation, current=retired)
    with pytest.raises(Refused, match="revision_retired"):
        plan(gone, sealing(3), 2)
    [newer] = plan(gone, sealing(4, envelope_id=IDS[50]), 3).slots
    assert (newer.revision, newer.min_revision) == (4, 4)


def test_a_changed_envelope_is_refused() -> None:
    """The platform itself looks at the signature, so that nonsense never reaches a server."""
    forged = sealing().model_copy(update={"revision": 2})
    with pytest.raises(Refused, match="bad_signature"):
        plan(EMPTY, forged, 0)


def test_a_document_has_64_slots_at_most() -> None:
    """The 65th slot is refused, a rotation of the 64th is not."""
    full = after(sealing())
    assert full.current is not None
    slots = tuple(
        full.current.slots[0].model_copy(update={"slot_id": f"s{n:02}"}) for n in range(MAX_SLOTS)
    )
    full = replace(full, current=full.current.model_copy(update={"slots": slots}))
    with pytest.raises(Refused, match="too_many_slots"):
        plan(full, sealing(2), 0)
    assert isinstance(plan(full, sealing(2, slot_id="s63"), 1), ConfigDesired)


@pytest.mark.parametrize(
    ("not_after", "seconds"), [(NOW + 60, 60), (NOW + 10**6, 24 * 3600), (NOW - 5, 1)]
)
def test_a_sealed_message_lives_a_day_at_most(not_after: int, seconds: int) -> None:
    """And never longer than the envelope is good for."""
    assert lifetime(sealing(not_after=max(0, not_after)), now=NOW) == seconds
