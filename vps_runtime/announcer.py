"""Tells the ledger what this server holds: whatever is held and not yet told, until none is left.

Nothing is told "because something just happened": every fact follows from comparing the vault,
the pins and the sealing key with the memory of what was told. So a kill at any point, between
the vault's write and its facts too, ends right at the next pass.
"""

import asyncio
import time
from collections.abc import Callable, Collection, Mapping
from functools import partial

import structlog

from bus_schemas.errors import ByokError, Refused
from bus_schemas.events.fingerprint import (
    MAX_SLOTS,
    FingerprintRenewed,
    FingerprintRetired,
    HeldRevision,
)
from bus_schemas.events.reported import (
    CredentialRetired,
    CredentialStored,
    PinsChanged,
    SealingKeyPublished,
)
from bus_schemas.transport.back_off import BackOff
from bus_schemas.transport.wake import woken
from vps_runtime.enrolment.pins import read_pins
from vps_runtime.facts.store import Telling
from vps_runtime.facts.told import (
    StoredNote,
    gone_forgets,
    notes,
    rejected_key,
    renewal_due,
    settled,
    stored_memory,
    to_tell_gone,
    to_tell_stored,
)
from vps_runtime.fingerprint.tags import Tags
from vps_runtime.rotation.held import is_retired, lost, serves, unknown
from vps_runtime.rotation.rules import (
    Change,
    adopted,
    record_lost,
    retired,
    rotation_key,
    rotation_of,
    stored,
)
from vps_runtime.rotation.store import carry_on, log_steps, telling
from vps_runtime.unlocked import UnlockedServer
from vps_runtime.vault.credentials import Held

_log = structlog.get_logger(__name__)

_Held = tuple[HeldRevision, ...]

_LOOK_SECONDS = 5.0
"""How soon a change of pins on the console is noticed."""

_FIRST_PAUSE = 0.5
_LONGEST_PAUSE = 60.0


