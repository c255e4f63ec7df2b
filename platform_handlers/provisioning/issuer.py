"""The issuer: answers new servers and renewals, and turns away the revoked.

A renewal is authenticated by its subject: NATS lets server X publish on `byok.v1.token.X` only,
with the working or the door token of X's nkey. The reply is for that nkey, so nobody else can
use it.
"""

import json
import time
from collections.abc import Awaitable, Callable

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
    RefusedReply,
    Renewal,
    RenewalRequest,
    Tokens,
)
from bus_schemas.transport.connection import Bus
from bus_schemas.transport.database import StorageFull
from bus_schemas.transport.outbox import OutboxPump
from platform_handlers.doors.rules import Allowance, Door
from platform_handlers.provisioning.authorities import AuthorityBook
from platform_handlers.provisioning.enrolment import Enrolment, Enrolments
from platform_handlers.provisioning.records import ServerRecord
from platform_handlers.provisioning.registry import Registry
from platform_handlers.provisioning.tokens import TokenMint

_log = structlog.get_logger(__name__)

_QUEUE = "issuer"
"""Several issuers on one registry share the work."""

_EACH_SERVER = Allowance(burst=120, per_second=0.1, at_once=4)
"""Renewals. A server asks about once in three quarters of an hour, and at each start."""

_EACH_JOINER = Allowance(burst=30, per_second=0.1, at_once=4)
"""Enrolments with one join token, which is good for one; a machine without an answer asks again."""


class Issuer:
    """Answers `byok.v1.enrol.*` and `byok.v1.token.*` from the registry."""

    def __init__(
        self,
        registry: Registry,
        mint: TokenMint,
        pump: OutboxPump,
        book: AuthorityBook,
        orders_key: bytes | None,
    ) -> None:
        """*orders_key* is the public half of the platform's order key, for servers to pin."""
        self._registry = registry
        self._book = book
        self._enrolments = Enrolments(registry)
        self._mint = mint
        self._pump = pump
        self._orders_key = orders_key
        self._renewing = Door(_EACH_SERVER)
        self._joining = Door(_EACH_JOINER)

    async def listen(self, bus: Bus) -> None:
        """Answer from now on, on *bus* (role ISSUER)."""
        await bus.listen(ENROL.wildcard, self._on_enrol, queue=_QUEUE)
        await bus.listen(TOKEN.wildcard, self._on_token, queue=_QUEUE)

    async def enrol(self, raw: bytes, source: str, joiner: str) -> EnrolReply:
        """Enrol a server; *joiner* is who asks, by its subject.

        Raises ContractError(`malformed`) and the registry's Refused.
        """
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
                joiner,
            )
            record = await self._enrolments.enrol(wish)
            self._pump.wake()
            _log.info("enrolled", server=record.server_id, owner=record.owner_id, source=source)
            tokens = self._tokens(record)
            return EnrolReply(owner_id=record.owner_id, tokens=tokens, orders_key=self._orders_key)
        # Raised here and not above: a chained ValidationError would carry the secret along.
        raise ContractError("malformed", f"the enrolment has {count} faults")

    async def renewal(self, server_id: str, raw: bytes) -> Renewal:
        """Return fresh tokens and the CAs, and note which ones the server trusts.

        Raises ContractError(`malformed`), Refused as `renew` does.
        """
        try:
            told = RenewalRequest.model_validate_json(raw).authorities
        except ValidationError as error:
            detail = f"the renewal has {error.error_count()} faults"
            raise ContractError("malformed", detail) from None
        tokens = await self.renew(server_id)
        await self._book.told(server_id, told)
        published = self._book.published()
        return Renewal(working=tokens.working, door=tokens.door, authorities=published)

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
        await _let_in(self._joining, message, self._answer_enrolment)

    async def _on_token(self, message: Msg) -> None:
        await _let_in(self._renewing, message, self._answer_token)

    async def _answer_enrolment(self, message: Msg) -> None:
        try:
            joiner = ENROL.parse(message.subject)["joiner"]
            reply: Contract = await self.enrol(message.data, source_of(message), joiner)
        except (Refused, ContractError) as error:
            _log.warning("enrolment_refused", reason=error.reason, source=source_of(message))
            reply = RefusedReply(refused=error.reason, detail=error.detail)
        except StorageFull as error:
            _log.error("enrolment_failed", error=str(error))
            return  # no answer: the machine asks again
        await message.respond(reply.model_dump_json().encode())

    async def _answer_token(self, message: Msg) -> None:
        try:
            server_id = TOKEN.parse(message.subject)["server_id"]
            reply: Contract = await self.renewal(server_id, message.data)
        except (Refused, ContractError) as error:
            _log.warning("renewal_refused", subject=message.subject, reason=error.reason)
            reply = RefusedReply(refused=error.reason, detail=error.detail)
        await message.respond(reply.model_dump_json().encode())


async def _let_in(door: Door, message: Msg, answer: Callable[[Msg], Awaitable[None]]) -> None:
    away = door.enter(message.subject, now=time.monotonic())
    if away is not None:  # no answer, and no signature, for one server's or joiner's flood
        if away.worth_telling:
            _log.warning("turned_away", subject=message.subject, count=away.count)
        return
    try:
        await answer(message)
    finally:
        door.leave(message.subject)


def source_of(message: Msg) -> str:
    """Return the address nats-server saw the request come from, `unknown` if it did not say."""
    try:
        return str(json.loads((message.headers or {})["Nats-Request-Info"])["host"])[:64]
    except (KeyError, ValueError, TypeError):
        return "unknown"
