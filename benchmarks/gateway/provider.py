"""A made-up provider, far faster than what stands in front of it: no framework, canned answers.

`python -m benchmarks.gateway.provider` prints the port it listens on.
"""

import asyncio
import re
import time
from collections.abc import Callable
from typing import Final

from benchmarks.gateway.talk import CHUNKS, KEY, PACE, answer_body, stream_chunk, stream_end

_LENGTH: Final = re.compile(rb"\r\ncontent-length: *(\d+)", re.IGNORECASE)
_STREAM: Final = re.compile(rb'"stream": ?true')
_MODELS: Final = b'{"object":"list","data":[{"id":"made-up-1","object":"model"}]}'
_JSON: Final = b"content-type: application/json\r\ncontent-length: "


def _whole(status: bytes, body: bytes) -> bytes:
    return b"HTTP/1.1 %b\r\n%b%d\r\n\r\n%b" % (status, _JSON, len(body), body)


_ANSWER: Final = _whole(b"200 OK", answer_body())
_LIST: Final = _whole(b"200 OK", _MODELS)
_TURNED_AWAY: Final = _whole(b"401 Unauthorized", b'{"error":{"message":"no such key"}}')
_STREAM_HEAD: Final = (
    b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n"
)


def _chunk(data: bytes) -> bytes:
    return b"%x\r\n%b\r\n" % (len(data), data)


class Connection(asyncio.Protocol):
    """One client's connection; requests come one after the other."""

    def __init__(self) -> None:
        self._received = b""
        self._write: Callable[[bytes], None]
        self._gone = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Remember where answers go."""
        assert isinstance(transport, asyncio.WriteTransport)
        self._write = transport.write

    def connection_lost(self, _error: Exception | None) -> None:
        """Send nothing more."""
        self._gone = True

    def data_received(self, data: bytes) -> None:
        """Answer each whole request."""
        self._received += data
        end = self._received.find(b"\r\n\r\n")
        while end >= 0:
            head, after = self._received[: end + 2], end + 4
            length = _LENGTH.search(head)
            if length:
                after += int(length[1])
                if len(self._received) < after:
                    return
            elif b"\nTransfer-Encoding" in head:
                last = self._received.find(b"\r\n0\r\n\r\n", end)
                if last < 0:
                    return
                after = last + 7
            body, self._received = self._received[end:after], self._received[after:]
            self._answer(head, body)
            end = self._received.find(b"\r\n\r\n")

    def _answer(self, head: bytes, body: bytes) -> None:
        if KEY.encode() not in head:
            self._write(_TURNED_AWAY)
        elif head.startswith(b"GET "):
            self._write(_LIST)
        elif _STREAM.search(body):
            self._write(_STREAM_HEAD)
            self._stream(0, asyncio.get_running_loop().time())
        else:
            self._write(_ANSWER)

    def _stream(self, number: int, due: float) -> None:
        if self._gone:
            return
        if number == CHUNKS:
            self._write(_chunk(stream_end()) + b"0\r\n\r\n")
            return
        self._write(_chunk(stream_chunk(number, time.monotonic_ns())))
        due += PACE
        asyncio.get_running_loop().call_at(due, self._stream, number + 1, due)


async def main() -> None:
    """Listen until killed."""
    server = await asyncio.get_running_loop().create_server(Connection, "127.0.0.1", 0)
    print(server.sockets[0].getsockname()[1], flush=True)
    await server.serve_forever()


if __name__ == "__main__":
    asyncio.run(main())
