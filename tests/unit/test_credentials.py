"""The `.creds` text form."""

import pytest
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from bus_schemas.errors import Refused
from bus_schemas.nkeys import KeyType, seed_nkey
from bus_schemas.transport.credentials import Credentials, parse_credentials

KEY = Ed25519PrivateKey.from_private_bytes(bytes(range(32)))
MADE = Credentials("aaa.bbb.ccc_-", seed_nkey(KEY, KeyType.USER))
TEXT = MADE.to_text()


def test_reading_gives_back_what_was_written() -> None:
    """Nothing but the two lines matters."""
    assert parse_credentials(TEXT) == MADE


@pytest.mark.parametrize(
    "text",
    [
        TEXT.replace("\n", "\r\n"),
        f"# made by hand\n{TEXT}\ntrailing words",
        TEXT.replace("------END", "-----END"),
        TEXT.replace("\n\n", "\n\n********* IMPORTANT *********\nKeep the seed secret.\n\n"),
    ],
)
def test_the_forms_of_other_tools_are_read(text: str) -> None:
    """`nsc` writes warnings between the two, editors change line ends."""
    assert parse_credentials(text) == MADE


def test_the_signature_is_the_users() -> None:
    """The server checks it against the nkey in the JWT."""
    KEY.public_key().verify(MADE.sign(b"nonce"), b"nonce")
    with pytest.raises(InvalidSignature):
        KEY.public_key().verify(MADE.sign(b"nonce"), b"another")


def test_the_seed_never_shows() -> None:
    """Not in a repr, so not in a log or a traceback with locals."""
    assert MADE.seed not in repr(MADE)
    assert "seed" not in repr(MADE)


@pytest.mark.parametrize(
    "text",
    [
        "",
        TEXT.replace("NATS USER JWT", "SOMETHING"),
        TEXT.replace("USER NKEY SEED", "SOMETHING"),
        TEXT.replace(MADE.jwt, ""),
        TEXT.replace(MADE.seed, MADE.seed.replace("SU", "SA", 1)),
        TEXT.replace(MADE.seed, MADE.seed.lower()),
    ],
)
def test_a_damaged_file_is_refused_without_showing_it(text: str) -> None:
    """The sentence says what the file must hold, not what it held."""
    with pytest.raises(Refused, match="bad_credentials_file") as caught:
        parse_credentials(text)
    assert MADE.seed[4:12] not in f"{caught.value!r} {caught.value}"
    assert caught.value.__context__ is None
