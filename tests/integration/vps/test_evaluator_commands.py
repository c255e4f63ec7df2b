"""`byok evaluator recover` and `shred` beside a running evaluator, and what servers see of them."""

import asyncio
import shutil
import time
from datetime import timedelta
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from bus_schemas.codec import decode
from bus_schemas.errors import Refused
from bus_schemas.events import RatchetAdvanced, UnlockShredded
from bus_schemas.fields import at_utc
from bus_schemas.flows import Role
from bus_schemas.transport.fresh import fresh
from bus_schemas.transport.jetstream import read_batch, read_last, store
from platform_handlers.evaluator.cli import evaluator
from platform_handlers.settings import Settings
from tests.integration.vps.conftest import Fleet
from tests.integration.vps.starts import copied, eventually, key, killed_start, start
from tests.integration.vps.test_vps_copies import keep_something
from tests.integration.vps.thief import Thief

SERVER = "acme-1"


async def byok(fleet: Fleet, *arguments: str) -> Result:
    """Run `byok evaluator …` in a thread of its own; the evaluator runs in this one."""
    settings = Settings(fleet.platform.installation.root, fleet.platform.server.target.url)
    return await asyncio.to_thread(CliRunner().invoke, evaluator, arguments, obj=settings)


def soon() -> str:
    """Return an instant an hour from now."""
    return (at_utc(time.time()) + timedelta(hours=1)).isoformat()


async def restore_ratchet(fleet: Fleet, before: RatchetAdvanced) -> None:
    """Put an older state back, as a restored backup of the stream would."""
    await store(await fleet.platform.bus(Role.EVALUATOR), fresh(before))


async def ratchet(fleet: Fleet) -> RatchetAdvanced:
    """Return the state as it is now."""
    bus = await fleet.platform.bus(Role.EVALUATOR)
    subject = f"byok.v1.ratchet.{SERVER}"
    message = await read_last(bus, "BYOK_RATCHET", subject)
    assert message is not None
    state = decode(message.data, subject).data
    assert isinstance(state, RatchetAdvanced)
    return state


async def test_after_a_restore_servers_come_back_by_one_command(
    fleet: Fleet, tmp_path: Path
) -> None:
    """Each is believed one higher generation; what it says afterwards is still the newest."""
    state = await fleet.enrol(SERVER)
    await start(state)
    backup = await ratchet(fleet)
    older = copied(state, tmp_path / "older")
    for _ in range(2):
        live = await start(state)
    await restore_ratchet(fleet, backup)
    with pytest.raises(Refused, match="generation_ahead"):
        await start(state)
    done = await byok(fleet, "recover", "--until", soon())
    assert done.exit_code == 0, done.output
    again = await start(state)
    assert key(again) == key(live)
    assert again.incarnation == live.incarnation + 1
    with pytest.raises(Refused, match="stale_generation"):
        await start(older)
    assert (await start(state)).incarnation == live.incarnation + 2


async def test_one_window_believes_a_server_once(fleet: Fleet, tmp_path: Path) -> None:
    """Of two disks that are both newer than the backup, the first to ask is the server."""
    state = await fleet.enrol(SERVER)
    await start(state)
    backup = await ratchet(fleet)
    await start(state)
    copy = copied(state, tmp_path / "copy")
    await start(state)
    await restore_ratchet(fleet, backup)
    assert (await byok(fleet, "recover", "--until", soon())).exit_code == 0
    await start(state)
    with pytest.raises(Refused, match="stale_generation"):
        await start(copy)


@pytest.mark.parametrize("until", ["tomorrow", "2030-01-31T18:00", "2020-01-31T18:00Z"])
def test_a_recovery_window_is_an_instant_of_the_next_days(until: str, tmp_path: Path) -> None:
    """A window that never closes would let every older copy in; one without a zone is a guess."""
    far = (at_utc(time.time()) + timedelta(days=8)).isoformat()
    for text in (until, far):
        arguments = ["recover", "--until", text]
        assert CliRunner().invoke(evaluator, arguments, obj=Settings(tmp_path)).exit_code == 2


async def test_after_a_shred_nothing_opens_the_disk(fleet: Fleet, tmp_path: Path) -> None:
    """Neither the server itself nor a thief with its disks and with the evaluator's keys."""
    state = await fleet.enrol(SERVER)
    before = await start(state)
    keep_something(state, key(before))
    disk, keys = copied(state, tmp_path / SERVER), fleet.platform.installation.evaluator
    shutil.copytree(keys, tmp_path / "before")
    assert Thief([disk.root, tmp_path / "before"]).opens().records

    assert (await byok(fleet, "shred", SERVER, "--confirm", "acme-2")).exit_code == 2
    await killed_start(state, "begun")
    await start(state)
    wrong = await byok(fleet, "shred", "acme-9", "--confirm", "acme-9")
    assert isinstance(wrong.exception, Refused)
    done = await byok(fleet, "shred", SERVER, "--confirm", SERVER)
    assert done.exit_code == 0, done.output

    with pytest.raises(Refused, match="unlock_key_shredded"):
        await start(state)
    shutil.copytree(keys, tmp_path / "after")
    assert not Thief(
        [disk.root, copied(state, tmp_path / f"{SERVER}@later").root, tmp_path / "after"]
    ).opens()

    async def told() -> bool:
        messages = await read_batch(fleet.ops, "BYOK_LEDGER", 1, 4096)
        facts = [decode(m.data, m.subject).data for m in messages]
        return UnlockShredded(server_id=SERVER) in facts

    await eventually(told)
