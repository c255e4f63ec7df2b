"""One parser for every message: bytes and a subject in, a checked envelope or an error out.

Only :class:`ContractError` comes out. Its text names fields and rules, never values.
"""

import contextlib
import re
from dataclasses import dataclass, field
from functools import cache, reduce
from operator import or_
from typing import Annotated, Any, Final, Literal

from pydantic import Field, TypeAdapter, ValidationError

from bus_schemas.catalog import catalog, is_newer_major
from bus_schemas.envelope import MAX_BYTES, Envelope, Source, envelope_model
from bus_schemas.errors import ContractError
from bus_schemas.event import Contract, Event

_TYPE: Final = re.compile(rb'"type": ?"(byok\.[a-z0-9.-]{1,90})"')


@dataclass(eq=False)
class UnknownEvent(ContractError):
    """The type is not in this build's catalogue. A reader decides whether to stop or to park."""

    type: str = field(default="", repr=False)
    """As sent, so the sender's words; at most 100 of `a-z`, `0-9`, `-` and dots."""
    source: str = field(default="", repr=False)
    """As sent; nobody has held it against the subject."""


class _Peek(Contract):
    """What can be said of an envelope whose type is unknown."""

    type: Annotated[
        str, Field(pattern=r"^byok\.[a-z-]+\.[a-z-]+\.v[1-9][0-9]{0,2}$", max_length=100)
    ]
    source: Source


def encode(envelope: Envelope[Event]) -> bytes:
    """Return the structured-mode JSON. Raises ContractError(`oversized`) above 64 KiB."""
    raw = envelope.model_dump_json(exclude_none=True).encode()
    if len(raw) > MAX_BYTES:
        raise ContractError("oversized", f"{len(raw)} bytes, the limit is {MAX_BYTES}")
    return raw


def decode(raw: bytes, subject: str, *, strict: bool = False) -> Envelope[Event]:
    """Return the envelope in *raw*, checked against the *subject* it came on.

    Unknown fields are ignored unless *strict* (tests), except inside what a signature covers;
    types are never coerced. Raises ContractError with one of `oversized`, `malformed`,
    `unknown_type`, `unknown_major`, `wrong_subject`, `wrong_source`.
    """
    if len(raw) > MAX_BYTES:
        raise ContractError("oversized", f"{len(raw)} bytes, the limit is {MAX_BYTES}")
    try:
        envelope = _parsed(raw, "forbid" if strict else None)
    except ValidationError as error:
        refusal = _explained(raw, error)
    else:
        _check_origin(envelope, subject)
        return envelope
    raise refusal  # not above: even `from None` keeps the ValidationError, with what was sent


def _parsed(raw: bytes, extra: Literal["forbid"] | None) -> Envelope[Event]:
    """Try the parser of the type that *raw* seems to be of; the one of all types has the last word.

    Most processes meet a few types; the parser of all takes 3 MB and a tenth of a second to build.
    """
    seems = _TYPE.search(raw)
    event = catalog().get(seems[1].decode()) if seems else None
    if event:
        with contextlib.suppress(ValidationError):
            return envelope_model(event).model_validate_json(raw, strict=True, extra=extra)
    return _any_envelope().validate_json(raw, strict=True, extra=extra)


def _check_origin(envelope: Envelope[Event], subject: str) -> None:
    event = envelope.data
    ids = event.template.parse(subject)
    if any(str(getattr(event, name)) != value for name, value in ids.items()):
        raise ContractError("wrong_subject", "the ids inside differ from those in the subject")
    if envelope.source != event.writer.source_for(ids):
        raise ContractError("wrong_source", f"only {event.writer.value} may write {event.type}")


def _explained(raw: bytes, error: ValidationError) -> ContractError:
    first = error.errors(include_input=False, include_url=False, include_context=False)[0]
    if first["type"] == "union_tag_invalid":
        return _unknown(raw)
    # The location names fields of the contract, except at its end, where it may be a key the
    # sender chose. No event has a dictionary; a contract test keeps it so.
    known = first["loc"][:-1] if first["type"] == "extra_forbidden" else first["loc"]
    place = ".".join(map(str, known)) or "message"
    return ContractError("malformed", f"{place}: {first['type']}")


def _unknown(raw: bytes) -> ContractError:
    try:
        peek = _Peek.model_validate_json(raw)
    except ValidationError:
        return ContractError("malformed", "type or source: not of the form the envelope asks for")
    if is_newer_major(peek.type):  # so all but the number is a word of our own
        return UnknownEvent("unknown_major", peek.type, type=peek.type, source=peek.source)
    detail = "the type is not in this build's catalogue"
    return UnknownEvent("unknown_type", detail, type=peek.type, source=peek.source)


@cache
def _any_envelope() -> TypeAdapter[Envelope[Event]]:
    """One parser for all types; pydantic picks the class by `type` in a single pass."""
    union: Any = reduce(or_, map(envelope_model, catalog().values()))
    tagged: Any = Annotated[union, Field(discriminator="type")]
    return TypeAdapter(tagged)
