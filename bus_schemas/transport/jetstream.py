"""The few JetStream verbs this system uses: store, read the last, read a batch, stream info.

Nobody makes a consumer to read: a batched direct get (ADR-31 of NATS) needs none, leaves nothing
behind after a crash, and every message in it names its predecessor, so a gap cannot hide.
"""

import asyncio
import contextlib
import json
from dataclasses import dataclass
from typing import Any

import nats.errors
from nats.aio.msg import Msg

from bus_schemas.codec import encode
from bus_schemas.envelope import CONTENT_TYPE, Envelope
from bus_schemas.errors import ByokError
from bus_schemas.event import Event
from bus_schemas.intake import OVER_QUOTA, TOO_EARLY, UNUSABLE
from bus_schemas.transport.connection import Bus
from bus_schemas.transport.target import BusUnavailable

_WAIT = 5.0
SEQUENCE = "Nats-Sequence"
"""Header in which nats-server says where a message lies."""
_WRONG_LAST_SEQUENCE = {10071, 10164}
"""JetStream error codes of a failed `Nats-Expected-Last-Subject-Sequence`."""


@dataclass(eq=False)
class Conflict(ByokError):
    """Somebody else wrote the subject first; read its last message and decide again."""

    subject: str

    def __str__(self) -> str:
        return f"the last message on {self.subject} is not the expected one"


@dataclass(eq=False)
class StreamError(ByokError):
    """JetStream refused; `code` is its `err_code`."""

    code: int
    description: str

    def __str__(self) -> str:
        return f"JetStream error {self.code}: {self.description}"


@dataclass(eq=False)
class Later(StreamError):
    """The intake does not take this fact for now; it was not stored, and `description` says why."""

    seconds: int = 0
    """After which it is worth asking again."""


@dataclass(eq=False)
class Unusable(StreamError):
    """The intake takes this fact at no time: nobody could read it."""


@dataclass(frozen=True)
class StoredMessage:
    """A message as it lies in a stream."""

    subject: str
    sequence: int
    stored_at: str
    """RFC 3339 with nanoseconds: when the stream took it, the same in every replay."""
    data: bytes
    previous: int | None = None
    """Sequence of the message before it in the same read; None for single reads."""


@dataclass(frozen=True)
class StreamState:
    """What a stream says about itself."""

    created: str
    first: int
    last: int


@dataclass(frozen=True)
class Expect:
    """Compare-and-set: the subject's last sequence (0: none yet), and a life span."""

    last_on_subject: int | None = None
    ttl_seconds: int | None = None


async def store(bus: Bus, envelope: Envelope[Event], expect: Expect | None = None) -> int:
    """Publish *envelope* on its subject and return its sequence in the stream.

    `Nats-Msg-Id` is always sent: a publish that timed out may still be on its way. Raises
    BusUnavailable (try again with the same envelope), Conflict, StreamError; for a server's fact,
    which goes through the intake, also Later and Unusable.
    """
    return await store_raw(bus, envelope.data.subject, envelope.id, encode(envelope), expect)


async def store_raw(
    bus: Bus, subject: str, message_id: str, body: bytes, expect: Expect | None = None
) -> int:
    """Publish an encoded envelope; see `store`."""
    headers = {"Nats-Msg-Id": message_id, "Content-Type": CONTENT_TYPE}
    if expect and expect.last_on_subject is not None:
        headers["Nats-Expected-Last-Subject-Sequence"] = str(expect.last_on_subject)
    if expect and expect.ttl_seconds is not None:
        headers["Nats-TTL"] = f"{expect.ttl_seconds}s"
    reply = await bus.request(subject, body, headers=headers, wait=_WAIT)
    answer = _json(reply)
    code = answer.get("error", {}).get("err_code")
    if code in _WRONG_LAST_SEQUENCE:
        raise Conflict(subject)
    _raise_for(answer)
    return int(answer["seq"])


async def read_last(bus: Bus, stream: str, subject: str) -> StoredMessage | None:
    """Return the last message on *subject*, or None if there is none (which is *no news*)."""
    reply = await bus.request(f"{bus.api}.DIRECT.GET.{stream}.{subject}", b"", wait=_WAIT)
    if _status(reply):
        return None
    return _stored(reply)


