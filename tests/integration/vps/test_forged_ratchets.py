"""Whoever is inside the core puts states of their own in the evaluator's place (ADR-23).

The attacker also has an older disk, which alone is refused, and writes whatever lets it in.
"""

import json
import time
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest

from bus_schemas.approval import copy_code
from bus_schemas.codec import encode
from bus_schemas.errors import Refused
from bus_schemas.events import RatchetAdvanced, UnlockRefused
from bus_schemas.flows import Role
from bus_schemas.ratchet_mac import with_mac
from bus_schemas.streams import LEDGER, RATCHET
from bus_schemas.transport.fresh import fresh
from bus_schemas.transport.jetstream import StoredMessage, read_last
from bus_schemas.unlock import unlock_check, unlock_input, unlock_preimage
from platform_handlers.evaluator.app import read_secrets
from tests.integration.vps.conftest import Fleet, of
from tests.integration.vps.starts import copied, eventually, key, send_approval, start
from tests.integration.vps.test_evaluator_commands import byok, soon
from tests.integration.vps.test_vps_copies import code_of, unlock_facts, word
from tests.system.conftest import omnipotent
from vps_runtime.state import StateFolder
from vps_runtime.vault.root_file import read_root_file

SERVER, NEIGHBOUR = "acme-1", "acme-2"
PLACE = f"byok.v1.ratchet.{SERVER}"

PutThere = Callable[[Fleet, bytes], Awaitable[None]]


async def laundered(fleet: Fleet, raw: bytes) -> None:
    """Store *raw* where health may, and have it read back to where health may not."""
    health = await fleet.platform.bus(Role.HEALTH)
    acknowledged = await health.request(f"byok.v1.status.{SERVER}", raw, wait=5)
    where = json.dumps({"seq": json.loads(acknowledged.data)["seq"]}).encode()
    client = await health.client()
    await client.publish(f"$JS.API.DIRECT.GET.{LEDGER.name}", where, reply=PLACE)
    await arrived(fleet, raw)


async def published(fleet: Fleet, raw: bytes, headers: dict[str, str] | None = None) -> None:
    """Publish *raw* as somebody whom nothing in the core holds back."""
    installation, target = fleet.platform.installation, fleet.platform.server.target
    eve = await omnipotent(installation, target, "CORE")
    try:
        await eve.request(PLACE, raw, headers=headers, wait=5)
    finally:
        await eve.close()
    await arrived(fleet, raw)


async def stored(fleet: Fleet, subject: str = PLACE) -> StoredMessage:
    """Return what lies in the ratchet's stream."""
    message = await read_last(await fleet.platform.bus(Role.EVALUATOR), RATCHET.name, subject)
    assert message is not None
    return message


async def arrived(fleet: Fleet, raw: bytes) -> None:
    """Wait until *raw* is what the evaluator finds."""

    async def there() -> bool:
        return (await stored(fleet)).data == raw

    await eventually(there)


def welcome(disk: StateFolder, fleet: Fleet) -> RatchetAdvanced:
    """Return the state that lets *disk* in thrice: as the newest, as approved, by its owner."""
    file = read_root_file(disk.root_file)
    check = unlock_check(unlock_preimage(unlock_input(SERVER, file.g, file.share)))
    return RatchetAdvanced(
        server_id=SERVER,
        committed=file.g,
        committed_check=check,
        incarnation=99,
        owner_pins=(fleet.fingerprint,),
        approved_code=copy_code(SERVER, file.g, check),
        approved_at=int(time.time()),
    )


@pytest.fixture
async def live(fleet: Fleet) -> StateFolder:
    """A server that was started once."""
    state: StateFolder = await fleet.enrol(SERVER)
    await start(state)
    return state


@pytest.fixture
async def older(live: StateFolder, tmp_path: Path) -> StateFolder:
    """Its disk as it was two starts ago, which is refused."""
    disk = copied(live, tmp_path / "older")
    for _ in range(2):
        await start(live)
    await code_of(disk)
    return disk


@pytest.mark.parametrize("put", [laundered, published])
async def test_a_forged_state_opens_no_older_disk(
    fleet: Fleet, live: StateFolder, older: StateFolder, put: PutThere
) -> None:
    """Nobody is served, it is told, nothing is written over it; then a window forgets it."""
    forged = welcome(older, fleet).model_copy(update={"mac": bytes(32)})
    raw = encode(fresh(forged))
    await put(fleet, raw)
    for disk in (older, live):
        with pytest.raises(Refused, match="ratchet_forged"):
            await start(disk)
    approval = word(fleet, forged.approved_code or "")
    assert await send_approval(fleet, approval) == "ratchet_forged"
    assert (await stored(fleet)).data == raw

    async def told() -> bool:
        reasons = [fact.reason for fact in of(await unlock_facts(fleet), UnlockRefused)]
        return "ratchet_forged" in reasons

    await eventually(told)
    assert (await byok(fleet, "recover", "--until", soon())).exit_code == 0
    with pytest.raises(Refused, match="stale_generation"):
        await start(older)
    assert (await start(live)).incarnation == 4


async def test_bytes_that_are_no_state_are_a_forged_state(fleet: Fleet, live: StateFolder) -> None:
    """So is one without a MAC, whatever it says."""
    await published(fleet, b"of my choosing")
    with pytest.raises(Refused, match="ratchet_forged"):
        await start(live)
    await published(fleet, encode(fresh(welcome(live, fleet))))
    with pytest.raises(Refused, match="ratchet_forged"):
        await start(live)


async def test_a_neighbours_state_is_a_forged_state(fleet: Fleet, live: StateFolder) -> None:
    """Also with a header that claims the neighbour's place for it."""
    await start(await fleet.enrol(NEIGHBOUR))
    theirs = f"byok.v1.ratchet.{NEIGHBOUR}"
    await published(fleet, (await stored(fleet, theirs)).data, {"Nats-Subject": theirs})
    with pytest.raises(Refused, match="ratchet_forged"):
        await start(live)


async def test_an_own_state_that_is_put_back_opens_no_older_disk(
    fleet: Fleet, live: StateFolder, tmp_path: Path
) -> None:
    """The ledger tells of commits that it lacks, so the disk that fits it is not the newest."""
    before, disk = (await stored(fleet)).data, copied(live, tmp_path / "older")
    for _ in range(2):
        await start(live)
    await published(fleet, before)
    with pytest.raises(Refused, match="stale_generation"):
        await start(disk)


async def test_only_the_mac_stands_in_the_way(
    fleet: Fleet, live: StateFolder, older: StateFolder
) -> None:
    """The same forgery with the evaluator's own key opens: these tests try the right thing."""
    own = read_secrets(fleet.platform.installation).ratchet_key
    await published(fleet, encode(fresh(with_mac(own, welcome(older, fleet)))))
    assert len(key(await start(older))) == 32
