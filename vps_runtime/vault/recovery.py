"""The root key wrapped for a recovery code: another way in, without the evaluator (ADR-16).

The code is 160 random bits and is shown once; nobody chooses it and nothing stretches it. Without
it the file opens nothing. With it and the disk, neither a revocation nor a shredded unlock key
keeps anybody out: that is what it is for, and what it costs.

Pure, but for the randomness of `wrap`. Layout: docs/protocol.md, "At rest".
"""

import base64
import re
import secrets
from typing import Annotated, Final, Literal

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF
from pydantic import Field

from bus_schemas.encoding import lp
from bus_schemas.errors import ContractError, Refused
from bus_schemas.event import Contract
from bus_schemas.fields import ServerId

CODE_BYTES: Final = 20
MAX_TYPED: Final = 200
"""Longer than any way to write a code."""

_CODE_LENGTH = 32  # base32 characters
_NONCE_LENGTH = 12
_SALT_LENGTH = 32
_KEY_LENGTH = 32


class RecoveryFile(Contract, extra="forbid"):
    """What lies on the disk beside the vault."""

    v: Literal[1] = 1
    server_id: ServerId
    salt: Annotated[bytes, Field(min_length=_SALT_LENGTH, max_length=_SALT_LENGTH)]
    wrapped_root: Annotated[bytes, Field(min_length=60, max_length=60)]
    """nonce || AES-256-GCM under `recovery_key`."""


def code_shown(code: bytes) -> str:
    """Return the code in groups of four, as it is shown and written down."""
    text = base64.b32encode(code).decode("ascii")
    return " ".join(text[at : at + 4] for at in range(0, len(text), 4))


def code_typed(text: str) -> bytes:
    """Return the code in *text*; spaces, hyphens and case do not matter.

    Raises ContractError(`bad_recovery_code`).
    """
    plain = re.sub(r"[\s-]", "", text).upper()
    if not re.fullmatch(f"[A-Z2-7]{{{_CODE_LENGTH}}}", plain):
        detail = f"a recovery code has {_CODE_LENGTH} characters, A to Z and 2 to 7; read it again"
        raise ContractError("bad_recovery_code", detail)
    return base64.b32decode(plain)


def recovery_key(code: bytes, salt: bytes, server_id: str) -> bytes:
    """Return the key of a recovery file (32 bytes, HKDF-SHA256, RFC 5869)."""
    info = b"byok/recovery/v1\0" + lp(server_id)
    return HKDF(algorithm=SHA256(), length=_KEY_LENGTH, salt=salt, info=info).derive(code)


def wrap(code: bytes, server_id: str, root_key: bytes | memoryview) -> RecoveryFile:
    """Return the file that *code* (20 random bytes) opens."""
    salt, nonce = secrets.token_bytes(_SALT_LENGTH), secrets.token_bytes(_NONCE_LENGTH)
    key = recovery_key(code, salt, server_id)
    wrapped = nonce + AESGCM(key).encrypt(nonce, root_key, _aad(server_id))
    return RecoveryFile(server_id=server_id, salt=salt, wrapped_root=wrapped)


def unwrap(file: RecoveryFile, code: bytes, server_id: str, into: bytearray | memoryview) -> None:
    """Write the root key of *server_id* to *into* (32 bytes).

    Raises Refused(`recovery_code_does_not_fit`).
    """
    key = recovery_key(code, file.salt, server_id)
    nonce, ciphertext = file.wrapped_root[:_NONCE_LENGTH], file.wrapped_root[_NONCE_LENGTH:]
    try:
        AESGCM(key).decrypt_into(nonce, ciphertext, _aad(server_id), into)
    except InvalidTag:
        detail = f"this is not the newest recovery code of {server_id}, or not its file"
        raise Refused("recovery_code_does_not_fit", detail) from None


def _aad(server_id: str) -> bytes:
    return b"byok/recovery-root/v1\0" + lp(server_id)
