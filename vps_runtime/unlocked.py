"""All that a server has once it is unlocked: vault, sealing keys, facts."""

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass

from vps_runtime.facts.store import Facts
from vps_runtime.orders.rules import usable
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
        """The credential of each slot that may be used now; whoever uses one asks here, each time.

        A slot that a signed order stopped is not in it, however good its credential is.
        """
        return usable(self.credentials.current, self.facts.told)

    @property
    def generation(self) -> int:
        """The highest generation of the desired document that was acted on; 0 for none."""
        return int(self.facts.told.get("generation", 0))
