"""What client and provider say to each other: one request, one answer, one stream. Pure."""

import json
import re
from typing import Final

KEY: Final = "sk-made-up-provider-key-0123456789"
"""The provider turns away whoever shows another: so each proxy really puts it in."""
MODEL: Final = "made-up-1"
CHUNKS: Final = 20
PACE: Final = 0.02
"""Seconds from one chunk of a stream to the next, as of a fast model."""
_STAMP: Final = re.compile(rb"<(\d+) (\d+)>")
_WORDS: Final = "The quick brown fox jumps over the lazy dog. "


def request_body(*, stream: bool) -> bytes:
    """Return a chat of some 2 KB."""
    turns = [("system", 4), ("user", 12), ("assistant", 14), ("user", 8)]
    messages = [{"role": role, "content": _WORDS * times} for role, times in turns]
    asked = {"model": MODEL, "messages": messages, "stream": stream, "max_tokens": 400}
    return json.dumps(asked).encode()


def answer_body() -> bytes:
    """Return a whole answer of some 1.5 KB."""
    message = {"role": "assistant", "content": _WORDS * 25, "refusal": None}
    choice = {"index": 0, "message": message, "logprobs": None, "finish_reason": "stop"}
    usage = {"prompt_tokens": 400, "completion_tokens": 250, "total_tokens": 650}
    return json.dumps(
        {"id": "chatcmpl-1", "object": "chat.completion", "created": 1_700_000_000, "model": MODEL}
        | {"choices": [choice], "usage": usage, "system_fingerprint": "fp_1"}
    ).encode()


def stream_chunk(number: int, sent: int) -> bytes:
    """Return chunk *number* of a stream, some 200 bytes, with the time at which it is *sent*.

    The time is in nanoseconds of the monotonic clock, which all processes of a machine share.
    It stands in the text, so it outlives a proxy that takes the stream apart.
    """
    delta = {"role": "assistant", "content": f"<{number} {sent}>"}
    choice = {"index": 0, "delta": delta, "logprobs": None, "finish_reason": None}
    event = json.dumps(
        {"id": "chatcmpl-1", "object": "chat.completion.chunk", "created": 1_700_000_000}
        | {"model": MODEL, "choices": [choice]}
    )
    return f"data: {event}\n\n".encode()


def stream_end() -> bytes:
    """Return the two events that end a stream."""
    choice = {"index": 0, "delta": {}, "logprobs": None, "finish_reason": "stop"}
    event = json.dumps(
        {"id": "chatcmpl-1", "object": "chat.completion.chunk", "created": 1_700_000_000}
        | {"model": MODEL, "choices": [choice]}
    )
    return f"data: {event}\n\ndata: [DONE]\n\n".encode()


def stamps(data: bytes) -> list[tuple[int, int]]:
    """Return number and sending time of each chunk in *data*."""
    return [(int(number), int(sent)) for number, sent in _STAMP.findall(data)]
