"""A thief who passes the gate and lies about what he blinds: the input of a disk of his own.

He has the server's way in to the bus and its identity key, as they lie on every copy of its disk,
and none of our client's honest code: he chooses the generation, the preimages and the points.
"""

import secrets
from dataclasses import dataclass
from pathlib import Path

import pytest

from bus_schemas.errors import Refused
from bus_schemas.evaluation import (
    ChallengeReply,
    ChallengeRequest,
    EvaluatorReply,
    EvaluatorRequest,
    RefusalReply,
    UnlockReply,
    UnlockRequest,
    read_reply,
    seal_request,
)
from bus_schemas.events import UnlockRecovered, UnlockRefused
from bus_schemas.oprf import blind
from bus_schemas.requests import EVALUATE
from bus_schemas.transport.connection import Bus
from bus_schemas.unlock import key_encryption_key, unlock_input, unlock_preimage
from tests.integration.vps.conftest import Fleet, of
from tests.integration.vps.starts import copied, eventually, key, killed_start, start
from tests.integration.vps.test_evaluator_commands import byok, ratchet, restore_ratchet, soon
from tests.integration.vps.test_vps_copies import unlock_facts
from tests.system.conftest import omnipotent
from vps_runtime.connection.tokens import TokenStore
from vps_runtime.state import StateFolder
from vps_runtime.vault.record import unwrap_root_key
from vps_runtime.vault.root_file import RootFile, read_root_file

SERVER = "acme-1"


@dataclass(frozen=True)
class Lie:
    """What he claims to have. Preimages that he does not know are random."""

    g: int
    preimage: bytes | None = None
    following: bytes | None = None


@dataclass
class Liar:
    """Whoever holds *disk*; `ask` speaks for it, `tries` has its input evaluated under a lie."""

    disk: StateFolder

    @property
    def root(self) -> RootFile:
        """The root file that he wants to open."""
        return read_root_file(self.disk.root_file)

    @property
    def x(self) -> bytes:
        """The input that opens it."""
        return unlock_input(SERVER, self.root.g, self.root.share)

    async def tries(self, lie: Lie) -> bytes | str | None:
        """Return the root key, the reason of a refusal, or None if what came opens nothing."""
        bus = await Bus(self.disk.target(), SERVER, TokenStore(self.disk).working).open()
        try:
            challenge = await self._ask(bus, ChallengeRequest())
            if isinstance(challenge, RefusalReply):
                return challenge.reason
            assert isinstance(challenge, ChallengeReply)
            blinding, (first, second) = blind([self.x, self.x])
            request = UnlockRequest(
                g=lie.g,
                blinded=(first, second),
                preimage=lie.preimage or secrets.token_bytes(32),
                next_preimage=lie.following or secrets.token_bytes(32),
                nonce=challenge.nonce,
            )
            reply = await self._ask(bus, request)
        finally:
            await bus.close()
        if isinstance(reply, RefusalReply):
            return reply.reason
        assert isinstance(reply, UnlockReply)
        outputs = blinding.finalize_each(reply.evaluation, reply.public_keys)
        return next(filter(None, map(self._opened, outputs)), None)

    async def _ask(self, bus: Bus, request: EvaluatorRequest) -> EvaluatorReply:
        identity = self.disk.read_identity()
        sealed = seal_request(
            request,
            server_id=SERVER,
            identity_key=identity.key,
            evaluator_public_key=self.disk.read_evaluator().sealing_key,
        )
        subject = EVALUATE.fill({"server_id": SERVER})
        return read_reply((await bus.request(subject, sealed, wait=5)).data)

    def _opened(self, y: bytes) -> bytes | None:
        root, into = self.root, bytearray(32)
        kek = key_encryption_key(y, root.share, SERVER, root.g)
        try:
            unwrap_root_key(kek, SERVER, root.g, root.wrapped_root, into)
        except Refused:
            return None
        return bytes(into)


@pytest.fixture
async def state(fleet: Fleet) -> StateFolder:
    """A server that was started once."""
    folder: StateFolder = await fleet.enrol(SERVER)
    await start(folder)
    return folder


