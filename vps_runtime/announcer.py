"""Tells the ledger what this server holds: whatever is held and not yet told, until none is left.

Nothing is told "because something just happened": every fact follows from comparing the vault,
the pins and the sealing key with the memory of what was told. So a kill at any point, between
the vault's write and its facts too, ends right at the next pass.
"""

import asyncio
import contextlib
import time
from collections.abc import Callable
from functools import partial

import structlog

from bus_schemas.errors import ByokError, Refused
from bus_schemas.events.fingerprint import FingerprintRenewed, FingerprintRetired, HeldRevision
from bus_schemas.events.reported import (
    CredentialRetired,
    CredentialStored,
    PinsChanged,
    SealingKeyPublished,
)
from bus_schemas.transport.back_off import BackOff
from vps_runtime.enrolment.pins import read_pins
from vps_runtime.facts.told import (
    notes,
    renewal_due,
    retired_forgets,
    settled,
    stored_memory,
    superseded,
    to_tell_retired,
    to_tell_stored,
)
from vps_runtime.fingerprint.tags import Tags
from vps_runtime.unlocked import UnlockedServer

_log = structlog.get_logger(__name__)

_LOOK_SECONDS = 5.0
"""How soon a change of pins on the console is noticed."""

_FIRST_PAUSE = 0.5
_LONGEST_PAUSE = 60.0


class Announcer:
    """The one task that tells facts about what is held."""

    def __init__(self, server: UnlockedServer, tags: Tags) -> None:
        self._server = server
        self._facts = server.facts
        self._tags = tags
        self._on_pins_changed: list[Callable[[], None]] = []
        self._wake = asyncio.Event()

    def on_pins_changed(self, callback: Callable[[], None]) -> None:
        """Call *callback* after each change of pins: a refused sealing may now be good."""
        self._on_pins_changed.append(callback)

    def wake(self) -> None:
        """Say that something may be new to tell."""
        self._wake.set()

    async def run(self) -> None:
        """Tell for ever; cancel to stop. Trouble is retried with jittered back-off."""
        back_off = BackOff(first=_FIRST_PAUSE, longest=_LONGEST_PAUSE)
        said = ""
        while True:
            self._wake.clear()
            pause = _LOOK_SECONDS
            try:
                await self.catch_up()
                back_off.over()
                said = ""
            except (ByokError, OSError) as error:
                pause = back_off.pause()
                if said != str(error):
                    said = str(error)
                    _log.warning("announcer_waits", error=said)
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(pause):
                    await self._wake.wait()

    async def catch_up(self) -> None:
        """Tell all that is untold; what needs no evaluator comes first.

        Raises BusUnavailable or Refused (the evaluator), StorageFull, DiskFull, OSError.
        """
        await self._tell_pins()
        await self._tell_sealing_key()
        await self._tell_stored()
        await self._tell_retired()
        await self._renew()
        if not self._server.credentials.held:
            return
        epoch = await self._tags.tell_missing()
        held = self._server.credentials.held
        done = settled(self._server.credentials.current.values(), epoch, self._facts.told)
        for old in superseded(held, done):
            await self._server.credentials.remove(old)
        await self._tell_retired()

    async def _tell_pins(self) -> None:
        try:
            pinned = read_pins(self._server.state.pins).pinned
        except Refused as error:  # nobody is obeyed until it is mended; the rest is still told
            _log.warning("pins_unreadable", error=str(error))
            return
        value = ",".join(pinned)
        if self._facts.told.get("pins") == value:
            return
        await self._facts.tell(partial(PinsChanged, pinned=pinned), remember={"pins": value})
        _log.info("pins_changed", pinned=len(pinned))
        for callback in self._on_pins_changed:
            callback()

    async def _tell_sealing_key(self) -> None:
        key = await self._server.sealing_keys.turn(time.time())
        if self._facts.told.get("sealing-key") == key.key_id:
            return
        await self._facts.tell(
            partial(SealingKeyPublished, signed_key=key.signed_by(self._server.identity)),
            remember={"sealing-key": key.key_id},
        )

    async def _tell_stored(self) -> None:
        for entry in to_tell_stored(self._server.credentials.held.values(), self._facts.told):
            draft = partial(
                CredentialStored,
                slot_id=entry.slot_id,
                revision=entry.revision,
                rotation_id=entry.rotation_id,
                observed_generation=self._server.generation,
                provider=entry.provider,
            )
            forget = [f"rejected/{entry.slot_id}", f"needs-key/{entry.slot_id}"]
            await self._facts.tell(draft, remember=stored_memory(entry), forget=forget)
            _log.info("credential_stored", slot=entry.slot_id, revision=entry.revision)

    async def _tell_retired(self) -> None:
        for note in to_tell_retired(self._server.credentials.held, self._facts.told):
            await self._facts.tell(
                partial(
                    CredentialRetired,
                    slot_id=note.slot_id,
                    revision=note.revision,
                    rotation_id=note.rotation_id,
                    observed_generation=self._server.generation,
                ),
                partial(FingerprintRetired, slot_id=note.slot_id, revision=note.revision),
                forget=retired_forgets(note, self._facts.told),
            )
            _log.info("credential_retired", slot=note.slot_id, revision=note.revision)

    async def _renew(self) -> None:
        now = time.time()
        if not renewal_due(self._facts.told, now):
            return
        held = tuple(
            HeldRevision(slot_id=note.slot_id, revision=note.revision)
            for note in notes(self._facts.told)
        )
        await self._facts.tell(
            partial(FingerprintRenewed, held=held), remember={"renewed": str(int(now))}
        )