class Announcer:
    """The one task that tells facts about what is held."""

    def __init__(
        self, server: UnlockedServer, tags: Tags, changed: Callable[[], None] = lambda: None
    ) -> None:
        """Call *changed* after a revision was taken on, or taken out of use."""
        self._server = server
        self._facts = server.facts
        self._tags = tags
        self._changed = changed
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
            await woken(self._wake, pause)

    async def catch_up(self) -> None:
        """Tell all that is untold; what needs no evaluator comes first.

        Raises BusUnavailable or Refused (the evaluator), StorageFull, DiskFull, OSError.
        """
        await self._tell_pins()
        await self._tell_sealing_key()
        await self._tell_lost()
        await self._tell_stored()
        await self._clear_out()
        await self._tell_gone()
        await self._renew()
        if not self._server.credentials.held:
            return
        epoch = await self._tags.tell_missing()
        await self._clear_out(settled(self._server.credentials.held.values(), epoch, self._told))
        await self._tell_gone()

    async def _tell_pins(self) -> None:
        try:
            if self._pins_news(self._told) == Telling():
                return
            await self._facts.decide(self._pins_news)
        except Refused as error:  # nobody is obeyed until it is mended; the rest is still told
            _log.warning("pins_unreadable", error=str(error))
            return
        _log.info("pins_changed")
        for callback in self._on_pins_changed:
            callback()

    def _pins_news(self, told: Mapping[str, str]) -> Telling:
        """Compare the pins as they are now: an order may be telling of a change, too."""
        pinned = read_pins(self._server.state.pins).pinned
        value = ",".join(pinned)
        if told.get("pins") == value:
            return Telling()
        return Telling([partial(PinsChanged, pinned=pinned)], {"pins": value})

    async def _tell_sealing_key(self) -> None:
        key = await self._server.sealing_keys.turn(time.time())
        if self._facts.told.get("sealing-key") == key.key_id:
            return
        await self._facts.tell(
            partial(SealingKeyPublished, signed_key=key.signed_by(self._server.identity)),
            remember={"sealing-key": key.key_id},
        )

    async def _tell_lost(self) -> None:
        """Take out of use what the vault has lost: nothing lower may come in its place."""
        credentials = self._server.credentials
        for slot, revision in credentials.damaged.items():
            if rotation_key(slot) not in self._told:  # the memory is lost, too
                await carry_on(self._facts, slot, partial(retired, revision=revision - 1))
        for slot, revision in lost(credentials.held, self._told):
            await carry_on(self._facts, slot, partial(record_lost, revision=revision))
            self._changed()

    async def _tell_stored(self) -> None:
        for entry in to_tell_stored(self._server.credentials.held.values(), self._told):
            await self._take_on(entry)
        for slot, revision in unknown(self._server.credentials.held, self._told).items():
            await carry_on(self._facts, slot, partial(adopted, revision=revision))
            self._changed()

    async def _take_on(self, entry: Held) -> None:
        changes: list[Change] = []

        def decide(told: Mapping[str, str]) -> Telling:
            before = rotation_of(entry.slot_id, told)
            changes.append(change := stored(before, entry.revision))
            if change.rotation == before:  # an order was faster: it is retired
                return Telling()
            told_now = telling(entry.slot_id, change, told)
            draft = partial(
                CredentialStored,
                slot_id=entry.slot_id,
                revision=entry.revision,
                rotation_id=entry.rotation_id,
                observed_generation=self._server.generation,
                provider=entry.provider,
            )
            return Telling(
                [draft, *told_now.drafts],
                {**told_now.remember, **stored_memory(entry)},
                [rejected_key(entry.slot_id), f"needs-key/{entry.slot_id}"],
            )

        await self._facts.decide(decide)
        log_steps(entry.slot_id, changes[0])
        _log.info("credential_stored", slot=entry.slot_id, revision=entry.revision)
        self._changed()

    async def _clear_out(self, settled: Collection[Held] = ()) -> None:
        if await self._server.clear_out(settled):
            self._changed()

    async def _tell_gone(self) -> None:
        """Tell what has left the vault: as retired, or, given up before its use, no more."""
        for note in to_tell_gone(self._server.credentials.held, self._told):
            await self._facts.decide(partial(self._gone, note))
            _log.info("credential_gone", slot=note.slot_id, revision=note.revision)

    def _gone(self, note: StoredNote, told: Mapping[str, str]) -> Telling:
        forget = gone_forgets(note, told)
        if not is_retired(note.revision, rotation_of(note.slot_id, told)):
            # Not "this and all lower ones": the revision in use is a lower one.
            stays = _held_revisions(told, without=note)
            return Telling([partial(FingerprintRenewed, held=stays)], {}, forget)
        retired_fact = partial(
            CredentialRetired,
            slot_id=note.slot_id,
            revision=note.revision,
            rotation_id=note.rotation_id,
            observed_generation=self._server.generation,
        )
        tags_fact = partial(FingerprintRetired, slot_id=note.slot_id, revision=note.revision)
        return Telling([retired_fact, tags_fact], {}, forget)

    async def _renew(self) -> None:
        now = time.time()
        if not renewal_due(self._facts.told, now):
            return
        await self._facts.tell(
            partial(FingerprintRenewed, held=_held_revisions(self._told)),
            remember={"renewed": str(int(now))},
        )

    @property
    def _told(self) -> Mapping[str, str]:
        return self._facts.told


def _held_revisions(told: Mapping[str, str], without: StoredNote | None = None) -> _Held:
    """Return what is held for `FingerprintRenewed`, which takes two of each slot at most."""
    found = [note for note in notes(told) if note != without]
    if len(found) > 2 * MAX_SLOTS:
        found = [note for note in found if serves(rotation_of(note.slot_id, told), note.revision)]
    return tuple(HeldRevision(slot_id=note.slot_id, revision=note.revision) for note in found)
