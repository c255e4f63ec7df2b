"""One vault record, and the wrapping of the root key that opens them all.

record      = "BYOKVLT1" || u32 header length || JSON header || AES-256-GCM ciphertext
key || nonce = HKDF-SHA256 (RFC 5869) of the root key, salted afresh for each record, so that no
key ever meets a second nonce. Everything before the ciphertext is its AAD.
Layout: docs/protocol.md, "At rest".

Pure. Reading and writing files is `store`'s work; how the root key is held is `root_key`'s, whose
view is read where it lies and never copied.
"""

import hashlib
import re
import secrets
from dataclasses import dataclass
from typing import Annotated, Final, Literal

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF
from pydantic import Field, StringConstraints, ValidationError

from bus_schemas.encoding import lp, u64
from bus_schemas.errors import Refused
from bus_schemas.event import Contract
from bus_schemas.fields import ID_PATTERN, Counter, ServerId

MAGIC: Final = b"BYOKVLT1"

_KEY_LENGTH = 32
_NONCE_LENGTH = 12  # NIST SP 800-38D section 8.2
_SALT_LENGTH = 32
_HEADER_MAX = 4096
_SERVER = re.compile(ID_PATTERN)
_SLOT_PATTERN = r"^_?[a-z0-9-]{1,63}$"
_SLOT = re.compile(_SLOT_PATTERN)

Key = bytes | memoryview
"""A root key: a view of where it is kept, or `bytes` in tests and vectors."""


@dataclass(frozen=True, slots=True, order=True)
class RecordName:
    """Which record this is; the same three stand in its header."""

    server: str
    slot: str
    """A slot id, or a name of the runtime's own that begins with `_`, as no slot id does."""
    revision: int

    def __post_init__(self) -> None:
        # fullmatch: `$` alone would let a trailing line break into a file name.
        if not (_SERVER.fullmatch(self.server) and _SLOT.fullmatch(self.slot)):
            raise ValueError("a record is named by valid ids")
        if self.revision < 1:
            raise ValueError("revisions count from 1")


class RecordHeader(Contract, extra="forbid"):
    """What a record says of itself, in the clear and authenticated."""

    v: Literal[1] = 1
    aead: Literal["AES-256-GCM"] = "AES-256-GCM"
    server: ServerId
    slot: Annotated[str, StringConstraints(pattern=_SLOT_PATTERN)]
    revision: Counter
    root_key_id: Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{16}$")]
    """Tells root keys apart; see `root_key_id`."""
    salt: Annotated[bytes, Field(min_length=_SALT_LENGTH, max_length=_SALT_LENGTH)]


def root_key_id(root_key: Key) -> str:
    """Return 16 hex digits that name a root key and tell nothing about it."""
    digest = hashlib.sha256(b"byok/root-id/v1\0")
    digest.update(root_key)  # `+` would leave a copy behind
    return digest.hexdigest()[:16]


def seal_record(root_key: Key, name: RecordName, plaintext: bytes) -> bytes:
    """Return the whole file of one record."""
    salt = secrets.token_bytes(_SALT_LENGTH)
    header = RecordHeader(
        server=name.server,
        slot=name.slot,
        revision=name.revision,
        root_key_id=root_key_id(root_key),
        salt=salt,
    )
    encoded = header.model_dump_json().encode()
    aad = MAGIC + len(encoded).to_bytes(4, "big") + encoded
    key, nonce = _key_and_nonce(root_key, name, salt)
    return aad + AESGCM(key).encrypt(nonce, plaintext, aad)


def open_record(root_key: Key, raw: bytes, name: RecordName) -> tuple[RecordHeader, bytes]:
    """Return header and plaintext of the record that must be *name*.

    Raises Refused(`vault_record_damaged`) for any changed byte, another record's file under
    this name, or another root key.
    """
    start = len(MAGIC) + 4
    length = int.from_bytes(raw[len(MAGIC) : start], "big")
    if not raw.startswith(MAGIC) or length > _HEADER_MAX:
        raise _damaged(name, "it does not begin like a vault record")
    aad, ciphertext = raw[: start + length], raw[start + length :]
    try:
        header = RecordHeader.model_validate_json(aad[start:])
    except ValidationError:
        raise _damaged(name, "its header is unreadable") from None
    if (header.server, header.slot, header.revision) != (name.server, name.slot, name.revision):
        raise _damaged(name, "it is another record's file")
    if header.root_key_id != root_key_id(root_key):
        raise _damaged(name, "it was written under another root key")
    key, nonce = _key_and_nonce(root_key, name, header.salt)
    try:
        return header, AESGCM(key).decrypt(nonce, ciphertext, aad)
    except (InvalidTag, ValueError):  # ValueError: shorter than the tag
        raise _damaged(name, "its bytes were changed") from None


def wrap_root_key(kek: bytes, server_id: str, g: int, root_key: Key) -> bytes:
    """Return nonce || AES-256-GCM(KEK_g, root key): 60 bytes, bound to server and generation."""
    nonce = secrets.token_bytes(_NONCE_LENGTH)
    return nonce + AESGCM(kek).encrypt(nonce, root_key, _wrap_aad(server_id, g))


def unwrap_root_key(
    kek: bytes, server_id: str, g: int, wrapped: bytes, into: bytearray | memoryview
) -> None:
    """Write the root key to *into* (32 bytes). Raises Refused(`root_key_does_not_open`)."""
    nonce, ciphertext = wrapped[:_NONCE_LENGTH], wrapped[_NONCE_LENGTH:]
    try:
        AESGCM(kek).decrypt_into(nonce, ciphertext, _wrap_aad(server_id, g), into)
    except (InvalidTag, ValueError):
        detail = f"the wrapped root key of {server_id} is not of generation {g}, or was changed"
        raise Refused("root_key_does_not_open", detail) from None


def _wrap_aad(server_id: str, g: int) -> bytes:
    return b"byok/root/v1\0" + lp(server_id) + u64(g)


def _key_and_nonce(root_key: Key, name: RecordName, salt: bytes) -> tuple[bytes, bytes]:
    info = b"byok/vault/v1\0" + lp(name.server) + lp(name.slot) + u64(name.revision)
    length = _KEY_LENGTH + _NONCE_LENGTH
    okm = HKDF(algorithm=SHA256(), length=length, salt=salt, info=info).derive(root_key)
    return okm[:_KEY_LENGTH], okm[_KEY_LENGTH:]


def _damaged(name: RecordName, why: str) -> Refused:
    detail = f"slot {name.slot} revision {name.revision}: {why}; seal the credential again"
    return Refused("vault_record_damaged", detail)
