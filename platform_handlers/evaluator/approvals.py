"""Answers the API on `byok.v1.approve.{server_id}`: an owner lets a restored machine in, once."""

import time
from dataclasses import replace

import structlog
from nats.aio.msg import Msg
from pydantic import ValidationError

from bus_schemas.approval import Approval, ApprovalReply, check_approval
from bus_schemas.errors import ByokError, ContractError, Refused
from bus_schemas.events import RatchetAdvanced, UnlockApproved
from bus_schemas.requests import APPROVE
from bus_schemas.transport.connection import Bus
from bus_schemas.transport.outbox import OutboxPump
from platform_handlers.evaluator import rules
from platform_handlers.evaluator.handler import QUEUE
from platform_handlers.evaluator.ratchet import Found, Ratchets
from platform_handlers.evaluator.servers import ServerStore, require_active

_log = structlog.get_logger(__name__)

_INBOX = "_INBOX."


class Approvals:
    """One evaluator process's share of them. *bus* has role EVALUATOR."""

    def __init__(
        self, bus: Bus, ratchets: Ratchets, servers: ServerStore, pump: OutboxPump
    ) -> None:
        self._bus = bus
        self._ratchets = ratchets
        self._servers = servers
        self._pump = pump

    async def listen(self) -> None:
        """Answer from now on."""
        await self._bus.listen(APPROVE.wildcard, self._on_approval, queue=QUEUE)

    async def answer(self, subject: str, raw: bytes) -> ApprovalReply:
        """Return the reply to one approval. Raises ByokError when there can be none now."""
        try:
            await self._approve(APPROVE.parse(subject)["server_id"], _read(raw))
        except (Refused, ContractError) as error:
            _log.warning("approval_refused", subject=subject, reason=error.reason)
            return ApprovalReply(refused=error.reason, detail=error.detail)
        return ApprovalReply()

    async def _approve(self, server_id: str, approval: Approval) -> None:
        if approval.server_id != server_id:
            detail = f"an approval of {approval.server_id} was sent for {server_id}"
            raise Refused("wrong_server", detail)
        server = require_active(server_id, await self._servers.server(server_id))
        check_approval(approval)
        now = int(time.time())
        copies = await self._servers.refused_copies(server_id, now=now)
        about = await self._servers.circumstances(server, now=now)
        about = replace(about, refused_copies=copies)

        def decide(found: Found) -> RatchetAdvanced:
            return rules.approve(rules.current(found.state, about), approval, about)

        await self._ratchets.advance(server_id, about, decide)
        # Also on a repeat: the first time it may not have come so far.
        fact = UnlockApproved(server_id=server_id, signer=approval.public_key)
        await self._servers.tell(fact)
        self._pump.wake()
        _log.info("copy_approved", server=server_id, code=approval.code)

    async def _on_approval(self, message: Msg) -> None:
        # Asked from within our own account, where NATS checks no reply subject: an answer that
        # went to a stream's subject would be stored there.
        if not message.reply.startswith(_INBOX):
            return
        try:
            reply = await self.answer(message.subject, message.data)
            await message.respond(reply.model_dump_json().encode())
        except ByokError as error:
            _log.warning("approval_unanswered", subject=message.subject, error=str(error))


def _read(raw: bytes) -> Approval:
    try:
        return Approval.model_validate_json(raw)
    except ValidationError as error:
        raise ContractError("malformed", f"{error.error_count()} faults") from None
