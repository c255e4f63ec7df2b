"""Hands owners' approvals on to the evaluator, which alone can judge them."""

from pydantic import ValidationError

from bus_schemas.approval import Approval, ApprovalReply
from bus_schemas.errors import Refused
from bus_schemas.requests import APPROVE
from bus_schemas.transport.connection import Bus
from bus_schemas.transport.target import BusUnavailable

_WAIT_SECONDS = 5.0


class EvaluatorApprovals:
    """Asks as role API. Neither this process nor the bus can make or change an approval."""

    def __init__(self, bus: Bus) -> None:
        self._bus = bus

    async def approve(self, approval: Approval) -> None:
        """Have the copy let in once. Raises Refused with the evaluator's reason, BusUnavailable."""
        subject = APPROVE.fill({"server_id": approval.server_id})
        body = approval.model_dump_json().encode()
        answer = await self._bus.request(subject, body, wait=_WAIT_SECONDS)
        try:
            reply = ApprovalReply.model_validate_json(answer.data)
        except ValidationError:
            raise BusUnavailable(f"no readable answer on {subject}") from None
        if reply.refused is not None:
            raise Refused(reply.refused, reply.detail)
