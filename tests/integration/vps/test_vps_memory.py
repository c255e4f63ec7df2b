"""What lies in the memory of a running, unlocked agent."""

import asyncio
import os
import sqlite3
import sys
from pathlib import Path

from bus_schemas.oprf import OprfKey
from bus_schemas.unlock import (
    key_encryption_key,
    unlock_check,
    unlock_input,
    unlock_key_info,
    unlock_preimage,
)
from platform_handlers.evaluator.keys import UNLOCK_FILE
from tests.integration.vps.conftest import Agent, Fleet
from tests.memory import count
from vps_runtime.process_memory import read_host
from vps_runtime.state import StateFolder
from vps_runtime.vault.record import RecordName, open_record, unwrap_root_key
from vps_runtime.vault.root_file import read_root_file
from vps_runtime.vault.sealing_keys import SealingKeyRecord
from vps_runtime.vault.store import Vault

OPEN_AGENT = (
    "import sys; from vps_runtime import commands; commands.forbid_dumps = lambda: None;"
    "sys.exit(commands.run_command(sys.argv[1:]))"
)
"""The agent as it is, but that a debugger of its own uid may look in."""


def root_key_of(state: StateFolder, evaluator: Path) -> bytes:
    """Return the root key, as whoever has a server's disk *and* the evaluator's keys can."""
    with sqlite3.connect(evaluator / UNLOCK_FILE) as database:
        [(seed,)] = database.execute("SELECT seed FROM unlock_keys")
    file = read_root_file(state.root_file)
    x = unlock_input(file.server_id, file.g, file.share)
    info = unlock_key_info(file.server_id, file.g, unlock_check(unlock_preimage(x)))
    y = OprfKey.from_seed(seed, info).evaluate_known(x)
    kek = key_encryption_key(y, file.share, file.server_id, file.g)
    unwrap_root_key(kek, file.server_id, file.g, file.wrapped_root, root := bytearray(32))
    return bytes(root)


async def test_an_unlocked_agent_has_no_copy_of_its_root_key(fleet: Fleet) -> None:
    """A debugger or a core file finds the sealing key, which is in use, but never the root key."""
    state = await fleet.enrol("acme-1")
    log = fleet.folder / "open-agent.log"
    with log.open("wb") as sink:
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-c", OPEN_AGENT, "run", "--state", str(state.root)),
            stderr=sink,
            env={**os.environ, "PYTHONPATH": str(Path(__file__).parents[3])},
        )
    fleet.agents.append(agent := Agent(process, log))
    await agent.ready()
    await fleet.sealing_key("acme-1")  # a record was sealed and its key told
    root = root_key_of(state, fleet.platform.installation.evaluator)
    name = RecordName("acme-1", "_sealing", 1)
    _, text = open_record(root, Vault(state.vault, "acme-1").read(name), name)  # it is the one
    sealing = SealingKeyRecord.model_validate_json(text).private_key
    found = count(process.pid, {"root": root, "sealing": sealing})
    # The pages themselves are hidden, or one plain place where the kernel has no memfd_secret.
    [held] = [line for line in agent.lines() if line["event"] == "root_key_held"]
    assert found["root"] == (0 if "memfd_secret" in held["how"] else 1)
    assert found["sealing"] > 0  # the search sees what is there
    told = read_host(state.lock_file).runtime  # what `byok-vps doctor` goes by
    assert told
    assert (told.pid, told.locked_kb > 0) == (process.pid, "plain" not in held["how"])
    assert told.hidden is ("memfd_secret" in held["how"])
