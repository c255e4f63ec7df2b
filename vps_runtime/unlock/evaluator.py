"""The server's side of the talk with the blind evaluator, over the bus.

Every request is signed and sealed to the pinned evaluator; key replies are held against its
pinned signing key, evaluations against those keys. A forged reply can only cost time.

Almost every reply brings the nonce of the next request, so that a start takes three questions:
`keys`, `unlock`, `commit`.
"""

from collections.abc import Callable, Sequence
from typing import TypeVar

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
    UnlockRequest,
    check_keys,
    read_reply,
    seal_request,
)
from bus_schemas.oprf import blind
from bus_schemas.requests import EVALUATE, EvaluatorKeys
from bus_schemas.transport.connection import Bus
from vps_runtime.state import Identity
from vps_runtime.unlock.rules import Start

_WAIT_SECONDS = 5.0
_Reply = TypeVar("_Reply", ChallengeReply, KeysReply, EvaluationReply, CommitReply)


class Evaluator:
    """The evaluator as one server reaches it.

    All methods raise BusUnavailable (try again), Refused (its reason, or a proof or signature
    that does not hold) and ContractError(`bad_reply`).
    """

    def __init__(self, bus: Bus, identity: Identity, pinned: EvaluatorKeys) -> None:
        self._bus = bus
        self._identity = identity
        self._pinned = pinned
        self._subject = EVALUATE.fill({"server_id": identity.server_id})
        self._nonce: bytes | None = None

    async def keys(self) -> KeysReply:
        """Return its public keys for this server, once the pinned key vouches for them."""
        reply = await self._ask(KeysRequest(), KeysReply)
        check_keys(
            reply,
            server_id=self._identity.server_id,
            evaluator_public_key=self._pinned.signing_key,
        )
        return reply

    async def unlock(self, start: Start, public_key: bytes) -> tuple[bytes, bytes]:
        """Return y_g and y_{g+1} of *start*, proofs verified. Safe to repeat.

        *public_key* is the server's unlock key, out of `keys`.
        """
        blinding, blinded = blind(start.inputs)

        def request(nonce: bytes) -> UnlockRequest:
            return UnlockRequest(
                g=start.g,
                blinded=(blinded[0], blinded[1]),
                preimage=start.preimage,
                next_preimage=start.next_preimage,
                nonce=nonce,
            )

        reply = await self._ask_once(request, EvaluationReply)
        y, next_y = blinding.finalize(reply.evaluation, public_key)
        return y, next_y

    async def commit(self, g: int, preimage: bytes, owner_pins: Sequence[str]) -> int:
        """Say that generation *g* is on the disk, and whom this server obeys.

        Returns the incarnation. Safe to repeat, also with other pins.
        """

        def request(nonce: bytes) -> CommitRequest:
            return CommitRequest(g=g, preimage=preimage, owner_pins=tuple(owner_pins), nonce=nonce)

        return (await self._ask_once(request, CommitReply)).incarnation

    async def fingerprint(
        self, epoch: str, public_key: bytes, inputs: Sequence[bytes]
    ) -> list[bytes]:
        """Return the 64-byte evaluations of 1 to 64 *inputs* under *epoch*, proofs verified."""
        blinding, blinded = blind(inputs)

        def request(nonce: bytes) -> FingerprintRequest:
            return FingerprintRequest(epoch=epoch, blinded=tuple(blinded), nonce=nonce)

        reply = await self._ask_once(request, EvaluationReply)
        return blinding.finalize(reply.evaluation, public_key)

    async def _ask_once(
        self, request: Callable[[bytes], EvaluatorRequest], wanted: type[_Reply]
    ) -> _Reply:
        """Ask with the nonce that the last reply brought, or with a new one if it is stale."""
        kept, self._nonce = self._nonce, None
        if kept is not None:
            try:
                return await self._ask(request(kept), wanted)
            except Refused as error:
                if error.reason != "stale_nonce":
                    raise
        challenge = await self._ask(ChallengeRequest(), ChallengeReply)
        self._nonce = None
        return await self._ask(request(challenge.nonce), wanted)

    async def _ask(self, request: EvaluatorRequest, wanted: type[_Reply]) -> _Reply:
        sealed = seal_request(
            request,
            server_id=self._identity.server_id,
            identity_key=self._identity.key,
            evaluator_public_key=self._pinned.sealing_key,
        )
        answer = await self._bus.request(self._subject, sealed, wait=_WAIT_SECONDS)
        reply = read_reply(answer.data)
        if isinstance(reply, RefusalReply):
            raise Refused(reply.reason, f"the evaluator turned down `{request.op}`")
        if not isinstance(reply, wanted):
            raise ContractError("bad_reply", f"`{reply.reply}` in answer to `{request.op}`")
        self._nonce = reply.nonce
        return reply
