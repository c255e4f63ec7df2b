"""The server's side of the talk with the blind evaluator, over the bus.

Every request is signed and sealed to the pinned evaluator; what its replies say is held against
its pinned signing key, evaluations against the keys in them. A forged reply can only cost time.

Almost every reply brings the nonce of the next request, so that a start takes three questions:
`challenge`, `unlock`, `commit`.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Generic, TypeVar

from bus_schemas.errors import ContractError, Refused
from bus_schemas.evaluation import (
    ChallengeReply,
    ChallengeRequest,
    CommitReply,
    CommitRequest,
    EvaluationReply,
    EvaluatorRequest,
    FingerprintRequest,
    KeysReply,
    KeysRequest,
    RefusalReply,
    UnlockReply,
    UnlockRequest,
    read_reply,
    seal_request,
)
from bus_schemas.evaluation_signatures import (
    Question,
    check_commit,
    check_keys,
    check_refusal,
    check_unlock,
)
from bus_schemas.oprf import blind
from bus_schemas.requests import EVALUATE, EvaluatorKeys
from bus_schemas.transport.connection import Bus
from vps_runtime.state import Identity
from vps_runtime.unlock.rules import Start

_WAIT_SECONDS = 5.0
_Reply = TypeVar("_Reply", ChallengeReply, KeysReply, UnlockReply, EvaluationReply, CommitReply)


class TurnedDown(Refused):
    """The pinned evaluator itself said no to this very request, and signed it."""


@dataclass(frozen=True, slots=True)
class _Answered(Generic[_Reply]):
    """A reply, and the question that it must be signed for."""

    reply: _Reply
    question: Question


class Evaluator:
    """The evaluator as one server reaches it.

    All methods raise BusUnavailable (try again), TurnedDown (its reason), Refused (a proof or a
    signature does not hold: somebody else answered) and ContractError(`bad_reply`).
    """

    def __init__(self, bus: Bus, identity: Identity, pinned: EvaluatorKeys) -> None:
        self._bus = bus
        self._identity = identity
        self._pinned = pinned
        self._subject = EVALUATE.fill({"server_id": identity.server_id})
        self._nonce: bytes | None = None

    async def challenge(self) -> None:
        """Get the nonce of the next request, which then costs no question of its own."""
        await self._ask(ChallengeRequest(), ChallengeReply)

    async def keys(self) -> KeysReply:
        """Return its public keys for fingerprints, once the pinned key vouches for them."""
        reply = (await self._ask(KeysRequest(), KeysReply)).reply
        check_keys(
            reply,
            server_id=self._identity.server_id,
            evaluator_public_key=self._pinned.signing_key,
        )
        return reply

    async def unlock(self, start: Start) -> tuple[bytes, bytes]:
        """Return y_g and y_{g+1} of *start*, keys and proofs verified. Safe to repeat."""
        blinding, blinded = blind(start.inputs)

        def request(nonce: bytes) -> UnlockRequest:
            return UnlockRequest(
                g=start.g,
                blinded=(blinded[0], blinded[1]),
                preimage=start.preimage,
                next_preimage=start.next_preimage,
                nonce=nonce,
            )

        answered = await self._ask_once(request, UnlockReply)
        reply, pinned = answered.reply, self._pinned.signing_key
        check_unlock(reply, answered.question, start, evaluator_public_key=pinned)
        y, next_y = blinding.finalize_each(reply.evaluation, reply.public_keys)
        return y, next_y

    async def commit(self, g: int, preimage: bytes, owner_pins: Sequence[str] | None) -> int:
        """Say that generation *g* is on the disk, and whom this server obeys (None: as before).

        Returns the incarnation. Safe to repeat, also with other pins.
        """

        def request(nonce: bytes) -> CommitRequest:
            pins = None if owner_pins is None else tuple(owner_pins)
            return CommitRequest(g=g, preimage=preimage, owner_pins=pins, nonce=nonce)

        answered = await self._ask_once(request, CommitReply)
        pinned = self._pinned.signing_key
        check_commit(answered.reply, answered.question, evaluator_public_key=pinned)
        return answered.reply.incarnation

    async def fingerprint(
        self, epoch: str, public_key: bytes, inputs: Sequence[bytes]
    ) -> list[bytes]:
        """Return the 64-byte evaluations of 1 to 64 *inputs* under *epoch*, proofs verified."""
        blinding, blinded = blind(inputs)

        def request(nonce: bytes) -> FingerprintRequest:
            return FingerprintRequest(epoch=epoch, blinded=tuple(blinded), nonce=nonce)

        reply = (await self._ask_once(request, EvaluationReply)).reply
        return blinding.finalize(reply.evaluation, public_key)

    async def _ask_once(
        self, request: Callable[[bytes], EvaluatorRequest], wanted: type[_Reply]
    ) -> _Answered[_Reply]:
        """Ask with the nonce that the last reply brought, or with a new one if it is stale."""
        kept, self._nonce = self._nonce, None
        if kept is not None:
            try:
                return await self._ask(request(kept), wanted)
            except TurnedDown as error:
                if error.reason != "stale_nonce":
                    raise
        challenge = (await self._ask(ChallengeRequest(), ChallengeReply)).reply
        self._nonce = None
        return await self._ask(request(challenge.nonce), wanted)

    async def _ask(self, request: EvaluatorRequest, wanted: type[_Reply]) -> _Answered[_Reply]:
        sealed = seal_request(
            request,
            server_id=self._identity.server_id,
            identity_key=self._identity.key,
            evaluator_public_key=self._pinned.sealing_key,
        )
        question = Question.asked(self._identity.server_id, sealed)
        answer = await self._bus.request(self._subject, sealed, wait=_WAIT_SECONDS)
        reply = read_reply(answer.data)
        if isinstance(reply, RefusalReply):
            check_refusal(reply, question, evaluator_public_key=self._pinned.signing_key)
            raise TurnedDown(reply.reason, f"the evaluator turned down `{request.op}`")
        if not isinstance(reply, wanted):
            raise ContractError("bad_reply", f"`{reply.reply}` in answer to `{request.op}`")
        self._nonce = reply.nonce
        return _Answered(reply, question)
