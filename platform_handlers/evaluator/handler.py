"""Answers servers on `byok.v1.evaluate.{server_id}`: opens, checks, evaluates, remembers.

No answer is given when the evaluator itself is in trouble (the bus, the disk): the server asks
again. A refusal is an answer, and the ones that may mean a stolen disk become facts.

Several evaluators on one folder share the requests. Each may be killed at any line: a state that
was stored without an answer is one that the server's next request fits.
"""

import asyncio
import time
from collections import defaultdict, deque
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cached_property, partial
from typing import Final, TypeVar

import structlog
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey
from nats.aio.msg import Msg

from bus_schemas.approval import copy_code
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
    UnlockReply,
    UnlockRequest,
    check_request_signature,
    open_request,
)
from bus_schemas.evaluation_signatures import (
    Question,
    sign_commit,
    sign_keys,
    sign_refusal,
    sign_unlock,
)
from bus_schemas.event import Event
from bus_schemas.events.custody import (
    RatchetAdvanced,
    UnlockAnswered,
    UnlockRecovered,
    UnlockRefused,
)
from bus_schemas.nonces import check_nonce, nonce, nonce_key
from bus_schemas.oprf import OprfKey
from bus_schemas.ratchet_mac import FORGED, ratchet_key
from bus_schemas.requests import EVALUATE
from bus_schemas.transport.connection import Bus
from bus_schemas.transport.outbox import OutboxPump
from bus_schemas.unlock import unlock_check, unlock_key_info
from platform_handlers.doors.rules import Allowance, Door
from platform_handlers.evaluator import rules
from platform_handlers.evaluator.keys import KeyStore
from platform_handlers.evaluator.ratchet import Found, Ratchets
from platform_handlers.evaluator.roster import Roster
from platform_handlers.evaluator.servers import KnownServer, ServerStore

_log = structlog.get_logger(__name__)

QUEUE: Final = "evaluator"
"""Several evaluators on one folder share the work."""

_TELLING = frozenset({"stale_generation", "generation_ahead", "too_many_unlocks", FORGED})
"""Refusals that become facts."""

_OF_A_COPY = frozenset({"stale_generation", "generation_ahead"})
"""Refusals that the owner can overrule, by the code of the disk that asked."""

_OF_THE_REQUEST = frozenset({"bad_request", "bad_element"})
"""What can be broken about a request; anything else that breaks a contract is stored with us."""

_TOLD_PER_HOUR = 30
_HOUR = 3600
_AT_ONCE = 32
_EACH_SERVER = Allowance(burst=300, per_second=1, at_once=4)
"""Requests. A start takes three to five; the rules count unlocks and evaluations besides."""

_R = TypeVar("_R", UnlockRequest, CommitRequest)


