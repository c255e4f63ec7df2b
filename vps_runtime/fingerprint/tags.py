"""From what the vault holds to tags, through the blind evaluator, and the facts that tell them."""

import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import partial

from bus_schemas.errors import Refused
from bus_schemas.evaluation import KeysReply
from bus_schemas.events.fingerprint import FingerprintObserved
from bus_schemas.oprf import MAX_ELEMENTS
from bus_schemas.tags import tag
from vps_runtime.facts.store import Facts
from vps_runtime.facts.told import SHORT_TAG, TagKey, closed_epochs, missing_tags, outgrown_tags
from vps_runtime.unlock.evaluator import Evaluator
from vps_runtime.vault.credentials import CredentialStore, Held
from vps_runtime.vault.grants import InputRecord

_KEYS_ARE_GOOD_SECONDS = 3600.0
"""How soon a new epoch is noticed."""


@dataclass(frozen=True, slots=True)
class _Wanted:
    key: TagKey
    held: Held
    input: InputRecord


class Tags:
    """Tells the tags of what is held, each once for every (slot, revision, basis, epoch).

    A sign-in has one for each of its last refresh tokens. They are told in the order in which they
    came: whoever listens takes the last one for that in use, and those before it for retired.
    """

    def __init__(self, evaluator: Evaluator, credentials: CredentialStore, facts: Facts) -> None:
        self._evaluator = evaluator
        self._credentials = credentials
        self._facts = facts
        self._keys: KeysReply | None = None
        self._asked_at = 0.0

    async def tell_missing(self) -> str:
        """Tell every tag that is missing under an epoch in use; return the current epoch.

        Raises BusUnavailable, Refused, ContractError, StorageFull: what was told stays told,
        the next call goes on from there.
        """
        keys = await self._epochs()
        held = self._credentials.held  # an older revision may be refreshed while it is in use
        for epoch, public_key in keys.fingerprint_public_keys.items():
            wanted = await self._wanted(epoch, held.values())
            for at in range(0, len(wanted), MAX_ELEMENTS):
                await self._tell(epoch, public_key, wanted[at : at + MAX_ELEMENTS])
        over = closed_epochs(keys.fingerprint_public_keys, self._facts.told)
        if over := over + outgrown_tags(held.values(), self._facts.told):
            await self._facts.tell(forget=over)
        return keys.current_epoch

    async def _epochs(self) -> KeysReply:
        now = time.monotonic()
        if self._keys is None or now - self._asked_at >= _KEYS_ARE_GOOD_SECONDS:
            self._keys = await self._evaluator.keys()
            self._asked_at = now
        return self._keys

    async def _wanted(self, epoch: str, held: Iterable[Held]) -> list[_Wanted]:
        """Return what is missing; long histories last, since evaluations are counted."""
        wanted: list[_Wanted] = []
        for entry in sorted(held, key=_history):
            missing = missing_tags([entry], [epoch], self._facts.told)
            if not missing:
                continue
            by_input = {(key.basis, key.grant): key for key in missing}
            wanted += [
                _Wanted(key, entry, value)
                for value in await self._credentials.inputs(entry)
                if (key := by_input.get((value.basis, value.grant)))
            ]
        return wanted

    async def _tell(self, epoch: str, public_key: bytes, wanted: Sequence[_Wanted]) -> None:
        try:
            outputs = await self._evaluator.fingerprint(
                epoch, public_key, [one.input.value for one in wanted]
            )
        except Refused:
            self._keys = None  # perhaps the epoch was closed meanwhile: ask again next time
            raise
        tags = [tag(epoch, one.input.basis, y) for one, y in zip(wanted, outputs, strict=True)]
        drafts = [
            partial(
                FingerprintObserved,
                slot_id=one.held.slot_id,
                revision=one.held.revision,
                provider=one.held.provider,
                basis=one.input.basis,
                strength=one.input.strength,
                epoch=epoch,
                tag=told,
            )
            for one, told in zip(wanted, tags, strict=True)
        ]
        short = {one.key.key: told[:SHORT_TAG] for one, told in zip(wanted, tags, strict=True)}
        await self._facts.tell(*drafts, remember=short)


def _history(entry: Held) -> int:
    return len(entry.grants)
