"""The evaluator's process: everything it needs is built here, from its own folder."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable, Coroutine
from typing import Any

import structlog
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey

from bus_schemas.codec import decode
from bus_schemas.errors import Refused
from bus_schemas.events import EpochOpened, ServerProvisioned, ServerReenrolled
from bus_schemas.flows import Role
from bus_schemas.streams import LEDGER
from bus_schemas.transport.connection import Bus
from bus_schemas.transport.fresh import fresh
from bus_schemas.transport.jetstream import Conflict, Expect, read_last, store
from bus_schemas.transport.ledger import Batch, LedgerReader, Position
from bus_schemas.transport.outbox import OutboxPump
from bus_schemas.transport.pulse import watched
from bus_schemas.transport.target import BusTarget, BusUnavailable
from platform_handlers.authority.installation import Installation
from platform_handlers.authority.role_bus import role_bus
from platform_handlers.evaluator.approvals import Approvals
from platform_handlers.evaluator.handler import Evaluator, EvaluatorSecrets
from platform_handlers.evaluator.keys import FIRST_EPOCH, EpochKey, KeyStore
from platform_handlers.evaluator.ratchet import Ratchets
from platform_handlers.evaluator.servers import FILE_NAME, ServerStore

_log = structlog.get_logger(__name__)

_PAUSE_SECONDS = 0.5
_LOOK_SECONDS = 0.5
"""How soon facts of a command, or of an evaluator that was killed, are sent on."""

_STUCK_SECONDS = 120.0
"""A task that took no step for so long is stuck (`pulse`); back-off and disks need less."""


async def run_evaluator(
    installation: Installation, target: BusTarget, ready: Callable[[], None] = lambda: None
) -> None:
    """Serve until cancelled; *ready* is called once requests are answered.

    Raises Refused (`evaluator_keys_damaged`, `foreign_epoch`), ReaderMustStop, StorageFull.
    """
    own = read_secrets(installation)
    keys = await KeyStore.open(installation.evaluator)
    servers = await ServerStore.open(installation.evaluator / FILE_NAME)
    bus = role_bus(installation, target, Role.EVALUATOR).open_in_background()
    try:
        pump = OutboxPump(servers.database, bus)
        evaluator = Evaluator(bus, own, keys, servers, pump)
        told = _Told(servers, keys, evaluator, pump)
        reader = LedgerReader(bus, LEDGER, "evaluator", told)
        async with _looking(servers, pump):  # the bus may be away for long
            await open_first_epoch(bus, await keys.first_epoch())
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(_look(servers, pump), name="evaluator look")
            for name, work in (("outbox", pump.run()), ("reader", reader.run())):
                tasks.create_task(watched(name, work, within=_STUCK_SECONDS, needs=bus))
            await reader.caught_up()  # before that a revoked server might still look active
            await told.destroy_outlived_keys()
            ratchets = Ratchets(bus, own.ratchet_key, servers)
            await Approvals(bus, ratchets, servers, pump).listen()
            await evaluator.listen()
            _log.info("evaluator_ready")
            ready()
    finally:
        await bus.close()
        await servers.close()
        await keys.close()


class _Told:
    """The store, and who is told when it has learnt something (`LedgerStore`)."""

    def __init__(
        self, servers: ServerStore, keys: KeyStore, evaluator: Evaluator, pump: OutboxPump
    ) -> None:
        self._servers = servers
        self._keys = keys
        self._evaluator = evaluator
        self._pump = pump

    async def position(self) -> Position | None:
        return await self._servers.position()

    async def apply(self, batch: Batch) -> None:
        await self._servers.apply(batch)
        told = [fact.envelope.data for fact in batch.facts]
        if any(isinstance(event, ServerReenrolled) for event in told):
            await self.destroy_outlived_keys()
        if any(isinstance(event, ServerProvisioned | ServerReenrolled) for event in told):
            await self._evaluator.roster.heard_news()
        self._pump.wake()

    async def destroy_outlived_keys(self) -> None:
        """Destroy the unlock keys of machines whose place another one took.

        Also at each start and on a retry, when all rows are as they should be: whoever destroyed
        a key may have been killed before it emptied the log.
        """
        for server_id, enrolment in await self._servers.reenrolled():
            await self._keys.renew(server_id, enrolment)
        await self._keys.empty_log()


@contextlib.asynccontextmanager
async def _looking(servers: ServerStore, pump: OutboxPump) -> AsyncIterator[None]:
    """Look for facts meanwhile."""
    task = asyncio.create_task(_look(servers, pump), name="evaluator look")
    try:
        yield
    finally:
        task.cancel()
        await asyncio.wait({task})


def _look(servers: ServerStore, pump: OutboxPump) -> Coroutine[Any, Any, None]:
    """Return the evaluator's beat (`pulse`): it needs no bus, and each look reads the disk."""
    return watched("look", _look_for_facts(servers, pump), within=_STUCK_SECONDS)


async def _look_for_facts(servers: ServerStore, pump: OutboxPump) -> None:
    """Send what another process put into the outbox: a command, or one that was killed."""
    while True:
        if await servers.waiting():
            pump.wake()
        await asyncio.sleep(_LOOK_SECONDS)


def read_secrets(installation: Installation) -> EvaluatorSecrets:
    """Return the evaluator's own keys. Raises Refused(`evaluator_keys_damaged`)."""
    folder = installation.evaluator
    try:
        return EvaluatorSecrets(
            X25519PrivateKey.from_private_bytes((folder / "sealing.key").read_bytes()),
            Ed25519PrivateKey.from_private_bytes((folder / "signing.key").read_bytes()),
        )
    except (OSError, ValueError):
        detail = f"sealing.key or signing.key in {folder} is missing or damaged; restore them"
        raise Refused("evaluator_keys_damaged", detail) from None


async def open_first_epoch(bus: Bus, epoch: EpochKey) -> None:
    """Have the ledger tell of our key, once. Raises Refused(`foreign_epoch`).

    A ledger that knows another key under this name means that the key file was lost: tags would
    silently stop to match.
    """
    opened = EpochOpened(epoch=epoch.epoch, public_key=epoch.key.public_key)
    while True:
        try:
            last = await read_last(bus, LEDGER.name, opened.subject)
            if last is not None:
                _check_ours(decode(last.data, last.subject).data, opened)
                return
            await store(bus, fresh(opened), Expect(0))
        except Conflict:
            continue  # another evaluator, or our own lost acknowledgement: look who it was
        except BusUnavailable as error:
            _log.warning("evaluator_waits", error=str(error))
            await asyncio.sleep(_PAUSE_SECONDS)


def _check_ours(found: object, opened: EpochOpened) -> None:
    if opened.epoch == FIRST_EPOCH and found != opened:
        detail = f"the ledger's epoch key is not ours; restore epoch-keys.db of {opened.epoch}"
        raise Refused("foreign_epoch", detail)
