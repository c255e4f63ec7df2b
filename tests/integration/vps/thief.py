"""A thief with disks, recordings and patience: tries every value found as every kind of key."""

import base64
import binascii
import re
import sqlite3
from collections.abc import Iterator
from contextlib import closing, suppress
from dataclasses import dataclass, field
from pathlib import Path

from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey
from nats.aio.msg import Msg
from pydantic import ValidationError

from bus_schemas.credential import CredentialPayload
from bus_schemas.errors import ByokError
from bus_schemas.oprf import OprfKey
from bus_schemas.sealed import SealedEnvelope, open_sealed
from bus_schemas.unlock import (
    key_encryption_key,
    unlock_check,
    unlock_input,
    unlock_key_info,
    unlock_preimage,
)
from tests.oracle import voprf
from vps_runtime.vault.record import RecordName, open_record, unwrap_root_key
from vps_runtime.vault.root_file import RootFile
from vps_runtime.vault.sealing_keys import SealingKeyRecord
from vps_runtime.vault.store import Vault

_TEXT = re.compile(rb"[A-Za-z0-9+/_-]{32,}={0,2}")
_SHARES = re.compile(rb'\{"v":1,"server_id":[^{}]*"wrapped_root"[^{}]*\}')
_ENVELOPE = re.compile(rb'\{"owner_id":[^{}]*"sig":"[^"]*"\}')


@dataclass
class Recording:
    """Everything that went over the bus, as somebody who may hear all of it has it."""

    messages: list[tuple[str, bytes]] = field(default_factory=list)

    async def hear(self, message: Msg) -> None:
        """Note one message."""
        self.messages.append((message.subject, message.data))

    def on(self, prefix: str) -> list[bytes]:
        """Return the messages on subjects that begin so."""
        return [data for subject, data in self.messages if subject.startswith(prefix)]


@dataclass
class Loot:
    """What was opened; nothing, if all is well."""

    root_keys: set[bytes] = field(default_factory=set)
    records: dict[RecordName, bytes] = field(default_factory=dict)
    credentials: list[CredentialPayload] = field(default_factory=list)

    def __bool__(self) -> bool:
        return bool(self.root_keys or self.records or self.credentials)


@dataclass
class Thief:
    """Whatever was stolen, and what can be made of it without asking anybody."""

    disks: list[Path] = field(default_factory=list)
    """State folders, or other folders, of any time."""
    heard: list[bytes] = field(default_factory=list)
    """Messages and stored streams."""

    def opens(self) -> Loot:
        """Try everything as everything."""
        values = self._values()
        of32 = {value for value in values if len(value) == 32}
        of64 = {value for value in values if len(value) == 64}
        loot = Loot(root_keys=of32 & self._root_keys(of32))
        for file in self._root_files():
            for kek in self._keks(file, of32, of64):
                found = bytearray(32)
                with suppress(ByokError):
                    unwrap_root_key(kek, file.server_id, file.g, file.wrapped_root, found)
                    loot.root_keys.add(bytes(found))
        self._open_vaults(loot)
        sealing = [
            SealingKeyRecord.model_validate_json(raw).private_key
            for name, raw in loot.records.items()
            if name.slot == "_sealing"
        ]
        self._open_envelopes(loot, of32.union(sealing))
        return loot

    def _keks(self, file: RootFile, of32: set[bytes], of64: set[bytes]) -> Iterator[bytes]:
        """Yield every key that could wrap this root: found, derived, or evaluated with a seed."""
        yield from of32
        x = unlock_input(file.server_id, file.g, file.share)
        info = unlock_key_info(file.server_id, file.g, unlock_check(unlock_preimage(x)))
        outputs = set(of64)
        for value in of32:
            seed = OprfKey.from_seed(value)
            outputs.add(seed.evaluate_known(x))
            outputs.add(seed.under(info).evaluate_known(x))
            with suppress(ValueError):
                outputs.add(voprf.finalize(x, 1, value))  # as if nothing had been blinded
        for y in outputs:
            yield key_encryption_key(y, file.share, file.server_id, file.g)

    def _root_keys(self, of32: set[bytes]) -> set[bytes]:
        """Return the values that open a record by themselves."""
        return {
            value
            for value in of32
            for vault, name in self._records()
            if _opened(value, vault, name) is not None
        }

    def _records(self) -> Iterator[tuple[Vault, RecordName]]:
        for folder in {path.parent for disk in self.disks for path in disk.rglob("*.vault")}:
            server_id = folder.parent.name.partition("@")[0]
            vault = Vault(folder, server_id)
            yield from ((vault, name) for name in vault.names())

    def _open_vaults(self, loot: Loot) -> None:
        for vault, name in self._records():
            for root_key in loot.root_keys:
                if (plaintext := _opened(root_key, vault, name)) is not None:
                    loot.records[name] = plaintext

    def _open_envelopes(self, loot: Loot, keys: set[bytes]) -> None:
        for raw in {found for text in self.heard for found in _ENVELOPE.findall(text)}:
            envelope = SealedEnvelope.model_validate_json(raw)
            for key in keys:
                with suppress(ByokError):
                    private = X25519PrivateKey.from_private_bytes(key)
                    loot.credentials.append(open_sealed(envelope, sealing_private_key=private))

    def _root_files(self) -> Iterator[RootFile]:
        for raw in {found for text in self._texts() for found in _SHARES.findall(text)}:
            with suppress(ValidationError):
                yield RootFile.model_validate_json(raw)

    def _texts(self) -> Iterator[bytes]:
        yield from self.heard
        yield from (path.read_bytes() for path in self._files())

    def _files(self) -> Iterator[Path]:
        return (path for disk in self.disks for path in disk.rglob("*") if path.is_file())

    def _values(self) -> set[bytes]:
        """Return all bytes that were written down anywhere, decoded in every way they come in."""
        found: set[bytes] = set()
        for text in self._texts():
            found.add(text)
            for word in _TEXT.findall(text):
                found.update(_decoded(word))
        for path in self._files():
            if path.suffix == ".db":
                found.update(_blobs(path))
        return found


def _opened(root_key: bytes, vault: Vault, name: RecordName) -> bytes | None:
    try:
        return open_record(root_key, vault.read(name), name)[1]
    except ByokError:
        return None


def _decoded(word: bytes) -> Iterator[bytes]:
    with suppress(binascii.Error, ValueError):
        yield bytes.fromhex(word.decode())
    plain = word.rstrip(b"=").translate(bytes.maketrans(b"-_", b"+/"))
    with suppress(binascii.Error):
        raw = base64.b64decode(plain + b"=" * (-len(plain) % 4))
        yield raw
        if len(raw) % 96 == 0:  # proof and element, for each element
            yield from (raw[at + 64 : at + 96] for at in range(0, len(raw), 96))


def _blobs(path: Path) -> Iterator[bytes]:
    with closing(sqlite3.connect(f"{path.absolute().as_uri()}?mode=ro", uri=True)) as file:
        tables = [
            row[0] for row in file.execute("SELECT name FROM sqlite_master WHERE type='table'")
        ]
        for table in tables:
            for row in file.execute(f'SELECT * FROM "{table}"'):  # noqa: S608 (its own names)
                yield from (value for value in row if isinstance(value, bytes))
