"""Reading what callers send: bounded, and never repeated in an error."""

import asyncio
from typing import TypeVar
from urllib.parse import parse_qs

from pydantic import BaseModel, ValidationError
from starlette.requests import Request

from platform_handlers.dashboard.problems import ProblemError

MAX_BODY = 64 * 1024
"""As much as one message on the bus may hold."""

_BODY_SECONDS = 20.0

M = TypeVar("M", bound=BaseModel)


async def read_json(request: Request, model: type[M]) -> M:
    """Return the request's JSON body. Raises ProblemError 413, 415 or 422."""
    _check_type(request, "application/json")
    raw = await _read(request)
    try:
        return model.model_validate_json(raw)
    except ValidationError as error:
        first = error.errors(include_input=False, include_url=False, include_context=False)[0]
        # An unknown field's name is the sender's own text, so it is not repeated.
        where = "" if first["type"] == "extra_forbidden" else ".".join(map(str, first["loc"]))
    detail = f"Field {where or 'of the body'} is wrong ({first['type']}). See docs/protocol.md."
    raise ProblemError(422, "malformed", "Not the expected JSON", detail)


async def read_form(request: Request) -> dict[str, str]:
    """Return the fields of an ordinary form. Raises ProblemError 413, 415 or 422."""
    _check_type(request, "application/x-www-form-urlencoded")
    try:
        fields = parse_qs((await _read(request)).decode("ascii"), max_num_fields=8)
    except ValueError:
        raise ProblemError(422, "malformed", "Not a form", "The form is damaged.") from None
    return {name: values[-1] for name, values in fields.items()}


def _check_type(request: Request, wanted: str) -> None:
    if request.headers.get("content-type", "").partition(";")[0].strip().lower() != wanted:
        detail = f"Send the body as Content-Type: {wanted}."
        raise ProblemError(415, "wrong-content-type", "Not in this form", detail)


async def _read(request: Request) -> bytes:
    try:
        async with asyncio.timeout(_BODY_SECONDS):
            return await _read_patiently(request)
    except TimeoutError:
        detail = f"The body did not come within {_BODY_SECONDS:.0f} seconds. Send it again."
        close = {"Connection": "close"}
        raise ProblemError(408, "too-slow", "Too slow", detail, close) from None


async def _read_patiently(request: Request) -> bytes:
    raw = bytearray()
    async for chunk in request.stream():
        raw += chunk
        if len(raw) > MAX_BODY:
            detail = f"A body may hold {MAX_BODY} bytes; this one is larger."
            raise ProblemError(413, "too-large", "Too large", detail, {"Connection": "close"})
    return bytes(raw)
