"""The credentials a server holds: one vault record per slot and revision, written at one stroke.

Credential, tag inputs and what is told about them lie in the same record, so a kill can never
leave one without the other. Only the index stays in memory; secrets are read when needed.
"""

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Literal

import structlog
from pydantic import Field, ValidationError

from bus_schemas.credential import CredentialPayload, OAuthSet
from bus_schemas.errors import Refused
from bus_schemas.event import Contract
from bus_schemas.fields import (
    Basis,
    CounterFromZero,
    CredentialKind,
    ProviderId,
    RotationId,
)
from bus_schemas.sealed import SealedEnvelope
from bus_schemas.tags import credential_inputs
from vps_runtime.vault.grants import InputRecord, first_inputs, grants_of, grown, spent
from vps_runtime.vault.record import RecordName, open_record, seal_record
from vps_runtime.vault.root_key import SecretKey
from vps_runtime.vault.store import Vault

_log = structlog.get_logger(__name__)


class CredentialRecord(Contract, extra="forbid"):
    """The plaintext of one credential's record."""

    v: Literal[1] = 1
    provider: ProviderId
    kind: CredentialKind
    rotation_id: RotationId
    stored_at: CounterFromZero
    """Unix seconds."""
    renewed_at: CounterFromZero | None = None
    """When a sign-in's tokens were refreshed last, Unix seconds."""
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
    grants: tuple[int, ...] = (0,)
    """Numbers of a sign-in's refresh tokens whose tags are told, that in use last."""
    renewed_at: int | None = None
    """When its tokens were refreshed last, Unix seconds."""

    @property
    def obtained_at(self) -> int:
        """Since when it holds the secrets that it holds, Unix seconds."""
        return self.renewed_at or self.stored_at


class CredentialStore:
    """All held credentials of one server. Methods that touch the disk run in a thread."""

    def __init__(self, vault: Vault, server_id: str, root_key: SecretKey) -> None:
        self._vault = vault
        self._server_id = server_id
        self._root_key = root_key
        self._held: dict[tuple[str, int], Held] = {}
        self._damaged: dict[str, int] = {}
        self._changing = asyncio.Lock()

    async def load(self) -> None:
        """Read the index. A damaged record is as one that is not there, and is `damaged`."""
        for name in await asyncio.to_thread(self._vault.names):
            if name.slot.startswith("_"):
                continue
            try:
                self._held[name.slot, name.revision] = _held(name, await self._read(name))
            except Refused as error:
                _log.error("vault_record_unusable", error=str(error))
                self._damaged[name.slot] = name.revision

    @property
    def held(self) -> Mapping[tuple[str, int], Held]:
        """Every held credential by (slot, revision), previous ones included."""
        return dict(self._held)

    @property
    def damaged(self) -> Mapping[str, int]:
        """The highest revision of each slot whose record could not be read at the start."""
        return dict(self._damaged)

    def get(self, slot_id: str, revision: int) -> Held | None:
        """Return one held credential; None if it is not held."""
        return self._held.get((slot_id, revision))

    def of(self, slot_id: str) -> dict[int, Held]:
        """Return what is held for *slot_id*, by revision."""
        return {revision: held for (slot, revision), held in self._held.items() if slot == slot_id}

    @property
    def current(self) -> Mapping[str, Held]:
        """The newest held credential of each slot; which one is used the rotation says."""
        return {slot: held for (slot, _), held in sorted(self._held.items())}

    async def put(self, envelope: SealedEnvelope, payload: CredentialPayload, *, at: int) -> Held:
        """Store an admitted credential. Raises DiskFull, OSError: then nothing changed."""
        record = CredentialRecord(
            provider=envelope.provider,
            kind=envelope.kind,
            rotation_id=envelope.envelope_id,
            stored_at=at,
            inputs=first_inputs(credential_inputs(payload, envelope.provider)),
            payload=payload.reveal_json(),
        )
        name = RecordName(self._server_id, envelope.slot_id, envelope.revision)
        return await self._write(name, record)

    async def renew(self, held: Held, oauth: OAuthSet, *, at: int) -> Held:
        """Put a refreshed sign-in in the place of *held*'s, whole or not at all.

        It stays the same revision. Raises Refused(`not_held`: it has left the vault meanwhile and
        must not come back; `vault_record_damaged`), DiskFull, OSError: then nothing changed.
        """
        name = self._name(held)
        async with self._changing:
            if (held.slot_id, held.revision) not in self._held:
                detail = f"slot {held.slot_id} revision {held.revision} was taken out of the vault"
                raise Refused("not_held", detail)
            record = await self._read(name)
            payload = CredentialPayload.read_json(record.payload)
            payload = payload.model_copy(update={"oauth": oauth})
            inputs = credential_inputs(payload, record.provider)
            renewed = record.model_copy(
                update={
                    "renewed_at": at,
                    "inputs": grown(record.inputs, inputs, stored_at=record.stored_at, at=at),
                    "payload": payload.reveal_json(),
                }
            )
            return await self._write(name, renewed)

    async def is_spent(self, held: Held) -> bool:
        """Whether *held*'s refresh token was used up by another slot or revision of this server.

        Raises Refused(`vault_record_damaged`).
        """
        mine = await self.inputs(held)
        newest = [one.value for one in mine if one.basis is Basis.OAUTH_GRANT][-1]
        others = [one for one in self.held.values() if one.renewed_at is not None and one != held]
        for other in others:
            if spent(newest, await self.inputs(other)):
                return True
        return False

    async def inputs(self, held: Held) -> Sequence[InputRecord]:
        """Return what is to be blinded for *held*, a sign-in's earlier refresh tokens first.

        Raises Refused(`vault_record_damaged`).
        """
        return (await self._read(self._name(held))).inputs

    async def payload(self, held: Held) -> CredentialPayload:
        """Return the credential itself. Raises Refused(`vault_record_damaged`)."""
        return CredentialPayload.read_json((await self._read(self._name(held))).payload)

    async def remove(self, held: Held) -> None:
        """Take *held* out of the vault for good. Raises OSError."""
        async with self._changing:  # a refresh that ends in this moment must not bring it back
            await asyncio.to_thread(self._vault.remove, self._name(held))
            self._held.pop((held.slot_id, held.revision), None)

    async def _write(self, name: RecordName, record: CredentialRecord) -> Held:
        raw = seal_record(self._root_key.view(), name, record.model_dump_json().encode())
        await asyncio.to_thread(self._vault.write, name, raw)
        self._held[name.slot, name.revision] = _held(name, record)
        return self._held[name.slot, name.revision]

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
        tuple(dict.fromkeys(i.basis for i in record.inputs)),
        grants_of(record.inputs) or (0,),
        record.renewed_at,
    )
