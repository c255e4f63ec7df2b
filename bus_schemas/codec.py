"""One parser for every message: bytes and a subject in, a checked envelope or an error out.

Only :class:`ContractError` comes out. Its text names fields and rules, never values.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from operator import or_
from typing import Annotated, Any, Literal

from pydantic import BaseModel, Field, TypeAdapter, ValidationError, create_model

from bus_schemas.catalog import catalog, is_newer_major
from bus_schemas.envelope import MAX_BYTES, Envelope
from bus_schemas.errors import ContractError
from bus_schemas.event import Event


@dataclass
class UnknownEvent(ContractError):
    """The type is not in this build's catalogue. A reader decides whether to stop or to park."""

    type: str = ""
    source: str = ""


class _Peek(BaseModel):
    type: Annotated[str, Field(pattern=r"^byok\.[a-z-]+\.[a-z-]+\.v[0-9]{1,3}$")]
    source: Annotated[str, Field(max_length=100)]


def encode(envelope: Envelope[Event]) -> bytes:
    """Return the structured-mode JSON. Raises ContractError(`oversized`) above 64 KiB."""
    raw = envelope.model_dump_json(exclude_none=True).encode()
    if len(raw) > MAX_BYTES:
        raise ContractError("oversized", f"{len(raw)} bytes, the limit is {MAX_BYTES}")
    return raw


def decode(raw: bytes, subject: str, *, strict: bool = False) -> Envelope[Event]:
    """Return the envelope in *raw*, checked against the *subject* it came on.

    Unknown fields are ignored unless *strict* (tests). Raises ContractError with one of
    `oversized`, `malformed`, `unknown_type`, `unknown_major`, `wrong_subject`, `wrong_source`.
    """
    if len(raw) > MAX_BYTES:
        raise ContractError("oversized", f"{len(raw)} bytes, the limit is {MAX_BYTES}")
    try:
        envelope = _any_envelope().validate_json(raw, extra="forbid" if strict else None)
    except ValidationError as error:
        raise _explained(raw, error) from None  # the original would show what was sent
    _check_origin(envelope, subject)
    return envelope


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
    # The location names fields of the contract, except where it is a key the sender chose.
    known = [str(part) for part in first["loc"] if first["type"] != "extra_forbidden"]
    return ContractError("malformed", f"{'.'.join(known) or 'message'}: {first['type']}")


def _unknown(raw: bytes) -> ContractError:
    try:
        peek = _Peek.model_validate_json(raw)
    except ValidationError:
        return ContractError("malformed", "type: not of the form byok.noun.past-verb.v1")
    reason = "unknown_major" if is_newer_major(peek.type) else "unknown_type"
    return UnknownEvent(reason, peek.type, type=peek.type, source=peek.source)


@cache
def _any_envelope() -> TypeAdapter[Envelope[Event]]:
    """One parser for all types; pydantic picks the class by `type` in a single pass."""
    members: Sequence[Any] = [_typed_envelope(cls) for cls in catalog().values()]
    union = members[0]
    for member in members[1:]:
        union = or_(union, member)
    return TypeAdapter(Annotated[union, Field(discriminator="type")])


@cache
def _typed_envelope(cls: type[Event]) -> Any:  # noqa: ANN401 (pydantic builds the class)
    return create_model(
        f"{cls.__name__}Envelope",
        __base__=Envelope[cls],  # type: ignore[valid-type] # the class is a value here
        type=(Literal[cls.type], ...),  # type: ignore[valid-type] # likewise
    )


def envelope_model(cls: type[Event]) -> type[Envelope[Event]]:
    """Return the envelope class of one event, with its `type` fixed (for the JSON Schemas)."""
    model: type[Envelope[Event]] = _typed_envelope(cls)
    return model
