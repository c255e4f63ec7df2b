"""Answers servers on `byok.v1.evaluate.{server_id}`: opens, checks, evaluates, remembers.

No answer is given when the evaluator itself is in trouble (the bus, the disk): the server asks
again. A refusal is an answer, and the ones that may mean a stolen disk become facts.
"""

import asyncio
import secrets
import time
from collections import defaultdict, deque
from dataclasses import dataclass, field
from functools import partial
from typing import Final

import structlog
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey
from nats.aio.msg import Msg

from bus_schemas.errors import ByokError, ContractError, Refused
from bus_schemas.evaluation import (
    ChallengeReply,
    ChallengeRequest,
    CommitReply,
    CommitRequest,
    EvaluationReply,
    EvaluatorReply,
    EvaluatorRequest,
    FingerprintRequest,
    KeysReply,
    KeysRequest,
    RefusalReply,
    UnlockRequest,
    check_request_signature,
    open_request,
    sign_keys,
)
from bus_schemas.event import Event
from bus_schemas.events import ServerUnlocked, UnlockRefused
from bus_schemas.requests import EVALUATE
from bus_schemas.transport.connection import Bus
from bus_schemas.transport.outbox import OutboxPump
from platform_handlers.evaluator import rules
from platform_handlers.evaluator.keys import KeyStore
from platform_handlers.evaluator.ratchet import advance
from platform_handlers.evaluator.servers import KnownServer, ServerStore, require_active

_log = structlog.get_logger(__name__)

NONCE_LENGTH: Final = 32
_TELLING = frozenset({"stale_generation", "generation_ahead", "too_many_unlocks"})
"""Refusals that become facts."""

_TOLD_PER_HOUR = 30
_HOUR = 3600
_AT_ONCE = 32
_NEWS_SECONDS = 2.0
"""A server may be faster than the news of its enrolment."""


@dataclass(frozen=True)
class EvaluatorSecrets:
    """The evaluator's own two keys; every server has pinned their public halves."""

    sealing: X25519PrivateKey = field(repr=False)
    signing: Ed25519PrivateKey = field(repr=False)


