"""The X25519 keys that owners seal to: made here, kept in the vault, replaced every 30 days.

A key is replaced a day before its end, so that there is always one to seal to, and its private
half is kept a day beyond it: as long as a sealing made in its last second may travel.
"""

import asyncio
import secrets
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Annotated, Final, Literal

import structlog
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey
from pydantic import Field, ValidationError

from bus_schemas.errors import Refused
from bus_schemas.event import Contract
from bus_schemas.fields import CounterFromZero, at_utc
from bus_schemas.keys import KeyId, SignedSealingKey, sign_sealing_key
from vps_runtime.state import Identity
from vps_runtime.vault.record import RecordName, open_record, seal_record
from vps_runtime.vault.root_key import SecretKey
from vps_runtime.vault.store import Vault

_log = structlog.get_logger(__name__)

DAY: Final = 24 * 3600
LIFE_SECONDS: Final = 30 * DAY
_REPLACED_BEFORE_END = DAY
_KEPT_AFTER_END = DAY
_SLOT = "_sealing"


class SealingKeyRecord(Contract, extra="forbid"):
    """The plaintext of one sealing key's record."""

    v: Literal[1] = 1
    key_id: KeyId
    private_key: Annotated[bytes, Field(min_length=32, max_length=32, repr=False)]
    not_after: CounterFromZero
    """Unix seconds; nobody seals to it from then on."""


@dataclass(frozen=True, slots=True)
class SealingKey:
    """One key, ready to open with."""

    number: int
    key_id: str
    not_after: int
    private_key: X25519PrivateKey = field(repr=False)

    def due(self, now: float) -> bool:
        """Whether its successor should be made."""
        return now >= self.not_after - _REPLACED_BEFORE_END

    def over(self, now: float) -> bool:
        """Whether no sealing to it can still arrive."""
        return now >= self.not_after + _KEPT_AFTER_END

    def signed_by(self, identity: Identity) -> SignedSealingKey:
        """Return its announcement."""
        return sign_sealing_key(
            identity.key,
            server_id=identity.server_id,
            key_id=self.key_id,
            public_key=self.private_key.public_key().public_bytes_raw(),
            not_after=at_utc(self.not_after),
        )


class SealingKeys:
    """All sealing keys of one server that may still be needed."""

    def __init__(self, vault: Vault, server_id: str, root_key: SecretKey) -> None:
        self._vault = vault
        self._server_id = server_id
        self._root_key = root_key
        self._keys: dict[int, SealingKey] = {}
        self._last_number = 0

    async def load(self) -> None:
        """Read them. A damaged one is passed over: owners seal to its successor."""
        for name in await asyncio.to_thread(self._vault.names):
            if name.slot != _SLOT:
                continue
            self._last_number = max(self._last_number, name.revision)
            try:
                self._keys[name.revision] = await asyncio.to_thread(self._read, name)
            except (Refused, OSError) as error:
                _log.error("sealing_key_unusable", number=name.revision, error=str(error))

    @property
    def by_id(self) -> Mapping[str, X25519PrivateKey]:
        """The private halves that may still open something, by key id."""
        return {key.key_id: key.private_key for key in self._keys.values()}

    async def turn(self, now: float) -> SealingKey:
        """Return the key to announce at *now*, making it and dropping old ones as they fall due.

        Raises DiskFull, OSError: the keys that were there still serve.
        """
        newest = self._keys.get(max(self._keys, default=0))
        if newest is None or newest.due(now):
            newest = await self._make(now)
        for key in [key for key in self._keys.values() if key.over(now)]:
            await asyncio.to_thread(self._vault.remove, self._name(key.number))
            del self._keys[key.number]
        return newest

    async def _make(self, now: float) -> SealingKey:
        private = X25519PrivateKey.generate()
        record = SealingKeyRecord(
            key_id=f"k-{secrets.token_hex(8)}",
            private_key=private.private_bytes_raw(),
            not_after=int(now) + LIFE_SECONDS,
        )
        number = self._last_number + 1
        name = self._name(number)
        raw = seal_record(self._root_key.view(), name, record.model_dump_json().encode())
        await asyncio.to_thread(self._vault.write, name, raw)
        self._last_number = number
        self._keys[number] = SealingKey(number, record.key_id, record.not_after, private)
        return self._keys[number]

    def _name(self, number: int) -> RecordName:
        return RecordName(self._server_id, _SLOT, number)

    def _read(self, name: RecordName) -> SealingKey:
        _, plaintext = open_record(self._root_key.view(), self._vault.read(name), name)
        try:
            record = SealingKeyRecord.model_validate_json(plaintext)
        except ValidationError:
            detail = "the record holds no sealing key"
        else:
            private = X25519PrivateKey.from_private_bytes(record.private_key)
            return SealingKey(name.revision, record.key_id, record.not_after, private)
        raise Refused("vault_record_damaged", detail)
