"""What the made-up provider does with each key, and what it remembers of each call."""

import asyncio
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any, Final

from pydantic import TypeAdapter


@dataclass(frozen=True)
class Behaviour:
    """How calls with one key are answered; the default is a good key and a prompt answer."""

    status: int = 200
    """Anything but 200 is answered with the provider's own error body."""
    echo: bool = False
    """Repeat the key in the body and in a header of a refusal, as careless providers do."""
    headers: Mapping[str, str] = field(default_factory=dict)
    """Added to the head of every answer."""
    answer: Mapping[str, Any] | None = None
    """JSON in place of the usual one, of a call that is neither a chat nor a message."""
    head_after: float = 0.0
    """Seconds before the head of an answer."""
    pieces: int = 8
    """Parts of a streamed answer."""
    piece_size: int = 0
    """Bytes that each part is filled up to."""
    piece_after: float = 0.0
    """Seconds before each part of a streamed answer but the first."""
    breaks_after: int | None = None
    """Cut the connection after so many parts, without an end."""


DEAD: Final = Behaviour(status=401)
BEHAVIOUR: Final = TypeAdapter(Behaviour)


@dataclass
class Call:
    """One call as it arrived."""

    key: str | None
    style: str | None
    """Where the key was: `bearer`, `x-api-key`, `x-goog-api-key` or `query`."""
    method: str
    path: str
    """With its query, as it was on the wire."""
    headers: Mapping[str, str] = field(repr=False)
    """Names in lower case."""
    at: float = field(default_factory=time.time)
    """Unix seconds."""
    body: bytes = field(default=b"", repr=False)
    """Its first 64 KiB."""
    size: int = 0
    """Bytes of the whole body."""
    status: int | None = None
    """Of the answer; None while it is not sent."""
    sent: int = 0
    """Bytes of a streamed answer that were written so far."""
    gone: bool = False
    """The caller went away before the answer was whole."""

    def as_json(self) -> dict[str, Any]:
        """Return it for the control interface."""
        return asdict(self) | {"body": self.body.decode("utf-8", "replace")}


class Gate:
    """Holds calls up until it is opened."""

    def __init__(self) -> None:
        self._open = asyncio.Event()

    def open(self) -> None:
        """Let everybody through, now and later."""
        self._open.set()

    async def passed(self) -> None:
        """Return once it is open."""
        await self._open.wait()