class Evaluator:
    """One evaluator process's requests. *bus* has role EVALUATOR."""

    def __init__(
        self,
        bus: Bus,
        own: EvaluatorSecrets,
        keys: KeyStore,
        servers: ServerStore,
        pump: OutboxPump,
    ) -> None:
        self._bus = bus
        self._own = own
        self._keys = keys
        self._servers = servers
        self._pump = pump
        self._nonces = rules.Nonces()
        self._told: defaultdict[str, deque[float]] = defaultdict(deque)
        self._news = asyncio.Condition()
        self._room = asyncio.Semaphore(_AT_ONCE)
        self._working: set[asyncio.Task[None]] = set()

    async def listen(self) -> None:
        """Answer from now on."""
        await self._bus.listen(EVALUATE.wildcard, self._on_request)

    async def heard_news(self) -> None:
        """Say that the ledger told something: a server that just enrolled may be waiting."""
        async with self._news:
            self._news.notify_all()

    async def answer(self, subject: str, raw: bytes) -> EvaluatorReply:
        """Return the reply to one request. Raises ByokError when there can be none now."""
        server_id = ""
        try:
            server_id = EVALUATE.parse(subject)["server_id"]
            return await self._serve(server_id, await self._checked(server_id, raw))
        except (Refused, ContractError) as error:
            _log.warning("evaluation_refused", server=server_id, reason=error.reason)
            if error.reason in _TELLING:
                await self._tell_refusal(server_id, error.reason)
            return RefusalReply(reason=error.reason)

    async def _checked(self, server_id: str, raw: bytes) -> EvaluatorRequest:
        """Return the request that *server_id*, active, signed and sealed to us."""
        opened = open_request(raw, self._own.sealing)
        if opened.server_id != server_id:  # NATS vouches for the subject, not for the body
            raise Refused("wrong_server", f"{server_id} sent a request of {opened.server_id}")
        server = await self._active(server_id)
        check_request_signature(opened, server.identity_key)
        return opened.request

    async def _serve(self, server_id: str, request: EvaluatorRequest) -> EvaluatorReply:
        """Serve a request whose signature was checked."""
        if isinstance(request, ChallengeRequest):
            nonce = secrets.token_bytes(NONCE_LENGTH)
            self._nonces.issue(server_id, nonce, now=time.monotonic())
            return ChallengeReply(nonce=nonce)
        if isinstance(request, KeysRequest):
            return await self._public_keys(server_id)
        self._nonces.use(server_id, request.nonce, now=time.monotonic())
        if isinstance(request, UnlockRequest):
            return await self._unlock(server_id, request)
        if isinstance(request, CommitRequest):
            return await self._commit(server_id, request)
        return await self._fingerprint(server_id, request)

    async def _public_keys(self, server_id: str) -> KeysReply:
        epochs = await self._keys.epochs()
        return sign_keys(
            self._own.signing,
            server_id=server_id,
            unlock_public_key=(await self._keys.unlock_key(server_id)).public_key,
            fingerprint_public_keys={e.epoch: e.key.public_key for e in epochs},
            current_epoch=epochs[-1].epoch,
        )

    async def _unlock(self, server_id: str, request: UnlockRequest) -> EvaluationReply:
        key = await self._keys.unlock_key(server_id)
        evaluation = key.evaluate(request.blinded)  # first: a bad element must not advance it
        decide = partial(rules.unlock, request=request, now=int(time.time()))
        await advance(self._bus, server_id, decide)
        return EvaluationReply(evaluation=evaluation)

    async def _commit(self, server_id: str, request: CommitRequest) -> CommitReply:
        state = await advance(self._bus, server_id, partial(rules.commit, request=request))
        # Told again on a repeat: the first time it may not have come so far.
        await self._tell(ServerUnlocked(server_id=server_id, incarnation=state.committed))
        return CommitReply(incarnation=state.committed)

    async def _fingerprint(self, server_id: str, request: FingerprintRequest) -> EvaluationReply:
        epochs = {e.epoch: e.key for e in await self._keys.epochs()}
        if request.epoch not in epochs:
            raise Refused("unknown_epoch", f"no key of epoch {request.epoch} is in use")
        await self._servers.spend(server_id, len(request.blinded), now=int(time.time()))
        return EvaluationReply(evaluation=epochs[request.epoch].evaluate(request.blinded))

    async def _active(self, server_id: str) -> KnownServer:
        """Return an active server, waiting a moment for the news of its enrolment."""
        known = await self._servers.server(server_id)
        if known is None:
            async with self._news:
                try:
                    async with asyncio.timeout(_NEWS_SECONDS):
                        while (known := await self._servers.server(server_id)) is None:
                            await self._news.wait()
                except TimeoutError:
                    pass
        return require_active(server_id, known)

    async def _tell_refusal(self, server_id: str, reason: str) -> None:
        """Tell of a refusal, up to a number an hour: a stolen key must not flood the ledger."""
        told, now = self._told[server_id], time.monotonic()
        while told and told[0] <= now - _HOUR:
            told.popleft()
        if len(told) < _TOLD_PER_HOUR:
            told.append(now)
            await self._tell(UnlockRefused(server_id=server_id, reason=reason))

    async def _tell(self, fact: Event) -> None:
        await self._servers.tell(fact)
        self._pump.wake()

    async def _on_request(self, message: Msg) -> None:
        """Work on several at once; nats-py waits while there is no room."""
        await self._room.acquire()
        task = asyncio.create_task(self._respond(message))
        self._working.add(task)
        task.add_done_callback(self._done)

    def _done(self, task: asyncio.Task[None]) -> None:
        self._working.discard(task)
        self._room.release()

    async def _respond(self, message: Msg) -> None:
        try:
            reply = await self.answer(message.subject, message.data)
            await message.respond(reply.model_dump_json().encode())
        except ByokError as error:
            _log.warning("evaluation_unanswered", subject=message.subject, error=str(error))
