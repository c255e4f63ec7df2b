"""The issuer: answers new servers and renewals, and turns away the revoked.

A renewal is authenticated by its subject: NATS lets server X publish on `byok.v1.token.X` only,
with the working or the door token of X's nkey. The reply is for that nkey, so nobody else can
use it.
"""

import json

import structlog
from nats.aio.msg import Msg
from pydantic import ValidationError

from bus_schemas.errors import ContractError, Refused
from bus_schemas.event import Contract
from bus_schemas.requests import (
    ENROL,
    TOKEN,
    EnrolReply,
    EnrolRequest,
    EvaluatorKeys,
    RefusedReply,
    Tokens,
)
from bus_schemas.transport.connection import Bus
from bus_schemas.transport.database import StorageFull
from bus_schemas.transport.outbox import OutboxPump
from platform_handlers.provisioning.enrolment import Enrolment, Enrolments
from platform_handlers.provisioning.records import ServerRecord
from platform_handlers.provisioning.registry import Registry
from platform_handlers.provisioning.tokens import TokenMint

_log = structlog.get_logger(__name__)

_QUEUE = "issuer"
"""Several issuers on one registry share the work."""


class Issuer:
    """Answers `byok.v1.enrol` and `byok.v1.token.*` from the registry."""

    def __init__(
        self, registry: Registry, mint: TokenMint, evaluator: EvaluatorKeys, pump: OutboxPump
    ) -> None:
        self._registry = registry
        self._enrolments = Enrolments(registry)
        self._mint = mint
        self._evaluator = evaluator
        self._pump = pump

    async def listen(self, bus: Bus) -> None:
        """Answer from now on, on *bus* (role ISSUER)."""
        await bus.listen(ENROL.pattern, self._on_enrol, queue=_QUEUE)
        await bus.listen(TOKEN.wildcard, self._on_token, queue=_QUEUE)

    async def enrol(self, raw: bytes, source: str) -> EnrolReply:
        """Enrol a server. Raises ContractError(`malformed`) and the registry's Refused."""
        try:
            request = EnrolRequest.model_validate_json(raw)
        except ValidationError as error:
            count = error.error_count()
        else:
            wish = Enrolment(
                request.server_id,
                request.secret.get_secret_value(),
                request.nkey,
                request.identity_key,
                source,
            )
            record = await self._enrolments.enrol(wish)
            self._pump.wake()
            _log.info("enrolled", server=record.server_id, owner=record.owner_id, source=source)
            return EnrolReply(
                owner_id=record.owner_id, tokens=self._tokens(record), evaluator=self._evaluator
            )
        # Raised here and not above: a chained ValidationError would carry the secret along.
        raise ContractError("malformed", f"the enrolment has {count} faults")

    async def renew(self, server_id: str) -> Tokens:
        """Return fresh tokens. Raises Refused: `unknown_server`, `server_<state>`."""
        record = await self._registry.require_server(server_id)
        if not record.active:
            raise Refused(f"server_{record.state}", f"{server_id} is {record.state}")
        return self._tokens(record)

    def _tokens(self, record: ServerRecord) -> Tokens:
        # An active server has a nkey: enrolment sets both in one statement.
        return self._mint.tokens(record.server_id, record.nkey or "", now=self._registry.now())

    async def _on_enrol(self, message: Msg) -> None:
        try:
            reply: Contract = await self.enrol(message.data, source_of(message))
        except (Refused, ContractError) as error:
            _log.warning("enrolment_refused", reason=error.reason, source=source_of(message))
            reply = RefusedReply(refused=error.reason, detail=error.detail)
        except StorageFull as error:
            _log.error("enrolment_failed", error=str(error))
            return  # no answer: the machine asks again
        await message.respond(reply.model_dump_json().encode())

    async def _on_token(self, message: Msg) -> None:
        try:
            server_id = TOKEN.parse(message.subject)["server_id"]
            reply: Contract = await self.renew(server_id)
        except (Refused, ContractError) as error:
            _log.warning("renewal_refused", subject=message.subject, reason=error.reason)
            reply = RefusedReply(refused=error.reason, detail=error.detail)
        await message.respond(reply.model_dump_json().encode())


def source_of(message: Msg) -> str:
    """Return the address nats-server saw the request come from, `unknown` if it did not say."""
    try:
        return str(json.loads((message.headers or {})["Nats-Request-Info"])["host"])[:64]
    except (KeyError, ValueError, TypeError):
        return "unknown"