async def restored(fleet: Fleet) -> None:
    """Let the ratchet's stream be gone and made anew, as after a purge or a bad restore."""
    installation, target = fleet.platform.installation, fleet.platform.server.target
    bus = await omnipotent(installation, target, "CORE")
    try:
        streams = (await bus.client()).jetstream()
        config = (await streams.stream_info("BYOK_RATCHET")).config
        await streams.delete_stream("BYOK_RATCHET")
        await streams.add_stream(config)
    finally:
        await bus.close()


async def test_this_thief_opens_the_newest_disk(state: StateFolder, tmp_path: Path) -> None:
    """So the experiments below try the right thing: with a complete current disk he is served."""
    live = await start(state)
    thief = Liar(copied(state, tmp_path / "thief"))
    preimage = unlock_preimage(thief.x)
    assert await thief.tries(Lie(thief.root.g, preimage)) == key(live)


async def test_a_copy_from_within_a_start_opens_nothing_once_it_is_committed(
    state: StateFolder, tmp_path: Path
) -> None:
    """Its next share passes the gate, but what it gets for that is not its own disk's key."""
    await killed_start(state, "begun")
    thief = Liar(copied(state, tmp_path / "thief"))
    await start(state)
    root = thief.root
    assert root.next_share is not None
    preimage = unlock_preimage(unlock_input(SERVER, root.g + 1, root.next_share))
    own = unlock_preimage(thief.x)
    assert await thief.tries(Lie(root.g, own, preimage)) == "stale_generation"
    assert await thief.tries(Lie(root.g + 1, preimage)) is None


async def test_a_recovery_window_opens_no_disk_of_before_the_backup(
    fleet: Fleet, state: StateFolder, tmp_path: Path
) -> None:
    """Neither with a claim of a generation that nobody has; and it is told who came by it."""
    thief = Liar(copied(state, tmp_path / "thief"))
    await start(state)
    backup = await ratchet(fleet)
    for _ in range(2):
        live = await start(state)
    await restore_ratchet(fleet, backup)
    assert (await byok(fleet, "recover", "--until", soon())).exit_code == 0
    preimage = unlock_preimage(thief.x)
    for lie in (Lie(thief.root.g, preimage), Lie(backup.committed, None, preimage)):
        assert await thief.tries(lie) == "stale_generation"
    assert await thief.tries(Lie(backup.committed + 1)) is None

    async def told() -> bool:
        return UnlockRecovered(server_id=SERVER, generation=backup.committed + 1) in (
            await unlock_facts(fleet)
        )

    await eventually(told)
    assert live.incarnation == 4


async def test_a_recovery_window_is_not_for_a_server_that_lost_nothing(
    fleet: Fleet, state: StateFolder, tmp_path: Path
) -> None:
    """A thief who claims to be ahead cannot even shut it out; nobody came by the window."""
    thief = Liar(copied(state, tmp_path / "thief"))
    live = await start(state)
    assert (await byok(fleet, "recover", "--until", soon())).exit_code == 0
    assert await thief.tries(Lie(live.incarnation + 1)) == "stale_generation"
    assert await thief.tries(Lie(live.incarnation + 2)) == "generation_ahead"
    assert key(await start(state)) == key(live)
    assert not of(await unlock_facts(fleet), UnlockRecovered)


async def test_a_ratchet_that_is_gone_lets_nobody_begin_anew(
    fleet: Fleet, state: StateFolder, tmp_path: Path
) -> None:
    """The ledger knows of starts, so it is a forged state; a window goes on from what it knew."""
    thief = Liar(copied(state, tmp_path / "thief"))
    live = await start(state)
    await restored(fleet)
    preimage = unlock_preimage(thief.x)
    for lie in (Lie(0), Lie(0, None, preimage), Lie(thief.root.g, preimage)):
        assert await thief.tries(lie) == "ratchet_forged"
    with pytest.raises(Refused, match="ratchet_forged"):
        await start(state)

    async def told() -> bool:
        reasons = [fact.reason for fact in of(await unlock_facts(fleet), UnlockRefused)]
        return "ratchet_forged" in reasons

    await eventually(told)
    assert (await byok(fleet, "recover", "--until", soon())).exit_code == 0
    for lie in (Lie(0), Lie(0, None, preimage), Lie(thief.root.g, preimage)):
        assert await thief.tries(lie) == "stale_generation"
    assert key(await start(state)) == key(live)