async def stream_state(bus: Bus, stream: str) -> StreamState:
    """Return the stream's creation time and bounds. Raises StreamError when it does not exist."""
    answer = _json(await bus.request(f"{bus.api}.STREAM.INFO.{stream}", b"", wait=_WAIT))
    _raise_for(answer)
    state = answer["state"]
    return StreamState(answer["created"], state["first_seq"], state["last_seq"])


async def subject_counts(bus: Bus, stream: str, subjects: str) -> dict[str, int]:
    """Return how many messages *stream* holds on each subject that fits *subjects*.

    nats-server gives them in pages of 100,000. Raises BusUnavailable, StreamError.
    """
    found: dict[str, int] = {}
    while True:
        asked = {"subjects_filter": subjects, "offset": len(found)}
        answer = await api(bus, f"STREAM.INFO.{stream}", asked)
        page = answer["state"].get("subjects") or {}
        found |= page
        if not page or len(found) >= answer.get("total", 0):
            return found


async def api(bus: Bus, verb: str, body: dict[str, Any]) -> dict[str, Any]:
    """Call `$JS.API.<verb>` and return its answer. Raises StreamError."""
    answer = _json(await bus.request(f"{bus.api}.{verb}", json.dumps(body).encode(), wait=_WAIT))
    _raise_for(answer)
    return answer


async def read_batch(bus: Bus, stream: str, start: int, size: int) -> list[StoredMessage]:
    """Return up to *size* messages from sequence *start* on, in stream order; [] at the head.

    Raises BusUnavailable when the batch breaks off or its own numbering shows a gap.
    """
    client = await bus.client()
    inbox = client.new_inbox()
    replies: asyncio.Queue[Msg] = asyncio.Queue()

    async def collect(message: Msg) -> None:
        replies.put_nowait(message)

    try:
        subscription = await client.subscribe(
            inbox, cb=collect, pending_msgs_limit=-1, pending_bytes_limit=-1
        )
        try:
            request = json.dumps({"seq": start, "batch": size}).encode()
            await client.publish(f"{bus.api}.DIRECT.GET.{stream}", request, reply=inbox)
            async with asyncio.timeout(_WAIT):
                return await bus.while_connected(_collect(replies))
        finally:
            with contextlib.suppress(nats.errors.Error, OSError):
                await subscription.unsubscribe()
    except (TimeoutError, nats.errors.Error, OSError) as error:
        message = f"reading {stream} from {start} broke off: {type(error).__name__}"
        raise BusUnavailable(message) from error


async def _collect(replies: "asyncio.Queue[Msg]") -> list[StoredMessage]:
    batch: list[StoredMessage] = []
    while True:
        reply = await replies.get()
        status = _status(reply)
        if status in {"204", "404"}:  # end of batch, or nothing at or after start
            return batch
        if status:
            raise BusUnavailable(f"a batched read was answered with status {status}")
        message = _stored(reply)
        if batch and message.previous != batch[-1].sequence:
            raise BusUnavailable(f"a batched read lost messages before {message.sequence}")
        batch.append(message)


def _status(reply: Msg) -> str:
    """Return the status of an answer that is no stored message, "" for one that is.

    A stored message keeps its sender's headers, and `Status: 204` among them must not look like
    the end of a batch: one such message would halt every reader. A stored one is known by its
    sequence, which nats-server adds to what it keeps and to nothing else.
    """
    headers = reply.headers or {}
    return "" if SEQUENCE in headers else headers.get("Status", "")


def _stored(reply: Msg) -> StoredMessage:
    headers = reply.headers or {}
    previous = headers.get("Nats-Last-Sequence")
    return StoredMessage(
        headers["Nats-Subject"],
        int(headers[SEQUENCE]),
        headers["Nats-Time-Stamp"],
        reply.data,
        int(previous) if previous else None,
    )


def _json(reply: Msg) -> dict[str, Any]:
    answer: dict[str, Any] = json.loads(reply.data)
    return answer


def _raise_for(answer: dict[str, Any]) -> None:
    error = answer.get("error")
    if not error:
        return
    code, description = error.get("err_code", 0), error.get("description", "")
    if code in {OVER_QUOTA, TOO_EARLY}:
        raise Later(code, description, int(answer.get("retry_after", 0)))
    if code == UNUSABLE:
        raise Unusable(code, description)
    raise StreamError(code, description)
