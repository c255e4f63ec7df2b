"""Bodies in the two dialects that nearly every AI provider speaks: OpenAI's and Anthropic's. Pure.

The words come from the providers' public API references.
"""

import json
from collections.abc import Iterator
from enum import StrEnum
from typing import Any, Final

WORDS: Final = ("The", " made", "-up", " provider", " answers", " you", ".", " Bye.")
MODELS: Final = ("fake-1", "fake-2")


class Dialect(StrEnum):
    """What a path speaks."""

    OPENAI = "openai"
    ANTHROPIC = "anthropic"


def dialect(path: str) -> Dialect:
    """Return what is spoken at *path*."""
    return Dialect.ANTHROPIC if path.endswith("/messages") else Dialect.OPENAI


def is_generation(path: str) -> bool:
    """Whether *path* makes a model speak."""
    return path.endswith(("/chat/completions", "/messages"))


def error(speech: Dialect, status: int, key: str | None) -> dict[str, Any]:
    """Return the body of a refusal; it repeats *key* if there is one."""
    about = f": {key}" if key else "."
    words = {
        400: ("invalid_request_error", "The request is not valid"),
        401: ("authentication_error", "Incorrect API key provided"),
        402: ("billing_error", "Insufficient balance"),
        403: ("permission_error", "This key may not do that"),
        404: ("not_found_error", "There is nothing here"),
        429: ("rate_limit_error", "Too many requests"),
        529: ("overloaded_error", "Overloaded"),
    }
    kind, sentence = words.get(status, ("api_error", "The server had an error"))
    if speech is Dialect.ANTHROPIC:
        return {"type": "error", "error": {"type": kind, "message": sentence + about}}
    return {"error": {"message": sentence + about, "type": kind, "param": None, "code": kind}}


def models() -> dict[str, Any]:
    """Return a list that is right in both dialects."""
    entries = [
        {"id": name, "object": "model", "type": "model", "display_name": name, "created": 0}
        for name in MODELS
    ]
    return {"object": "list", "data": entries, "has_more": False}


def whole(speech: Dialect, model: str, pieces: int) -> dict[str, Any]:
    """Return an answer in one piece."""
    text = "".join(_words(pieces))
    if speech is Dialect.ANTHROPIC:
        return _message(model) | {
            "content": [{"type": "text", "text": text}],
            "stop_reason": "end_turn",
        }
    choice = {"message": {"role": "assistant", "content": text}, "finish_reason": "stop"}
    usage = {"prompt_tokens": 1, "completion_tokens": pieces, "total_tokens": pieces + 1}
    return _completion(model, "chat.completion", {"index": 0, **choice}) | {"usage": usage}


def streamed(speech: Dialect, model: str, pieces: int, size: int = 0) -> Iterator[bytes]:
    """Yield the parts of an SSE answer, *pieces* of them with text, each at least *size* bytes."""
    events = _anthropic if speech is Dialect.ANTHROPIC else _openai
    for part in events(model, pieces):
        yield part + b":" + b" " * (size - len(part) - 3) + b"\n\n" if len(part) < size else part


def _openai(model: str, pieces: int) -> Iterator[bytes]:
    def chunk(delta: dict[str, str], reason: str | None = None) -> bytes:
        choice = {"index": 0, "delta": delta, "finish_reason": reason}
        return _data(_completion(model, "chat.completion.chunk", choice))

    yield chunk({"role": "assistant", "content": ""})
    for word in _words(pieces):
        yield chunk({"content": word})
    yield chunk({}, "stop")
    yield b"data: [DONE]\n\n"


def _anthropic(model: str, pieces: int) -> Iterator[bytes]:
    def event(name: str, **content: object) -> bytes:
        return f"event: {name}\n".encode() + _data({"type": name, **content})

    yield event("message_start", message=_message(model))
    yield event("content_block_start", index=0, content_block={"type": "text", "text": ""})
    yield event("ping")
    for word in _words(pieces):
        yield event("content_block_delta", index=0, delta={"type": "text_delta", "text": word})
    yield event("content_block_stop", index=0)
    ending = {"stop_reason": "end_turn", "stop_sequence": None}
    yield event("message_delta", delta=ending, usage={"output_tokens": pieces})
    yield event("message_stop")


def _completion(model: str, kind: str, choice: dict[str, Any]) -> dict[str, Any]:
    return {"id": "c-1", "object": kind, "created": 0, "model": model, "choices": [choice]}


def _message(model: str) -> dict[str, Any]:
    return {
        "id": "msg_1",
        "type": "message",
        "role": "assistant",
        "model": model,
        "content": [],
        "stop_reason": None,
        "stop_sequence": None,
        "usage": {"input_tokens": 1, "output_tokens": 1},
    }


def _words(pieces: int) -> Iterator[str]:
    return (WORDS[number % len(WORDS)] for number in range(pieces))


def _data(content: dict[str, Any]) -> bytes:
    return f"data: {json.dumps(content, separators=(',', ':'))}\n\n".encode()
