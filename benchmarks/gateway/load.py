"""A client without a library between it and the clock: plain sockets and one selector.

Closed loop: each of its connections sends the next request when the answer to the last one has
arrived. So a slow proxy is asked less often, and the latencies say nothing of a queue in front of
it. `python -m benchmarks.gateway.load` reads a job a line and prints a result a line, JSON both.
"""

import json
import re
import selectors
import socket
import statistics
import sys
import time
from dataclasses import asdict, dataclass, field
from typing import Final

from benchmarks.gateway.talk import request_body, stamps

_LENGTH: Final = re.compile(rb"\r\ncontent-length: *(\d+)", re.IGNORECASE)
_SIZE: Final = 65_536
_BOUND_SECONDS: Final = 10.0


@dataclass(frozen=True)
class Job:
    """What to ask, of whom, for how long."""

    port: int
    path: str
    token: str
    clients: int = 1
    seconds: float = 0.0
    """Of requests one after the other; 0: *streams* instead."""
    streams: int = 0

    def request(self) -> bytes:
        """Return the request, head and body."""
        body = request_body(stream=bool(self.streams))
        return (
            f"POST {self.path} HTTP/1.1\r\nHost: 127.0.0.1:{self.port}\r\n"
            f"Authorization: Bearer {self.token}\r\nContent-Type: application/json\r\n"
            f"Accept: */*\r\nUser-Agent: bench\r\nContent-Length: {len(body)}\r\n\r\n"
        ).encode() + body


@dataclass(frozen=True)
class Rate:
    """What came of requests one after the other."""

    requests: int
    seconds: float
    p50: float
    """Milliseconds, as `p99`."""
    p99: float


@dataclass(frozen=True)
class Streamed:
    """What came of streams one after the other."""

    first: float
    """Milliseconds from the sending of the request to the first event, median."""
    delay: float
    """Milliseconds from the provider's sending of a chunk to its arrival, median."""
    delay_p99: float
    held_back: int
    """Chunks that arrived after the provider had sent the one behind."""
    first_held_back: int
    """How many of those were the first of their stream."""
    chunks: int


@dataclass
class _Caller:
    """One connection."""

    socket: socket.socket
    sent: int = 0
    answer: bytes = b""
    latencies: list[int] = field(default_factory=list)

    def ask(self, request: bytes) -> None:
        self.answer = b""
        self.sent = time.perf_counter_ns()
        self.socket.sendall(request)  # 2 KB into an empty buffer: it does not block

    def hear(self) -> bool:
        """Take what has come; return whether the answer is whole. Raises ConnectionError."""
        data = self.socket.recv(_SIZE)
        if not data:
            raise ConnectionError("the connection was closed within an answer")
        self.answer += data
        return _is_whole(self.answer)


def _is_whole(answer: bytes) -> bool:
    end = answer.find(b"\r\n\r\n")
    if end < 0:
        return False
    if not answer.startswith(b"HTTP/1.1 200 "):
        raise ConnectionError(f"not answered with 200: {answer[:200]!r}")
    length = _LENGTH.search(answer, 0, end + 2)
    if length:
        return len(answer) == end + 4 + int(length[1])
    return answer.endswith(b"\r\n0\r\n\r\n")


def _connect(job: Job) -> _Caller:
    connection = socket.create_connection(("127.0.0.1", job.port))
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    connection.settimeout(_BOUND_SECONDS)
    return _Caller(connection)


def ask_for(job: Job) -> Rate:
    """Send requests on each connection, one after the other, for the job's time."""
    callers, request = [_connect(job) for _ in range(job.clients)], job.request()
    with selectors.EpollSelector() as selector:
        for caller in callers:
            selector.register(caller.socket, selectors.EVENT_READ, caller)
        began = time.perf_counter_ns()
        ends = began + int(job.seconds * 1e9)
        for caller in callers:
            caller.ask(request)
        waiting = len(callers)
        while waiting:
            ready = selector.select(_BOUND_SECONDS)
            if not ready:
                raise TimeoutError("no answer")
            for key, _ in ready:
                caller = key.data
                if caller.hear():
                    now = time.perf_counter_ns()
                    caller.latencies.append(now - caller.sent)
                    if now < ends:
                        caller.ask(request)
                    else:
                        waiting -= 1
        took = (time.perf_counter_ns() - began) / 1e9
    for caller in callers:
        caller.socket.close()
    latencies = sorted(one for caller in callers for one in caller.latencies)
    middle = latencies[len(latencies) // 2]
    late = latencies[int(len(latencies) * 0.99)]
    return Rate(len(latencies), took, middle / 1e6, late / 1e6)


def stream(job: Job) -> Streamed:
    """Ask for streams on one connection, one after the other."""
    caller, request = _connect(job), job.request()
    firsts, delays, late = [], [], []
    for _ in range(job.streams):
        arrived: dict[int, tuple[int, int]] = {}
        asked, whole, seen = time.monotonic_ns(), False, 0
        caller.ask(request)
        while not whole:
            whole, now = caller.hear(), time.monotonic_ns()
            # An event may come in two pieces: look again from the end of the last whole one.
            upto = caller.answer.rfind(b"\n\n") + 2
            for number, sent in stamps(caller.answer[seen:upto]):
                arrived[number] = (sent, now)
            seen = max(seen, upto)
        firsts.append((arrived[0][1] - asked) / 1e6)
        delays += [(now - sent) / 1e6 for sent, now in arrived.values()]
        late += [
            number
            for number, (_sent, now) in arrived.items()
            if number + 1 in arrived and arrived[number + 1][0] < now
        ]
    caller.socket.close()
    delays.sort()
    return Streamed(
        statistics.median(firsts),
        statistics.median(delays),
        delays[int(len(delays) * 0.99)],
        len(late),
        late.count(0),
        len(delays),
    )


def main() -> None:
    """Do each job."""
    for line in sys.stdin:
        job = Job(**json.loads(line))
        result = stream(job) if job.streams else ask_for(job)
        print(json.dumps(asdict(result)), flush=True)


if __name__ == "__main__":
    main()
