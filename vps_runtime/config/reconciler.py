"""Keeps the vault as the desired document says (read back by `document`)."""

import asyncio
import hashlib
import time
from collections.abc import Mapping
from functools import partial

import structlog

from bus_schemas.codec import decode
from bus_schemas.errors import ByokError, ContractError, Refused
from bus_schemas.events.config import ConfigDesired, CredentialSealed, DesiredSlot
from bus_schemas.events.reported import CredentialNeedsKey, CredentialRejected
from bus_schemas.sealed import SealedEnvelope
from bus_schemas.streams import CONFIG
from bus_schemas.transport.back_off import jittered
from bus_schemas.transport.connection import Bus
from bus_schemas.transport.jetstream import StoredMessage, read_last
from vps_runtime.announcer import Announcer
from vps_runtime.config.admit import NEWER, Gate, admit
from vps_runtime.config.document import READS, DesiredDocument, attempts, decoded
from vps_runtime.config.plan import Missing, Retire, missing, plan
from vps_runtime.enrolment.pins import read_pins
from vps_runtime.facts.told import last_revision, rejected_key, rejections
from vps_runtime.rotation.held import serves
from vps_runtime.rotation.rules import retired, rotations
from vps_runtime.rotation.store import carry_on
from vps_runtime.unlocked import UnlockedServer

_log = structlog.get_logger(__name__)

_PAUSE_SECONDS = 1.0


class Reconciler:
    """The one task that changes which credentials are held."""

    def __init__(self, bus: Bus, server: UnlockedServer, announcer: Announcer) -> None:
        self._bus = bus
        self._server = server
        self._announcer = announcer
        self._ids = {"server_id": server.settings.server_id}
        self._document = DesiredDocument(bus, server.settings)

    def nudge(self) -> None:
        """Ask for a pass soon."""
        self._document.nudge()

    async def run(self) -> None:
        """Reconcile on every connect, on nudges and every few minutes; cancel to stop."""
        await self._document.listen()
        while True:
            nudged = await self._document.next()
            try:
                await self.reconcile(expect_news=nudged)
            except (ByokError, OSError) as error:
                _log.warning("reconcile_failed", error=str(error))
                await asyncio.sleep(jittered(_PAUSE_SECONDS))
                self.nudge()

    async def reconcile(self, *, expect_news: bool = False) -> None:
        """Do one pass. Raises BusUnavailable, DiskFull, StorageFull: the next pass goes on.

        With *expect_news* a document no newer than the known one is read again a few times.
        """
        document = await self._document.read(self._server.generation, expect_news=expect_news)
        if document is None:
            return
        if document.generation > self._server.generation:
            await self._server.facts.tell(remember={"generation": str(document.generation)})
        for action in plan(document, rotations(self._told), self._last(document)):
            if isinstance(action, Retire):
                event = partial(retired, revision=action.revision)
                await carry_on(self._server.facts, action.slot_id, event)
            else:
                await self._fetch(action.slot)
            self._announcer.wake()
        if self._document.nudged:
            return  # this document is old already: the next pass says what is missing
        served = {
            slot for slot, revision in self._server.credentials.held if self._serves(slot, revision)
        }
        for gap in missing(document, served, rejections(self._told), rotations(self._told)):
            await self._tell_missing(gap)

    def _serves(self, slot_id: str, revision: int) -> bool:
        return serves(self._server.rotation(slot_id), revision)

    @property
    def _told(self) -> Mapping[str, str]:
        return self._server.facts.told

    def _last(self, document: ConfigDesired) -> dict[str, int]:
        """Return the highest revision ever taken in, of every slot there is or was."""
        held = self._server.credentials.held
        slots = {slot for slot, _ in held} | rotations(self._told).keys()
        return {
            slot: last_revision(slot, self._told, held)
            for slot in slots | {slot.slot_id for slot in document.slots}
        }

    async def _fetch(self, slot: DesiredSlot) -> None:
        message = await self._read_sealed(slot)
        if message is None:
            _log.info("sealing_not_there", slot=slot.slot_id, revision=slot.revision)
            return
        try:
            await self._admit(_envelope(message), slot)
        except (ContractError, Refused) as refusal:
            if refusal.reason != NEWER:
                await self._reject(slot, message, refusal)

    async def _read_sealed(self, slot: DesiredSlot) -> StoredMessage | None:
        """Return the slot's sealing, read again while it is missing or not the desired one."""
        subject = CredentialSealed.template.fill({**self._ids, "slot_id": slot.slot_id})
        message = None
        async for _ in attempts(READS):
            if message and self._document.nudged:
                return None  # it may belong to a newer document: begin anew with that
            message = await read_last(self._bus, CONFIG.name, subject) or message
            sealed = decoded(message) if message else None
            if isinstance(sealed, CredentialSealed) and (
                sealed.envelope.envelope_id == slot.rotation_id
            ):
                break
        return message

    async def _admit(self, envelope: SealedEnvelope, slot: DesiredSlot) -> None:
        """Take *envelope* into the vault. Raises Refused with the reason to report."""
        server, now = self._server, time.time()
        gate = Gate(
            server_id=server.settings.server_id,
            owner_id=server.settings.owner_id,
            slot=slot,
            last_revision=max(
                last_revision(slot.slot_id, server.facts.told, server.credentials.held),
                server.rotation(slot.slot_id).floor,
            ),
            pinned=read_pins(server.state.pins).pinned,
            sealing_keys=server.sealing_keys.by_id,
            now=now,
        )
        payload = admit(envelope, gate)
        await server.credentials.put(envelope, payload, at=int(now))

    async def _reject(
        self, slot: DesiredSlot, message: StoredMessage, refusal: ContractError | Refused
    ) -> None:
        """Tell a refusal once for each sealing and reason, however often it is looked at."""
        key = rejected_key(slot.slot_id)
        value = f"{hashlib.sha256(message.data).hexdigest()}/{refusal.reason}"
        if self._server.facts.told.get(key) == value:
            return
        _log.warning("credential_rejected", slot=slot.slot_id, error=str(refusal))
        draft = partial(
            CredentialRejected,
            slot_id=slot.slot_id,
            revision=slot.revision,
            rotation_id=slot.rotation_id,
            observed_generation=self._server.generation,
            reason=refusal.reason,
        )
        await self._server.facts.tell(draft, remember={key: value})

    async def _tell_missing(self, gap: Missing) -> None:
        key, value = f"needs-key/{gap.slot.slot_id}", f"{gap.slot.revision}/{gap.reason}"
        if self._server.facts.told.get(key) == value:
            return
        draft = partial(
            CredentialNeedsKey,
            slot_id=gap.slot.slot_id,
            provider=gap.slot.provider,
            reason=gap.reason,
        )
        await self._server.facts.tell(draft, remember={key: value})


def _envelope(message: StoredMessage) -> SealedEnvelope:
    """Return the sealing in *message*. Raises ContractError with the reason to report."""
    sealed = decode(message.data, message.subject).data
    if not isinstance(sealed, CredentialSealed):
        raise ContractError("wrong_type", "not a sealed credential")
    return sealed.envelope
