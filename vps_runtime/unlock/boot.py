"""The boot sequence: ask, open, re-wrap, replace the root file, commit. Safe to kill anywhere.

Killed before the root file is replaced, the old generation is on the disk and committed.
Killed after it, the new one is on the disk and pending; the next start's preimage shows it.
"""

import asyncio
import secrets
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import TypeVar

import structlog

from bus_schemas.errors import ContractError, Refused
from bus_schemas.transport.back_off import BackOff
from bus_schemas.transport.target import BusUnavailable
from bus_schemas.unlock import SHARE_LENGTH
from vps_runtime.state import StateFolder
from vps_runtime.unlock.evaluator import Evaluator
from vps_runtime.unlock.rules import begin, finish
from vps_runtime.vault.record import ROOT_KEY_LENGTH
from vps_runtime.vault.root_file import RootFile, read_root_file, write_root_file

_log = structlog.get_logger(__name__)

_PASSING = frozenset({"stale_nonce", "too_many_unlocks", "unknown_server"})
"""Refusals that end by themselves; every other one needs a person."""

_FIRST_PAUSE = 0.2
_LONGEST_PAUSE = 30.0

_T = TypeVar("_T")


@dataclass(frozen=True, slots=True)
class Unlocked:
    """The running server's secret, in memory only, and which start this is."""

    root_key: bytes = field(repr=False)
    incarnation: int


async def unlock(state: StateFolder, server_id: str, evaluator: Evaluator) -> Unlocked:
    """Run one start to its commit, waiting as long as the evaluator is away.

    Raises Refused (`stale_generation` and the like: a person must look; `root_file_missing`),
    DiskFull (the old generation is whole), OSError.
    """
    found = _find(state)
    start = begin(
        found,
        server_id=server_id,
        first_share=secrets.token_bytes(SHARE_LENGTH),
        next_share=secrets.token_bytes(SHARE_LENGTH),
    )
    outputs = await _patiently("unlock", lambda: evaluator.unlock(start))
    opened = finish(start, outputs, new_root_key=secrets.token_bytes(ROOT_KEY_LENGTH))
    # From here on the disk opens with g + 1 only. The evaluator still takes g until the commit.
    await asyncio.to_thread(write_root_file, state.root_file, opened.file)
    incarnation = await _patiently(
        "commit", lambda: evaluator.commit(opened.file.g, start.next_preimage)
    )
    return Unlocked(opened.root_key, incarnation)


def _find(state: StateFolder) -> RootFile | None:
    try:
        return read_root_file(state.root_file)
    except FileNotFoundError:
        pass
    # A new root key beside old records would strand them for ever: never do that silently.
    if state.vault.is_dir() and any(state.vault.glob("*.vault")):
        detail = f"{state.root_file} is gone but {state.vault} has records; restore it, or enrol"
        raise Refused("root_file_missing", f"{detail} this machine as a new server")
    return None


async def _patiently(step: str, attempt: Callable[[], Awaitable[_T]]) -> _T:
    back_off = BackOff(first=_FIRST_PAUSE, longest=_LONGEST_PAUSE)
    while True:
        try:
            return await attempt()
        except (BusUnavailable, ContractError, Refused) as error:
            if isinstance(error, Refused) and error.reason not in _PASSING:
                raise
            pause = back_off.pause()
            _log.warning("unlock_waits", step=step, error=str(error), seconds=round(pause, 1))
        await asyncio.sleep(pause)
