"""The credentials a server holds: one vault record per slot and revision, written at one stroke.

Credential, tag inputs and what is told about them lie in the same record, so a kill can never
leave one without the other. Only the index stays in memory; secrets are read when needed.
"""

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Literal

import structlog
from pydantic import Field, ValidationError

from bus_schemas.credential import CredentialPayload
from bus_schemas.errors import Refused
from bus_schemas.event import Contract
from bus_schemas.fields import (
    Basis,
    CounterFromZero,
    CredentialKind,
    Key32,
    ProviderId,
    RotationId,
    Strength,
)
from bus_schemas.sealed import SealedEnvelope
from bus_schemas.tags import TagInput, credential_inputs
from vps_runtime.vault.record import RecordName, open_record, seal_record
from vps_runtime.vault.root_key import SecretKey
from vps_runtime.vault.store import Vault

_log = structlog.get_logger(__name__)


class InputRecord(Contract, extra="forbid"):
    """What is blinded for one tag."""

    basis: Basis
    strength: Strength
    value: Annotated[Key32, Field(repr=False)]


class CredentialRecord(Contract, extra="forbid"):
    """The plaintext of one credential's record."""

    v: Literal[1] = 1
    provider: ProviderId
    kind: CredentialKind
    rotation_id: RotationId
    stored_at: CounterFromZero
    """Unix seconds."""
    inputs: Annotated[tuple[InputRecord, ...], Field(max_length=200, repr=False)]
    payload: Annotated[bytes, Field(max_length=64 * 1024, repr=False)]
    """`CredentialPayload.reveal_json`; parsed only by whoever uses the credential."""


@dataclass(frozen=True, slots=True)
class Held:
    """What is known of a held credential without opening its record."""

    slot_id: str
    revision: int
    provider: str
    kind: CredentialKind
    rotation_id: str
    stored_at: int
    bases: tuple[Basis, ...]


class CredentialStore:
    """All held credentials of one server. Methods that touch the disk run in a thread."""

    def __init__(self, vault: Vault, server_id: str, root_key: SecretKey) -> None:
        self._vault = vault
        self._server_id = server_id
        self._root_key = root_key
        self._held: dict[tuple[str, int], Held] = {}

    async def load(self) -> None:
        """Read the index. A slot whose newest record is damaged is empty and asks for a key.

        Older revisions of it are taken away: a superseded key must never come back by itself.
        """
        names = await asyncio.to_thread(self._vault.names)
        damaged: set[str] = set()
        for name in sorted(names, reverse=True):
            if name.slot.startswith("_"):
                continue
            if name.slot in damaged:
                await asyncio.to_thread(self._vault.remove, name)
                continue
            try:
                self._held[name.slot, name.revision] = _held(name, await self._read(name))
            except Refused as error:
                _log.error("vault_record_unusable", error=str(error))
                if all(slot != name.slot for slot, _ in self._held):
                    damaged.add(name.slot)

    @property
    def held(self) -> Mapping[tuple[str, int], Held]:
        """Every held credential by (slot, revision), previous ones included."""
        return dict(self._held)

    @property
    def current(self) -> Mapping[str, Held]:
        """The newest held credential of each slot: the only one that is ever used."""
        return {slot: held for (slot, _), held in sorted(self._held.items())}

    async def put(self, envelope: SealedEnvelope, payload: CredentialPayload, *, at: int) -> Held:
        """Store an admitted credential. Raises DiskFull, OSError: then nothing changed."""
        inputs = credential_inputs(payload, envelope.provider)
        record = CredentialRecord(
            provider=envelope.provider,
            kind=envelope.kind,
            rotation_id=envelope.envelope_id,
            stored_at=at,
            inputs=tuple(
                InputRecord(basis=i.basis, strength=i.strength, value=i.value) for i in inputs
            ),
            payload=payload.reveal_json(),
        )
        name = RecordName(self._server_id, envelope.slot_id, envelope.revision)
        raw = seal_record(self._root_key.view(), name, record.model_dump_json().encode())
        await asyncio.to_thread(self._vault.write, name, raw)
        self._held[name.slot, name.revision] = _held(name, record)
        return self._held[name.slot, name.revision]

    async def inputs(self, held: Held) -> list[TagInput]:
        """Return what is to be blinded for *held*. Raises Refused(`vault_record_damaged`)."""
        record = await self._read(self._name(held))
        return [TagInput(i.basis, i.strength, i.value) for i in record.inputs]

    async def payload(self, held: Held) -> CredentialPayload:
        """Return the credential itself. Raises Refused(`vault_record_damaged`)."""
        return CredentialPayload.read_json((await self._read(self._name(held))).payload)

    async def remove(self, held: Held) -> None:
        """Take *held* out of the vault for good. Raises OSError."""
        await asyncio.to_thread(self._vault.remove, self._name(held))
        self._held.pop((held.slot_id, held.revision), None)

    def _name(self, held: Held) -> RecordName:
        return RecordName(self._server_id, held.slot_id, held.revision)

    async def _read(self, name: RecordName) -> CredentialRecord:
        try:
            raw = await asyncio.to_thread(self._vault.read, name)
        except OSError as error:
            detail = f"slot {name.slot} revision {name.revision} cannot be read: {error.strerror}"
            raise Refused("vault_record_damaged", detail) from None
        _, plaintext = open_record(self._root_key.view(), raw, name)
        try:
            return CredentialRecord.model_validate_json(plaintext)
        except ValidationError:
            pass
        # Raised here and not above: a chained ValidationError would carry the plaintext along.
        detail = f"slot {name.slot} revision {name.revision} holds no credential record"
        raise Refused("vault_record_damaged", detail)


def _held(name: RecordName, record: CredentialRecord) -> Held:
    return Held(
        name.slot,
        name.revision,
        record.provider,
        record.kind,
        record.rotation_id,
        record.stored_at,
        tuple(i.basis for i in record.inputs),
    )
