"""Somebody on the bus answers a server in the evaluator's place: it waits, and is not misled."""

from dataclasses import dataclass, field

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from nats.aio.msg import Msg

from bus_schemas.evaluation import CommitReply, EvaluatorReply, RefusalReply, read_reply
from bus_schemas.evaluation_signatures import Question, sign_commit, sign_refusal
from bus_schemas.transport.connection import Bus
from tests.integration.vps.conftest import Fleet
from tests.integration.vps.starts import key, start
from vps_runtime.state import StateFolder

EVE = Ed25519PrivateKey.from_private_bytes(b"\x07" * 32)
NO_QUESTION = Question("acme-1", bytes(32))
FORGED: list[EvaluatorReply] = [
    sign_refusal(EVE, NO_QUESTION, "stale_generation"),
    sign_refusal(EVE, NO_QUESTION, "stale_nonce"),
    sign_commit(EVE, NO_QUESTION, 2**53 - 1, bytes(32)),
]

_FIRST_OF_EACH = (1, 3, 6)
"""`challenge`, `unlock` and `commit`: a wrong answer costs a challenge more."""


@dataclass
class Between:
    """Sits between a server and the bus; answers each kind of question wrongly once."""

    instead: EvaluatorReply
    asked: int = 0
    heard: list[EvaluatorReply] = field(default_factory=list)

    def patch(self, patch: pytest.MonkeyPatch) -> None:
        """Take the place of the bus: a second question is answered by the evaluator."""
        real = Bus.request

        async def request(
            bus: Bus,
            subject: str,
            payload: bytes,
            *,
            headers: dict[str, str] | None = None,
            wait: float,
        ) -> Msg:
            answer = await real(bus, subject, payload, headers=headers, wait=wait)
            if not subject.startswith("byok.v1.evaluate."):
                return answer
            self.asked += 1
            self.heard.append(read_reply(answer.data))
            if self.asked in _FIRST_OF_EACH:
                answer.data = self.instead.model_dump_json().encode()
            return answer

        patch.setattr(Bus, "request", request)


@pytest.fixture
async def state(fleet: Fleet) -> StateFolder:
    """A server that was started once."""
    folder: StateFolder = await fleet.enrol("acme-1")
    return folder


@pytest.mark.parametrize("instead", FORGED, ids=["refusal", "stale-nonce", "commit"])
async def test_a_forged_answer_only_costs_time(state: StateFolder, instead: EvaluatorReply) -> None:
    """The first answer to each is made up: the start goes on, with its key and its true number."""
    before = await start(state)
    between = Between(instead)
    with pytest.MonkeyPatch.context() as patch:
        between.patch(patch)
        forged = await start(state)
    assert between.asked >= 8
    assert key(forged) == key(before)
    assert forged.incarnation == 2


async def test_a_recorded_answer_is_no_answer(state: StateFolder) -> None:
    """What the evaluator did sign, for another request, misleads nobody either."""
    before = await start(state)
    listening = Between(sign_refusal(EVE, NO_QUESTION, "stale_nonce"))
    with pytest.MonkeyPatch.context() as patch:
        listening.patch(patch)
        await start(state)
    recorded = [r for r in listening.heard if isinstance(r, RefusalReply | CommitReply)]
    assert recorded
    for answer in recorded:
        with pytest.MonkeyPatch.context() as patch:
            Between(answer).patch(patch)
            again = await start(state)
        assert key(again) == key(before)
    assert again.incarnation == 2 + len(recorded)
