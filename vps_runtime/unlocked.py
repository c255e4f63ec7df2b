"""All that a server has once it is unlocked: vault, sealing keys, facts."""

import asyncio
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from functools import partial

from vps_runtime.facts.store import Facts
from vps_runtime.orders.rules import may_be_used
from vps_runtime.rotation.held import leftovers
from vps_runtime.rotation.rules import SlotRotation, retired, rotation_of, rotations
from vps_runtime.rotation.store import carry_on
from vps_runtime.state import Identity, Settings, StateFolder
from vps_runtime.unlock.boot import Unlocked
from vps_runtime.vault.credentials import CredentialStore, Held
from vps_runtime.vault.sealing_keys import SealingKeys
from vps_runtime.vault.store import Vault


@dataclass(frozen=True)
class UnlockedServer:
    """The parts that the reconciler, the announcer and the reporter share."""

    state: StateFolder
    settings: Settings
    identity: Identity
    facts: Facts
    credentials: CredentialStore
    sealing_keys: SealingKeys

    @classmethod
    async def open(cls, state: StateFolder, unlocked: Unlocked) -> "UnlockedServer":
        """Read vault and memory of *state*. Raises StorageFull, OSError, NotEnrolled."""
        settings = state.read_settings()
        server_id = settings.server_id
        vault = Vault(state.vault, server_id)
        await asyncio.to_thread(vault.sweep)
        credentials = CredentialStore(vault, server_id, unlocked.root_key)
        sealing_keys = SealingKeys(vault, server_id, unlocked.root_key)
        await credentials.load()
        await sealing_keys.load()
        facts = await Facts.open(state.outbox, server_id, unlocked.incarnation)
        return cls(state, settings, state.read_identity(), facts, credentials, sealing_keys)

    @property
    def usable(self) -> Mapping[str, Held]:
        """The credential of each slot that may be used now: of the current revision, no other.

        A slot that a signed order stopped is not in it, however good its credential is.
        """
        slots = rotations(self.facts.told)
        return {slot: held for slot in slots if (held := self.usable_in(slot))}

    def usable_in(self, slot_id: str) -> Held | None:
        """Return the credential of *slot_id* that may be used now; None if none may.

        Whoever uses one asks here, each time: the answer follows rotation and orders at once.
        """
        told = self.facts.told
        current = rotation_of(slot_id, told).current
        if current is None or not may_be_used(slot_id, told):
            return None
        return self.credentials.get(slot_id, current)

    def rotation(self, slot_id: str) -> SlotRotation:
        """Return where the rotation of *slot_id* stands."""
        return rotation_of(slot_id, self.facts.told)

    async def clear_out(self, settled: Collection[Held] = ()) -> bool:
        """Take out of the vault what is never used again; say whether there was anything.

        *settled* are the held credentials whose tags are all told. Raises StorageFull, OSError.
        """
        gone = [
            held
            for slot, rotation in rotations(self.facts.told).items()
            for held in self._leftovers(slot, rotation, settled)
        ]
        for held in gone:
            if held.revision < (self.rotation(held.slot_id).current or 0):  # the previous one
                await carry_on(self.facts, held.slot_id, partial(retired, revision=held.revision))
            await self.credentials.remove(held)
        return bool(gone)

    def _leftovers(
        self, slot_id: str, rotation: SlotRotation, settled: Collection[Held]
    ) -> list[Held]:
        here = self.credentials.of(slot_id)
        done = any(one.revision == rotation.current for one in settled if one.slot_id == slot_id)
        return [here[revision] for revision in leftovers(rotation, here, settled=done)]

    @property
    def generation(self) -> int:
        """The highest generation of the desired document that was acted on; 0 for none."""
        return int(self.facts.told.get("generation", 0))
