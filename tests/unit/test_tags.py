"""What of a credential is fingerprinted, and how hard it is to guess."""

import json
from pathlib import Path
from typing import Any

import pytest
from pydantic import SecretStr

from bus_schemas.credential import CredentialPayload, OAuthSet
from bus_schemas.fields import Basis, Strength
from bus_schemas.tags import TagInput, credential_inputs, tag, tag_input

VECTORS: dict[str, Any] = json.loads(
    (Path(__file__).parents[1] / "vectors" / "tags.json").read_bytes()
)
ISSUER = "https://issuer.example"


def oauth(account: str | None, organisation: str | None = None) -> CredentialPayload:
    """Return an OAuth payload of that account."""
    return CredentialPayload(
        oauth=OAuthSet(
            access_token=SecretStr("made-up-access-token"),
            refresh_token=SecretStr("made-up-refresh-token"),
            token_endpoint="https://provider.example/token",
            client_id="client-1",
            issuer=ISSUER,
            account=account,
            organisation=organisation,
        ),
        base_url="https://provider.example",
        header_style="bearer",
    )


def account_input(account: str) -> TagInput:
    """Return the second input of an OAuth payload."""
    _, found = credential_inputs(oauth(account), "openai")
    return found


@pytest.mark.parametrize("case", VECTORS["cases"])
def test_inputs_and_tags_match_the_vectors(case: dict[str, Any]) -> None:
    """Every implementation must give one credential the same tag."""
    basis = Basis(case["basis"])
    assert tag_input(basis, case["provider"], *case["parts"]).hex() == case["input"]
    assert tag(case["epoch"], basis, bytes.fromhex(case["y"])) == case["tag"]


def test_parts_cannot_run_into_each_other() -> None:
    """Issuer and account cut elsewhere are another account."""
    assert tag_input(Basis.OAUTH_ACCOUNT, "openai", "ab", "c") != (
        tag_input(Basis.OAUTH_ACCOUNT, "openai", "a", "bc")
    )


def test_an_api_key_is_one_input() -> None:
    """An API key is fingerprinted as itself, and is a secret."""
    payload = CredentialPayload(
        secret=SecretStr("made-up-credential"),
        base_url="https://provider.example",
        header_style="bearer",
    )
    assert credential_inputs(payload, "anthropic") == [
        TagInput(
            Basis.API_KEY,
            Strength.SECRET,
            tag_input(Basis.API_KEY, "anthropic", "made-up-credential"),
        )
    ]


def test_oauth_is_grant_and_account() -> None:
    """The grant is the refresh token; the account is issuer, subject and organisation."""
    grant, account = credential_inputs(oauth("user-000000000000000001", "org-1"), "openai")
    parts = (ISSUER, "user-000000000000000001", "org-1")
    assert grant == TagInput(
        Basis.OAUTH_GRANT,
        Strength.SECRET,
        tag_input(Basis.OAUTH_GRANT, "openai", "made-up-refresh-token"),
    )
    assert account == TagInput(
        Basis.OAUTH_ACCOUNT, Strength.OPAQUE, tag_input(Basis.OAUTH_ACCOUNT, "openai", *parts)
    )


@pytest.mark.parametrize("account", [None, ""])
def test_an_unnamed_account_gives_no_input(account: str | None) -> None:
    """All servers without an account name must not look like one account."""
    assert [found.basis for found in credential_inputs(oauth(account), "openai")] == [
        Basis.OAUTH_GRANT
    ]


@pytest.mark.parametrize(
    ("account", "strength"),
    [
        ("3f2b8c1e-0000-4000-8000-000000000001", Strength.OPAQUE),
        ("user-000000000000000001", Strength.OPAQUE),
        ("100000000000000000001", Strength.OPAQUE),
        ("someone@example.com", Strength.GUESSABLE),
        ("someone.with.a.long.name.1@example.com", Strength.GUESSABLE),
        ("a-login-name", Strength.GUESSABLE),
        ("a-rather-long-login-name", Strength.GUESSABLE),
        ("A Person With A Name 1", Strength.GUESSABLE),
    ],
)
def test_what_could_be_typed_is_guessable(account: str, strength: Strength) -> None:
    """Only an id that looks random may raise a banner across owners."""
    assert account_input(account).strength is strength


def test_an_email_is_one_account_however_it_is_written() -> None:
    """Capitals and spaces around an address do not make another account; in an id they do."""
    assert account_input(" Someone@Example.com ") == account_input("someone@example.com")
    assert account_input("User-1") != account_input("user-1")


def test_an_input_is_not_shown() -> None:
    """The input of a guessable account could be searched for, so it never gets into a log."""
    assert "value" not in repr(account_input("someone@example.com"))
