"""Asking the platform's issuer: to be enrolled, and for new tokens."""

import asyncio
import time
from typing import Final, TypeVar

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
)
from bus_schemas.secret_fields import reveal_json
from bus_schemas.transport.back_off import BackOff
from bus_schemas.transport.connection import Bus
from bus_schemas.transport.target import BusUnavailable
from vps_runtime.connection.authorities import trusted_ids

_ENROL_SECONDS: Final = 10.0
_TOKEN_SECONDS: Final = 5.0

_C = TypeVar("_C", bound=Contract)


async def ask_to_enrol(bus: Bus, request: EnrolRequest) -> EnrolReply:
    """Ask to become a server; *bus* is signed in with the join token's JWT.

    For some seconds it asks again where nobody answers: a person waits, the issuer may just be
    starting, and the same machine may repeat its request. Raises BusUnavailable, Refused with the
    issuer's reason, ContractError(`bad_reply`).
    """
    subject = ENROL.fill({"joiner": bus.name})
    back_off = BackOff(first=0.1, longest=1.0)
    deadline = time.monotonic() + _ENROL_SECONDS
    while True:
        try:
            reply = await bus.request(subject, reveal_json(request), wait=_ENROL_SECONDS)
        except BusUnavailable:
            if time.monotonic() >= deadline:
                raise
            await asyncio.sleep(back_off.pause())
        else:
            return _answer(reply.data, EnrolReply)


async def ask_for_tokens(bus: Bus, server_id: str) -> Renewal:
    """Ask for new tokens; *bus* is signed in with either of the old ones.

    Tells which CAs this connection trusts, and hears which ones the platform has.

    Raises BusUnavailable, Refused with the issuer's reason, ContractError(`bad_reply`).
    """
    subject = TOKEN.fill({"server_id": server_id})
    request = RenewalRequest(authorities=trusted_ids(bus.target.ca_file))
    reply = await bus.request(subject, request.model_dump_json().encode(), wait=_TOKEN_SECONDS)
    return _answer(reply.data, Renewal)


def _answer(raw: bytes, wanted: type[_C]) -> _C:
    try:
        refusal = RefusedReply.model_validate_json(raw)
    except ValidationError:
        pass  # then it is no refusal
    else:
        raise Refused(refusal.refused, refusal.detail)
    try:
        return wanted.model_validate_json(raw)
    except ValidationError as error:
        detail = f"the issuer's answer has {error.error_count()} faults"
        raise ContractError("bad_reply", detail) from None