@dataclass(frozen=True)
class EvaluatorSecrets:
    """The evaluator's own two keys; every server has pinned their public halves."""

    sealing: X25519PrivateKey = field(repr=False)
    signing: Ed25519PrivateKey = field(repr=False)

    @cached_property
    def nonce_key(self) -> bytes:
        """The key of the nonces, the same in every process with this sealing key."""
        return nonce_key(self.sealing.private_bytes_raw())

    @cached_property
    def ratchet_key(self) -> bytes:
        """The key by which every process with this sealing key knows its states again."""
        return ratchet_key(self.sealing.private_bytes_raw())


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
        self._ratchets = Ratchets(bus, own.ratchet_key, servers)
        self._keys = keys
        self._servers = servers
        self._pump = pump
        self._told: defaultdict[str, deque[float]] = defaultdict(deque)
        self._room = asyncio.Semaphore(_AT_ONCE)
        self.roster = Roster(servers, self._room)
        self._door = Door(_EACH_SERVER)
        self._working: set[asyncio.Task[None]] = set()

    async def listen(self) -> None:
        """Answer from now on."""
        await self._bus.listen(EVALUATE.wildcard, self._on_request, queue=QUEUE)

    async def answer(self, subject: str, raw: bytes) -> EvaluatorReply:
        """Return the reply to one request. Raises ByokError when there can be none now."""
        server_id = EVALUATE.parse(subject)["server_id"]
        question = Question.asked(server_id, raw)
        try:
            server, request = await self._checked(server_id, raw)
            return await self._serve(server, question, request)
        except (Refused, ContractError) as error:
            if isinstance(error, ContractError) and error.reason not in _OF_THE_REQUEST:
                raise
            _log.warning("evaluation_refused", server=server_id, error=str(error))
            if error.reason in _TELLING:
                await self._tell_refusal(server_id, error.reason)
            return sign_refusal(self._own.signing, question, error.reason)

    async def _checked(self, server_id: str, raw: bytes) -> tuple[KnownServer, EvaluatorRequest]:
        """Return the server, which is active, and the request that it signed and sealed to us."""
        opened = open_request(raw, self._own.sealing)
        if opened.server_id != server_id:  # NATS vouches for the subject, not for the body
            raise Refused("wrong_server", f"{server_id} sent a request of {opened.server_id}")
        server = await self.roster.active(server_id)
        try:
            check_request_signature(opened, server.identity_key)
        except Refused:  # another machine may have become this server just now
            server = await self.roster.newer(server)
            check_request_signature(opened, server.identity_key)
        return server, opened.request

    async def _serve(
        self, server: KnownServer, question: Question, request: EvaluatorRequest
    ) -> EvaluatorReply:
        """Serve a request whose signature was checked."""
        if isinstance(request, ChallengeRequest):
            return ChallengeReply(nonce=await self._fresh_nonce(server))
        if isinstance(request, KeysRequest):
            return await self._public_keys(server)
        if isinstance(request, UnlockRequest):
            return await self._unlock(server, question, request)
        if isinstance(request, CommitRequest):
            return await self._commit(server, question, request)
        return await self._fingerprint(server, request)

    async def _public_keys(self, server: KnownServer) -> KeysReply:
        epochs = await self._keys.epochs()
        return sign_keys(
            self._own.signing,
            server_id=server.server_id,
            fingerprint_public_keys={e.epoch: e.key.public_key for e in epochs},
            current_epoch=epochs[-1].epoch,
            nonce=await self._fresh_nonce(server),
        )

    async def _unlock_key(self, server: KnownServer) -> OprfKey:
        """Return k_server. Raises Refused: `unlock_key_shredded`, `unlock_key_missing`."""
        server_id, enrolment = server.server_id, server.enrolment
        key = await self._keys.find(server_id, enrolment)
        if key is not None:
            return key
        about = await self._about(server)
        found = await self._ratchets.read(server_id, about)
        rules.check_new_key(rules.current(found.state, about), about)
        return await self._keys.unlock_key(server_id, enrolment)

    async def _unlock(
        self, server: KnownServer, question: Question, request: UnlockRequest
    ) -> UnlockReply:
        server_id = server.server_id
        key, following = _keys_for(await self._unlock_key(server), server_id, request)
        x, following_x = request.blinded
        # First: a bad element must not advance it.
        evaluation = key.evaluate([x]) + following.evaluate([following_x])
        found = await self._let_in(server, request)
        # Before the answer leaves: whoever gets it can open the disk, commit or no commit.
        if rules.came_by_window(found.state, now=int(time.time())):
            _log.warning("let_in_by_window", server=server_id, generation=request.g)
            await self._tell(UnlockRecovered(server_id=server_id, generation=request.g))
        coming = rules.next_incarnation(found.state, server.incarnation)
        await self._tell(UnlockAnswered(server_id=server_id, incarnation=coming))
        public_keys = (key.public_key, following.public_key)
        return UnlockReply(
            evaluation=evaluation,
            public_keys=public_keys,
            signature=sign_unlock(self._own.signing, question, request, public_keys),
            nonce=self._nonce(server, found),
        )

    async def _let_in(self, server: KnownServer, request: UnlockRequest) -> Found:
        """Store the unlock; note which disk was refused, so that a mistyped code is noticed."""
        server_id, now = server.server_id, int(time.time())
        code = copy_code(server_id, request.g, unlock_check(request.preimage))
        try:
            found = await self._advance(server, request, rules.unlock)
        except Refused as refusal:
            if refusal.reason in _OF_A_COPY:
                await self._servers.note_copy(server_id, code, now=now)
            raise
        await self._servers.forget_copy(server_id, code)
        return found

    async def _commit(
        self, server: KnownServer, question: Question, request: CommitRequest
    ) -> CommitReply:
        found = await self._advance(server, request, rules.commit)
        incarnation = rules.incarnation_of(found.state)
        # Also on a repeat: the first time it may not have come so far.
        await self._servers.tell_unlocked(server.server_id, incarnation)
        self._pump.wake()
        fresh = self._nonce(server, found)
        return sign_commit(self._own.signing, question, incarnation, fresh)

    async def _fingerprint(
        self, server: KnownServer, request: FingerprintRequest
    ) -> EvaluationReply:
        epochs = {e.epoch: e.key for e in await self._keys.epochs()}
        if request.epoch not in epochs:
            raise Refused("unknown_epoch", f"no key of epoch {request.epoch} is in use")
        found = await self._ratchets.read(server.server_id, await self._about(server))
        check_nonce(self._own.nonce_key, server.server_id, found.sequence, request.nonce)
        await self._servers.spend(server.server_id, len(request.blinded), now=int(time.time()))
        evaluation = epochs[request.epoch].evaluate(request.blinded)
        return EvaluationReply(evaluation=evaluation, nonce=request.nonce)

    async def _advance(
        self,
        server: KnownServer,
        request: _R,
        rule: Callable[[RatchetAdvanced, _R, rules.Circumstances], RatchetAdvanced],
    ) -> Found:
        """Store what *rule* makes of the state and *request*, if its nonce is that state's."""
        about = await self._about(server)

        def decide(found: Found) -> RatchetAdvanced:
            # Here and not before: whatever was stored in between has made the nonce stale.
            check_nonce(self._own.nonce_key, server.server_id, found.sequence, request.nonce)
            return rule(rules.current(found.state, about), request, about)

        return await self._ratchets.advance(server.server_id, about, decide)

    async def _about(self, server: KnownServer) -> rules.Circumstances:
        return await self._servers.circumstances(server, now=int(time.time()))

    def _nonce(self, server: KnownServer, found: Found) -> bytes:
        return nonce(self._own.nonce_key, server.server_id, found.sequence)

    async def _fresh_nonce(self, server: KnownServer) -> bytes:
        found = await self._ratchets.read(server.server_id, await self._about(server))
        return self._nonce(server, found)

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
        """Work on several at once; nats-py waits while there is no room.

        One server's flood ends here, unanswered, before it costs any cryptography.
        """
        away = self._door.enter(message.subject, now=time.monotonic())
        if away is not None:
            if away.worth_telling:
                _log.warning("turned_away", subject=message.subject, count=away.count)
            return
        await self._room.acquire()
        task = asyncio.create_task(self._respond(message))
        self._working.add(task)
        task.add_done_callback(partial(self._done, message.subject))

    def _done(self, subject: str, task: asyncio.Task[None]) -> None:
        self._working.discard(task)
        self._room.release()
        self._door.leave(subject)

    async def _respond(self, message: Msg) -> None:
        try:
            reply = await self.answer(message.subject, message.data)
            await message.respond(reply.model_dump_json().encode())
        except ByokError as error:
            _log.warning("evaluation_unanswered", subject=message.subject, error=str(error))


def _keys_for(seed: OprfKey, server_id: str, request: UnlockRequest) -> tuple[OprfKey, OprfKey]:
    """Return the keys for the two disks that *request* claims to have, and for no others.

    What it blinded nobody sees. Under these keys another disk's input is worth nothing.
    """
    g = request.g
    return (
        seed.under(unlock_key_info(server_id, g, unlock_check(request.preimage))),
        seed.under(unlock_key_info(server_id, g + 1, unlock_check(request.next_preimage))),
    )
