"""A field that prints as stars, and the one way to write it out. Pure."""

from typing import Annotated

from pydantic import PlainSerializer, SecretStr, SerializationInfo

from bus_schemas.event import Contract

_REVEAL = object()
"""Serialization context that only `reveal_json` hands over."""


def _shown(secret: SecretStr, info: SerializationInfo) -> str:
    return secret.get_secret_value() if info.context is _REVEAL else str(secret)


SecretField = Annotated[SecretStr, PlainSerializer(_shown, when_used="json")]
"""Stars in repr, str, `model_dump_json` and errors; only `reveal_json` writes it out."""


def reveal_json(message: Contract) -> bytes:
    """Return the JSON of *message with its secrets in it*, without the fields that are None.

    To send, seal, store or print it, once; never to log it.
    """
    return message.model_dump_json(context=_REVEAL, exclude_none=True).encode()
