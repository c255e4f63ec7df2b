"""From a credential to an envelope, on the owner's machine."""

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey

from bus_schemas.api import ServerView, SlotStep, SlotView, StepView
from bus_schemas.errors import ContractError, Refused
from bus_schemas.fields import CredentialKind
from bus_schemas.keys import server_fingerprint, sign_sealing_key
from bus_schemas.providers import load_providers
from bus_schemas.sealed import open_sealed
from platform_handlers.owner import sealing

AT = datetime(2026, 11, 23, 12, tzinfo=UTC)
ENVELOPE = "01932f1c-0000-7000-8000-000000000000"
IDENTITY, SEALING = Ed25519PrivateKey.generate(), X25519PrivateKey.generate()
IDENTITY_PK = IDENTITY.public_key().public_bytes_raw()
FINGERPRINT = server_fingerprint("acme-1", IDENTITY_PK)
OPENAI = load_providers()["openai"]
SIGN_IN = (
    '{"access_token": "A-CANARY", "refresh_token": "R-CANARY", "client_id": "c", "issuer": "i",'
    ' "token_endpoint": "https://auth.example/token"}'
)


def server(**more: Any) -> ServerView:  # noqa: ANN401 (as the view has them)
    """Return acme-1 as the platform shows it."""
    key = sign_sealing_key(
        IDENTITY,
        server_id="acme-1",
        key_id="k1",
        public_key=SEALING.public_key().public_bytes_raw(),
        not_after=AT + timedelta(days=1),
    )
    fields: dict[str, Any] = {
        "server_id": "acme-1",
        "active": True,
        "identity_key": IDENTITY_PK,
        "fingerprint": FINGERPRINT,
        "sealing_key": key,
    }
    return ServerView(**(fields | more))


def test_a_revision_that_none_can_follow_is_found_out_before_the_key_is_asked_for() -> None:
    """A lying platform would else end the command after the first of several servers."""
    kind, sent = CredentialKind.API_KEY, StepView(step=SlotStep.SENT, revision=7, at=AT)
    slot = SlotView(slot_id="chat", provider="openai", kind=kind, revision=7, steps=(sent,))
    sealing.check_revision(None)
    sealing.check_revision(slot)
    with pytest.raises(Refused, match="no_revision_left"):
        sealing.check_revision(slot.model_copy(update={"revision": sealing.LAST_REVISION}))


def test_only_the_server_opens_what_was_sealed() -> None:
    """Bound to its place, one revision above the base, and good for a day."""
    owner_key = Ed25519PrivateKey.generate()
    about = sealing.Sealing("acme", "openai", OPENAI, 4, ENVELOPE, AT)
    sent = sealing.submission(
        sealing.api_key("sk-CANARY", OPENAI, None),
        sealing.trusted(server(), FINGERPRINT, at=AT),
        about,
        owner_key,
    )
    assert (sent.base_revision, sent.envelope.revision) == (4, 5)
    assert sent.envelope.not_after == int((AT + timedelta(days=1)).timestamp())
    assert "CANARY" not in sent.model_dump_json()
    opened = open_sealed(sent.envelope, sealing_private_key=SEALING)
    assert opened.base_url == OPENAI.base_url
    assert opened.secret is not None
    assert opened.secret.get_secret_value() == "sk-CANARY"


def test_the_platforms_own_word_for_the_fingerprint_counts_for_nothing() -> None:
    """It may put in its own key and show the pinned fingerprint beside it."""
    swapped = Ed25519PrivateKey.generate().public_key().public_bytes_raw()
    with pytest.raises(Refused, match="fingerprint_differs"):
        sealing.trusted(server(identity_key=swapped), FINGERPRINT, at=AT)


@pytest.mark.parametrize(
    ("more", "at", "reason"),
    [
        ({"identity_key": None}, AT, "not_joined"),
        ({"sealing_key": None}, AT, "no_sealing_key"),
        ({}, AT + timedelta(days=2), "sealing_key_expired"),
    ],
)
def test_a_server_that_cannot_be_sealed_for_says_why(
    more: dict[str, Any], at: datetime, reason: str
) -> None:
    """Before anybody has typed a key."""
    with pytest.raises(Refused, match=reason):
        sealing.trusted(server(**more), FINGERPRINT, at=at)


def test_a_sealing_key_that_the_server_did_not_sign_is_refused() -> None:
    """The platform could otherwise seal to itself and pass it on."""
    forged = sign_sealing_key(
        Ed25519PrivateKey.generate(),
        server_id="acme-1",
        key_id="k1",
        public_key=SEALING.public_key().public_bytes_raw(),
        not_after=AT + timedelta(days=1),
    )
    with pytest.raises(Refused, match="bad_signature"):
        sealing.trusted(server(sealing_key=forged), FINGERPRINT, at=AT)


def test_the_provider_is_asked_for_or_known_from_the_slot() -> None:
    """A new slot needs to be told."""
    step = StepView(step=SlotStep.STORED, revision=1, at=AT)
    slot = SlotView(
        slot_id="x", provider="mistral", kind=CredentialKind.API_KEY, revision=1, steps=(step,)
    )
    assert sealing.provider_of("openai", slot).id == "openai"
    assert sealing.provider_of(None, slot).id == "mistral"
    with pytest.raises(ContractError, match="--provider"):
        sealing.provider_of(None, None)
    with pytest.raises(ContractError, match="one of anthropic"):
        sealing.provider_of("unheard-of", None)


def test_a_kind_the_provider_does_not_take_is_refused_before_the_prompt() -> None:
    """With the kinds it does take."""
    sealing.check_kind(OPENAI, CredentialKind.OAUTH)
    with pytest.raises(ContractError, match="takes api_key, not oauth"):
        sealing.check_kind(load_providers()["openrouter"], CredentialKind.OAUTH)


def test_a_sign_in_is_read_from_its_json() -> None:
    """All fields as they stand."""
    payload = sealing.oauth_set(SIGN_IN, OPENAI, "http://127.0.0.1:8080/v1")
    assert payload.kind is CredentialKind.OAUTH
    assert payload.base_url == "http://127.0.0.1:8080/v1"


@pytest.mark.parametrize(
    ("document", "words"),
    [
        ("{", "look at the document"),
        ("CANARY", "look at the document"),
        ('{"CANARY": 1}', "access_token, client_id"),
        (SIGN_IN.replace("https", "http"), "look at token_endpoint"),
    ],
)
def test_a_bad_sign_in_names_the_field_and_shows_nothing(document: str, words: str) -> None:
    """Neither in the sentence nor in what hangs behind it."""
    with pytest.raises(ContractError) as caught:
        sealing.oauth_set(document, OPENAI, None)
    assert words in str(caught.value)
    assert "CANARY" not in repr(caught.value)
    assert caught.value.__context__ is None


@pytest.mark.parametrize(
    ("secret", "base_url", "words"),
    [("CANARY", "http://example.com", "--base-url"), ("CAN ARY", None, "characters")],
)
def test_a_payload_that_cannot_be_sent_is_refused_without_showing_it(
    secret: str, base_url: str | None, words: str
) -> None:
    """The key and the address are told apart."""
    with pytest.raises(ContractError) as caught:
        sealing.api_key(secret, OPENAI, base_url)
    assert words in str(caught.value)
    assert secret not in repr(caught.value)
    assert caught.value.__context__ is None
