"""The boot sequence: begin, ask, open, re-wrap, replace the root file, commit.

Safe to kill anywhere, and as often as may be:
- before the root file holds the next share, nobody was asked yet;
- before it is replaced, the old generation and the announced next share are on the disk, which
  together the evaluator takes again;
- after it, the new generation is on the disk and pending, and the next start commits it.
"""

import asyncio
import secrets
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from functools import partial
from typing import TypeVar

import structlog

from bus_schemas.errors import ContractError, Refused
from bus_schemas.transport.back_off import BackOff
from bus_schemas.transport.target import BusUnavailable
from bus_schemas.transport.wake import woken
from bus_schemas.unlock import SHARE_LENGTH, unlock_input, unlock_preimage
from vps_runtime.enrolment.pins import read_pins
from vps_runtime.state import StateFolder
from vps_runtime.unlock.evaluator import Evaluator, TurnedDown
from vps_runtime.unlock.refusal import forget_refusal, refused
from vps_runtime.unlock.rules import Start, begin, finish
from vps_runtime.vault.root_file import (
    RootFile,
    read_root_file,
    sync_root_file,
    write_root_file,
)
from vps_runtime.vault.root_key import SecretKey

_log = structlog.get_logger(__name__)

_PASSING = frozenset({"server_reenrolled", "stale_nonce", "too_many_unlocks", "unknown_server"})
"""Refusals that end by themselves; every other one that the evaluator signed needs a person."""

_FIRST_PAUSE = 0.2
_LONGEST_PAUSE = 30.0
_LOOK_ANYWAY_SECONDS = 60.0
"""Who keeps the pins takes a step now and then: `pulse` tells it from one that is stuck."""

_T = TypeVar("_T")


@dataclass(frozen=True, slots=True)
class Unlocked:
    """The running server's secret, in memory only, and which start this is."""

    root_key: SecretKey
    incarnation: int


async def unlock(
    state: StateFolder, server_id: str, evaluator: Evaluator, *, recovered: SecretKey | None = None
) -> Unlocked:
    """Run one start to its commit, waiting as long as the evaluator is away.

    *recovered* is the root key where a recovery code opened it: the evaluator's key may be a new
    one then, and the root file may be missing. Raises Refused (`stale_generation` and the like: a
    person must look; `root_file_missing`), DiskFull (the old generation is whole), OSError.
    """
    found = _find(state, needed=recovered is None)
    start = begin(
        found,
        server_id=server_id,
        first_share=secrets.token_bytes(SHARE_LENGTH),
        next_share=secrets.token_bytes(SHARE_LENGTH),
    )
    beginning = asyncio.create_task(asyncio.to_thread(_write_begun, state, start, found))
    try:
        await _patiently("challenge", evaluator.challenge)
    finally:
        await beginning  # the next share is on the disk before the evaluator hears of it
    try:
        outputs = await _patiently("unlock", lambda: evaluator.unlock(start))
    except Refused as error:
        raise await asyncio.to_thread(refused, state, start, error) from None
    opened = finish(
        start, outputs, root_key=recovered or SecretKey.random(), known=recovered is not None
    )
    # From here on the disk opens with g + 1 only.
    await asyncio.to_thread(write_root_file, state.root_file, opened.file)
    pins = await asyncio.to_thread(pins_to_commit, state)
    incarnation = await _patiently(
        "commit", lambda: evaluator.commit(opened.file.g, start.next_preimage, pins)
    )
    await asyncio.to_thread(forget_refusal, state)
    return Unlocked(opened.root_key, incarnation)


def _write_begun(state: StateFolder, start: Start, found: RootFile | None) -> None:
    if start.begun is None:
        return
    if start.begun != found:
        write_root_file(state.root_file, start.begun)
    else:
        sync_root_file(state.root_file)  # losing it once it was announced locks this server out


def pins_to_commit(state: StateFolder) -> tuple[str, ...] | None:
    """Return the owner keys that this server obeys; None while their file is damaged.

    The evaluator then keeps those it knows: the owner's approval is the way back from an older
    disk, and must not end with a bad sector.
    """
    try:
        return read_pins(state.pins).pinned
    except Refused as error:
        _log.error("pins_unreadable", error=str(error))
        return None


async def keep_pins(
    state: StateFolder, server_id: str, evaluator: Evaluator, changed: asyncio.Event
) -> None:
    """Tell the evaluator, for ever, whom this server obeys, as often as *changed* is set.

    Only keys that it heard of from here can approve a restored copy of this machine.
    """
    while True:
        await woken(changed, _LOOK_ANYWAY_SECONDS)
        if not changed.is_set():
            continue
        changed.clear()
        try:
            file = await asyncio.to_thread(read_root_file, state.root_file)
            await _patiently("pins", partial(_commit_again, state, server_id, evaluator, file))
        except (Refused, OSError) as error:  # such as: another copy of this machine took over
            _log.error("pins_not_kept", error=str(error))


async def _commit_again(
    state: StateFolder, server_id: str, evaluator: Evaluator, file: RootFile
) -> int:
    preimage = unlock_preimage(unlock_input(server_id, file.g, file.share))
    pins = await asyncio.to_thread(pins_to_commit, state)
    return await evaluator.commit(file.g, preimage, pins)


def _find(state: StateFolder, *, needed: bool) -> RootFile | None:
    try:
        return read_root_file(state.root_file)
    except FileNotFoundError:
        pass
    # A new root key beside old records would strand them for ever: never do that silently.
    if needed and state.vault.is_dir() and any(state.vault.glob("*.vault")):
        detail = f"{state.root_file} is gone but {state.vault} has records; restore it, or have"
        raise Refused("root_file_missing", f"{detail} the platform enrol this machine again")
    return None


async def _patiently(step: str, attempt: Callable[[], Awaitable[_T]]) -> _T:
    back_off = BackOff(first=_FIRST_PAUSE, longest=_LONGEST_PAUSE)
    said = ""
    while True:
        try:
            return await attempt()
        except (BusUnavailable, ContractError, Refused) as error:
            # Not on anybody else's word: one forged refusal would stop this server for good.
            if isinstance(error, TurnedDown) and error.reason not in _PASSING:
                raise
            if said != str(error):
                said = str(error)
                _log.warning("unlock_waits", step=step, error=said)
        await asyncio.sleep(back_off.pause())
