"""The join token's text form, and the tokens the mint makes."""

import json

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from hypothesis import given
from hypothesis import strategies as st
from pydantic import SecretStr

from bus_schemas.encoding import from_base64url, to_base64url
from bus_schemas.errors import Refused
from bus_schemas.join_token import MAX_LENGTH, PREFIX, JoinToken
from bus_schemas.nkeys import KeyType, key_from_seed, public_nkey
from bus_schemas.requests import ENROL, EnrolRequest, EvaluatorKeys
from bus_schemas.secret_fields import reveal_json
from platform_handlers.provisioning.records import joiner_name, secret_hash
from platform_handlers.provisioning.tokens import TokenMint

NOW = 1_800_000_000
TOKEN = JoinToken(
    url="tls://127.0.0.1:4222",
    ca_pem="-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n",
    server_id="acme-1",
    owner_id="acme",
    secret=SecretStr("one-time"),
    jwt="a.b.c",
    seed=SecretStr("SUSEED"),
    evaluator=EvaluatorKeys(sealing_key=b"\x01" * 32, signing_key=b"\x02" * 32),
)


def claims(jwt: str) -> dict[str, object]:
    """Return a JWT's claims, unchecked."""
    found: dict[str, object] = json.loads(from_base64url(jwt.split(".")[1]))
    return found


def test_a_token_comes_back_as_it_was_printed() -> None:
    """Also when the terminal broke its line."""
    text = TOKEN.encode()
    assert text.startswith("byok-join-1.")
    assert JoinToken.decode(text) == TOKEN
    assert JoinToken.decode(f"  {text[:40]}\n{text[40:]}\r\n") == TOKEN


def test_a_token_shows_no_secret_by_accident() -> None:
    """Neither repr nor an ordinary dump writes the secret or the seed."""
    for text in (repr(TOKEN), str(TOKEN), TOKEN.model_dump_json()):
        assert "one-time" not in text
        assert "SUSEED" not in text


@given(text=st.text(max_size=200))
def test_whatever_is_pasted_is_refused_without_being_shown(text: str) -> None:
    """The error must not carry the token into a log."""
    for pasted in (text, PREFIX + text):
        with pytest.raises(Refused, match="bad_join_token") as caught:
            JoinToken.decode(pasted)
        assert caught.value.__context__ is None


@pytest.mark.parametrize(
    "text",
    [
        TOKEN.encode()[:-8],
        PREFIX + "A" * MAX_LENGTH,
        PREFIX + to_base64url(b"{}"),
        PREFIX + to_base64url(reveal_json(TOKEN).replace(b"tls:", b"nats:")),
        PREFIX + to_base64url(reveal_json(TOKEN).replace(b"acme-1", b"acme.*")),
        TOKEN.encode().replace("join-1", "join-2"),
    ],
)
def test_a_damaged_token_is_refused(text: str) -> None:
    """Cut off, too long, empty, plain-text bus, a wildcard for an id, another version."""
    with pytest.raises(Refused, match="bad_join_token"):
        JoinToken.decode(text)


def test_an_enrolment_reveals_its_secret_only_on_purpose() -> None:
    """The secret goes out by `reveal_json` and by nothing else."""
    request = EnrolRequest(
        server_id="acme-1",
        secret=SecretStr("one-time"),
        nkey=public_nkey(Ed25519PrivateKey.generate(), KeyType.USER),
        identity_key=b"\x01" * 32,
    )
    assert "one-time" not in request.model_dump_json()
    assert EnrolRequest.model_validate_json(reveal_json(request)) == request


def test_the_mint_makes_what_the_design_says() -> None:
    """An hour and 90 days for the server's own nkey, an hour for a key that is thrown away."""
    keys = [Ed25519PrivateKey.generate() for _ in range(3)]
    mint = TokenMint("AFLEET", *keys)
    nkey = public_nkey(Ed25519PrivateKey.generate(), KeyType.USER)
    tokens = mint.tokens("acme-1", nkey, now=NOW)
    own = Ed25519PrivateKey.generate()
    passing = joiner_name(secret_hash("one-time"))
    enrolling = mint.enrolling_credentials(own, passing, now=NOW)
    assert ENROL.parse(ENROL.fill({"joiner": passing})) == {"joiner": passing}
    made = [
        (tokens.working, 3600, "acme-1"),
        (tokens.door, 90 * 24 * 3600, "acme-1"),
        (enrolling.jwt, 3600, passing),  # not the server's: its inboxes hang off its name
    ]
    for (jwt, life, name), key in zip(made, keys, strict=True):
        found = claims(jwt)
        assert found["iss"] == public_nkey(key, KeyType.ACCOUNT)
        assert found["name"] == name
        assert (found["iat"], found["exp"]) == (NOW, NOW + life)
    assert claims(tokens.working)["sub"] == claims(tokens.door)["sub"] == nkey
    assert key_from_seed(enrolling.seed).private_bytes_raw() == own.private_bytes_raw()
    assert "Ed25519PrivateKey" not in repr(mint)
