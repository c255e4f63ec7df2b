"""Enrolment and tokens on the wire."""

import json

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from pydantic import SecretStr, ValidationError

from bus_schemas.nkeys import KeyType, public_nkey
from bus_schemas.requests import EnrolRequest, Tokens
from bus_schemas.secret_fields import reveal_json

KEY = Ed25519PrivateKey.from_private_bytes(bytes(32))
ASKED = EnrolRequest(
    server_id="acme-1",
    secret=SecretStr("one-time-secret"),
    nkey=public_nkey(KEY, KeyType.USER),
    identity_key=KEY.public_key().public_bytes_raw(),
)


def test_a_one_time_secret_is_shown_only_on_purpose() -> None:
    """A request that is logged or stored by habit must not enrol anybody."""
    assert "one-time-secret" not in f"{ASKED!r} {ASKED} {ASKED.model_dump_json()}"
    assert json.loads(reveal_json(ASKED))["secret"] == "one-time-secret"
    assert EnrolRequest.model_validate_json(reveal_json(ASKED)) == ASKED


@pytest.mark.parametrize("jwt", ["", "a.b", "a.b.c.d", "a.b.c\n", "a.b.=", "a b.c.d"])
def test_a_token_is_three_parts_of_base64url(jwt: str) -> None:
    """It is written into a file and a header as it comes."""
    with pytest.raises(ValidationError):
        Tokens(working=jwt, door="a.b.c")
